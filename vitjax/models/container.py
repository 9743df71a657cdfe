"""CONTAINER: Context Aggregation Network (Gao et al., arXiv:2106.01401).

New there: one view of attention, convolutions and MLP-Mixers as affinity matrices, dynamic ones
that depend on the input and static ones that do not, and a block that learns a balance of both
(eq. 4). CONTAINER-LIGHT has dynamic affinities in its last stage alone.

Code is published for the light form only (`container_v1_light`). In it each block begins with a 3×3
depthwise convolution, blocks and head are normalised by BatchNorm and patches by LayerNorm, a
static affinity is a 5×5 depthwise convolution, and α and β are σ(a) and 1 - σ(a) of one number for
each block. The MLPs of its first two stages are 8 times as wide as the map and not 4 times: hence
20.6M parameters and 3.8G multiply-adds, where the paper has 20.0M and 3.2G.

For the full form no code is published, and its sizes are a choice of this library: `container` is
the light layout with both affinities in all stages, heads of 32 channels as in its last stage, and
MLPs 4 times as wide everywhere. With these MLPs the light form has 20.0M and 3.1G, as in the paper,
and the full one 21.8M and 8.2G; the paper has 22.1M and 8.1G. With MLPs 8 times as wide the full
form would have 22.4M and 9.0G.
"""

from typing import Any

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init, normal_02, torch_default
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import batch_norm, layer_norm
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid

_LAYOUT: dict[str, Any] = dict(
    dims=(64, 128, 320, 512), depths=(3, 4, 8, 3), num_heads=(2, 4, 10, 16)
)
VARIANTS = {
    "container": dict(_LAYOUT, mixer="container"),
    "container_light": dict(
        _LAYOUT, mixer="dwconv ; dwconv ; dwconv ; container", mlp_ratio=(8.0, 8.0, 4.0, 4.0)
    ),
}
INIT = Init(dense=torch_default, head=normal_02)
"""As the authors' code draws them (allenai/container, models.py): all but the classifier are
convolutions there, which are left as PyTorch makes them."""


def container(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    mlp_ratio: float | tuple[float, ...] = 4.0,
    mixer: str = "container",
    kernel_size: int | tuple[int, ...] = 5,
    gate_init: float = 0.0,
    qkv_bias: bool = True,
    cpe_kernel_size: int = 3,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.1,
    remat: bool = False,
    scan: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a CONTAINER: position convolution, balanced affinities and MLP in each block.

    Args:
      kernel_size: kernel of the static affinities.
      gate_init: see `ContainerMixer`.
      drop_rate: dropout of the outputs of mixers and MLPs.
    """
    options = dict(
        kernel_size=kernel_size,
        gate_init=gate_init,
        qkv_bias=qkv_bias,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
    )
    ratios = mlp_ratio if isinstance(mlp_ratio, tuple) else (mlp_ratio,) * len(dims)
    block = spec(
        Block,
        mlp=tuple(spec(Mlp, mlp_ratio=r, drop_rate=drop_rate) for r in ratios),
        norm=batch_norm(),
        cpe_kernel_size=cpe_kernel_size,
    )
    norm = layer_norm(1e-5)
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads,
        mixers=fill_mixers(parse_mixers(mixer, len(dims)), **options),
        stem=spec(ConvNorm, kernel_size=4, stride=4, norm=norm),
        downsample=spec(ConvNorm, kernel_size=2, stride=2, norm=norm),
        block=block, norm=batch_norm(), num_classes=num_classes, image_size=image_size,
        drop_path_rate=drop_path_rate, remat=remat, scan=scan, param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET, crop=0.875, interpolation="bicubic", source="allenai/container, datasets.py"
)

FAMILY = Family(
    models={name: spec(container, **kw) for name, kw in VARIANTS.items()},
    weights={container: "container"},
    paper="[CONTAINER](https://arxiv.org/abs/2106.01401)",
    code="allenai/container, Apache-2.0 (the light form alone)",
    source="the paper; of the light form the repository's README",
    golden="light: logits, stages, gradients",
    published={
        "container": (22.1, 8.1, 82.7, ""),
        "container_light": (21, None, 82.3, ""),
    },
    preprocessing={"*": PREPROCESSING},
)
