"""BiFormer (Zhu et al., arXiv:2303.08810).

New there: bi-level routing attention. A region of the map is first routed to the few regions that
resemble it, then its positions attend to those regions only: sparse, and dependent on the content.

The released code, which made the published weights, scales routing and attention by 1/√(full
width), where the paper has 1/√head_dim: `scale=32**-0.5` is the paper's reading. Its last stage is
full attention with 8 heads whatever the width, no biases of q, k, v, and LePE on x, not on v. The
final norm is a BatchNorm, as in the stem. Maps that are no multiple of 7 are zero-padded after the
norm and the padding is not masked. The released code builds its models without stochastic depth.

`biformer_stl` is the ablation of the paper's section 4 with Swin-T's layout: its widths, depths and
MLP ratio, patches that do not overlap, no position convolution. The paper does not spell out its
norms and downsampling; here they are convolutions of 4×4 and 2×2 with LayerNorm.
"""

from typing import Any

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm, ConvStem
from vitjax.layers.init import NORMAL
from vitjax.layers.mlp import ConvMlp, Mlp
from vitjax.layers.norm import batch_norm, layer_norm
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid

VARIANTS = {
    "tiny": dict(dims=(64, 128, 256, 512), depths=(2, 2, 8, 2)),
    "small": dict(dims=(64, 128, 256, 512), depths=(4, 4, 18, 4)),
    "base": dict(dims=(96, 192, 384, 768), depths=(4, 4, 18, 4)),
    "stl": dict(
        dims=(96, 192, 384, 768),
        depths=(2, 2, 6, 2),
        mlp_ratio=4.0,
        overlap=False,
        cpe_kernel_size=0,
    ),
}
"""Table 1, and the Swin-T layout."""
INIT = NORMAL
"""As the authors' code draws them (rayleizhu/BiFormer, models/biformer.py)."""
MIXER = "bra(topk=1) ; bra(topk=4) ; bra(topk=16) ; full_lepe(num_heads=8, qkv_bias=False)"


def biformer(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    head_dim: int = 32,
    qk_dim: tuple[int, ...] | None = None,
    scale: float | None = None,
    n_win: int | tuple[int, ...] = 7,
    mixer: str = MIXER,
    lepe_kernel_size: int = 5,
    cpe_kernel_size: int = 3,
    kv_downsample: str = "identity",
    kv_size: int | tuple[int, ...] = 0,
    param_routing: bool = False,
    diff_routing: bool = False,
    mul_weight: str = "none",
    mlp_ratio: float | tuple[float, ...] = 3.0,
    mlp_dwconv: bool = False,
    pre_norm: bool = True,
    layer_scale_init: float | None = None,
    overlap: bool = True,
    frozen_statistics: bool = False,
    drop_path_rate: float = 0.0,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    remat: bool = False,
    scan: bool = False,
    dense: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a BiFormer: position convolution, bi-level routing attention and MLP in each block.

    Args:
      head_dim: width of a head of q and k; their number is qk_dim / head_dim.
      qk_dim: width of q and k per stage; None for dims.
      scale … mul_weight: see `BiLevelRoutingAttention`.
      mlp_dwconv: a 3×3 depthwise convolution in the MLPs.
      pre_norm: x + branch(norm(x)); otherwise norm(x + branch(x)).
      overlap: stem and downsampling by 3×3 convolutions with BatchNorm; otherwise by patches.
      frozen_statistics: BatchNorm takes its running statistics in training too, and does not change
        them, as in the authors' detection code.
      dense: for dense heads: a LayerNorm of its own on each map that a head reads, and not on what
        the next stage reads, as in the authors' segmentation code. Their regions there are 8×8.

    Raises:
      ValueError: `frozen_statistics` without a BatchNorm.
    """
    if frozen_statistics and not overlap:
        raise ValueError("frozen_statistics=True needs overlap=True: patches have no BatchNorm.")
    heads = tuple(width // head_dim for width in qk_dim or dims)
    options = dict(
        qk_dim=qk_dim, scale=scale, n_win=n_win, lepe_kernel_size=lepe_kernel_size,
        kv_downsample=kv_downsample, kv_size=kv_size, param_routing=param_routing,
        diff_routing=diff_routing, mul_weight=mul_weight,
    )  # fmt: skip
    mixers = fill_mixers(parse_mixers(mixer, len(dims)), **options)
    ratios = mlp_ratio if isinstance(mlp_ratio, tuple) else (mlp_ratio,) * len(dims)
    block = spec(
        Block,
        mlp=tuple(spec(ConvMlp if mlp_dwconv else Mlp, mlp_ratio=r) for r in ratios),
        norm_place="before" if pre_norm else "sum",
        cpe_kernel_size=cpe_kernel_size,
        layer_scale_init=layer_scale_init,
    )
    if overlap:
        norm = batch_norm(frozen=frozen_statistics)
        stem = spec(ConvStem, norm=norm)
        downsample = spec(ConvNorm, kernel_size=3, stride=2, padding=1, norm=norm)
    else:
        stem, norm = spec(ConvNorm, kernel_size=4, stride=4, norm=layer_norm()), layer_norm()
        downsample = spec(ConvNorm, kernel_size=2, stride=2, norm=norm)
    return Pyramid(
        dims, depths, heads, mixers,
        stem, downsample, block, norm, feature_norm=layer_norm() if dense else None,
        num_classes=num_classes, image_size=image_size,
        drop_path_rate=drop_path_rate, remat=remat, scan=scan, param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="rayleizhu/BiFormer, datasets.py",
)

FAMILY = Family(
    models={f"biformer_{v}": spec(biformer, **kw) for v, kw in VARIANTS.items()},
    weights={biformer: "biformer"},
    paper="[BiFormer](https://arxiv.org/abs/2303.08810)",
    code="rayleizhu/BiFormer, MIT",
    source="the repository's README",
    golden="tiny: logits, stages, gradients, routed regions",
    published={
        "biformer_tiny": (13.1, 2.2, 81.4, ""),
        "biformer_small": (25.5, 4.5, 83.8, ""),
        "biformer_base": (56.8, 9.8, 84.3, ""),
        "biformer_stl": (28.4, 4.6, 82.7, ""),
    },
    preprocessing={"*": PREPROCESSING},
)
