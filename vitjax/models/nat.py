"""NAT: Neighborhood Attention Transformer (Hassani et al., arXiv:2204.07143), and DiNAT: Dilated
Neighborhood Attention Transformer (Hassani and Shi, arXiv:2209.15001).

New in NAT: each pixel attends to the 7×7 pixels around it (`NeighborhoodAttention`), so that there
are no windows whose borders hide neighbours; stem and downsampling are convolutions that overlap.
New in DiNAT: every other block takes its neighbours at a distance, which reaches over the whole map
at the same cost. DiNAT_s has these blocks in a Swin Transformer.

The dilations are the largest that maps of images of 224 (or 384) pixels hold. Smaller maps are
padded up to the dilated neighbourhood, which costs more than it gives; for such images choose
others, as in `mixer="neighborhood | neighborhood(dilation=(4, 2, 1, 1))"`. In the authors' code NAT
has layer scale in small and base, DiNAT in base alone.
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.spec import Spec, spec
from vitjax.models.family import I21K, Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import KERNELS, Block, Pyramid
from vitjax.models.swin import SIZES, swin

_DILATED = "neighborhood | neighborhood(dilation=(8, 4, 2, 1))"
_DILATED_384 = "neighborhood | neighborhood(dilation=(13, 6, 3, 1))"
_MINI = dict(dims=(64, 128, 256, 512), depths=(3, 4, 6, 5), num_heads=(2, 4, 8, 16))
_TINY = dict(_MINI, depths=(3, 4, 18, 5))
_SMALL = dict(dims=(96, 192, 384, 768), depths=(3, 4, 18, 5), num_heads=(3, 6, 12, 24),
              mlp_ratio=2.0, drop_path_rate=0.3)  # fmt: skip
_BASE = dict(dims=(128, 256, 512, 1024), depths=(3, 4, 18, 5), num_heads=(4, 8, 16, 32),
             mlp_ratio=2.0, layer_scale_init=1e-5, drop_path_rate=0.5)  # fmt: skip
_LARGE = dict(dims=(192, 384, 768, 1536), depths=(3, 4, 18, 5), num_heads=(6, 12, 24, 48),
              mlp_ratio=2.0, drop_path_rate=0.35)  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "nat_mini": _MINI,
    "nat_tiny": _TINY,
    "nat_small": dict(_SMALL, layer_scale_init=1e-5),
    "nat_base": _BASE,
    "dinat_mini": dict(_MINI, mixer=_DILATED),
    "dinat_tiny": dict(_TINY, mixer=_DILATED),
    "dinat_small": dict(_SMALL, mixer=_DILATED),
    "dinat_base": dict(_BASE, mixer=_DILATED),
    "dinat_large": dict(_LARGE, mixer=_DILATED),
    "dinat_large_384": dict(_LARGE, mixer=_DILATED_384, image_size=384),
    "dinat_large_384_11x11": dict(_LARGE, mixer=_DILATED, neighborhood_size=11, image_size=384),
}
"""As the authors' code builds them, stochastic depth included (classification/nat.py, dinat.py)."""
_LARGE_S = dict(SIZES["large"], drop_path_rate=0.35)
VARIANTS_S: dict[str, dict[str, Any]] = {
    "dinat_s_tiny": dict(SIZES["tiny"], mixer=_DILATED),
    "dinat_s_small": dict(SIZES["small"], mixer=_DILATED),
    "dinat_s_base": dict(SIZES["base"], mixer=_DILATED),
    "dinat_s_large": dict(_LARGE_S, mixer=_DILATED),
    "dinat_s_large_384": dict(_LARGE_S, mixer=_DILATED_384, image_size=384),
}
INIT = NORMAL
"""As the authors' code draws them (classification/nat.py)."""
DECAY = ((".*/rpb", 1.0), *KERNELS)
"""The code exempts `rpb` by an attribute that the optimizer of timm does not read: it decays.
DiNAT_s has the rules of Swin.
"""


class ConvTokenizer(nn.Module):
    """Two 3×3 convolutions of stride 2 with nothing between them (`conv_0`, `conv_1`), a norm, and
    dropout.
    """

    width: int
    norm: Spec = layer_norm(1e-5)
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        for i, (width, norm) in enumerate(((self.width // 2, None), (self.width, self.norm))):
            conv = ConvNorm(
                width, 3, 2, 1, norm=norm, param_init=self.param_init, dtype=self.dtype,
                name=f"conv_{i}",
            )  # fmt: skip
            x = conv(x, train)
        return nn.Dropout(self.drop_rate, deterministic=not train)(x)


def nat(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    neighborhood_size: int | tuple[int, ...] = 7,
    mlp_ratio: float = 3.0,
    qkv_bias: bool = True,
    layer_scale_init: float | None = None,
    mixer: str = "neighborhood",
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.2,
    remat: bool = False,
    scan: bool = False,
    dense: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a NAT, or with dilations in `mixer` a DiNAT.

    Args:
      neighborhood_size: side of the neighbourhood, in pixels of each stage's map.
      drop_rate: dropout of the stem's map, and of what mixers and MLPs give.
      dense: for dense heads: a separate norm of each map that a head reads, but not of the next
        stage's input, as in the authors' segmentation code.
    """
    options = dict(
        neighborhood_size=neighborhood_size,
        qkv_bias=qkv_bias,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
    )
    norm = layer_norm(1e-5)
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads,
        mixers=fill_mixers(parse_mixers(mixer, len(dims)), **options),
        stem=spec(ConvTokenizer, norm=norm, drop_rate=drop_rate),
        downsample=spec(ConvNorm, kernel_size=3, stride=2, padding=1, use_bias=False, norm=norm),
        block=spec(Block, mlp=spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate), norm=norm,
                   layer_scale_init=layer_scale_init),
        norm=norm, feature_norm=norm if dense else None, num_classes=num_classes,
        image_size=image_size, drop_path_rate=drop_path_rate, remat=remat, scan=scan,
        param_init=INIT, decay_rules=DECAY, dtype=dtype,
    )  # fmt: skip


_CODE = "SHI-Labs/Neighborhood-Attention-Transformer, MIT"
_GOLDEN = "a small one of the authors' code with its library's kernels: logits, stages, gradients"
PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    large_crop=1.0,
    source="the authors' classification/validate.py and configs, and timm's defaults",
)

FAMILY = Family(
    models={name: spec(nat, **kw) for name, kw in VARIANTS.items() if name.startswith("nat_")},
    weights={nat: "nat"},
    paper="[NAT](https://arxiv.org/abs/2204.07143)",
    code=_CODE,
    source="the repository's NAT.md",
    golden=_GOLDEN,
    published={
        "nat_mini": (20, 2.7, 81.8, ""),
        "nat_tiny": (28, 4.3, 83.2, ""),
        "nat_small": (51, 7.8, 83.7, ""),
        "nat_base": (90, 13.7, 84.3, ""),
    },
    preprocessing={"*": PREPROCESSING},
)

FAMILY_DINAT = Family(
    models={
            **{name: spec(nat, **kw) for name, kw in VARIANTS.items() if name.startswith("dinat_")},
            **{name: spec(swin, **kw) for name, kw in VARIANTS_S.items()},
        },
    weights={nat: "nat", swin: "swin"},
    paper="[DiNAT](https://arxiv.org/abs/2209.15001)",
    code=_CODE,
    source="the repository's DiNAT.md",
    golden=_GOLDEN,
    published={
            "dinat_mini": (20, 2.7, 81.8, ""), "dinat_tiny": (28, 4.3, 82.7, ""),
            "dinat_small": (51, 7.8, 83.8, ""), "dinat_base": (90, 13.7, 84.4, ""),
            "dinat_large": (200, 30.6, 86.6, I21K), "dinat_large_384": (200, 89.7, 87.4, I21K),
            "dinat_large_384_11x11": (200, 92.4, 87.5, I21K),
            "dinat_s_tiny": (28, 4.5, 81.8, ""), "dinat_s_small": (50, 8.7, 83.5, ""),
            "dinat_s_base": (88, 15.4, 83.8, ""), "dinat_s_large": (197, 34.5, 86.5, I21K),
            "dinat_s_large_384": (197, 101.5, 87.4, I21K),
        },
    preprocessing={"*": PREPROCESSING},
)  # fmt: skip
