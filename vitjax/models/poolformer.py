"""PoolFormer: MetaFormer Is Actually What You Need for Vision (Yu et al., arXiv:2111.11418).

New there: the mean of the neighbours replaces attention. Its accuracy shows how much of a
transformer's success is due to the structure of its blocks, with any token mixer.

Norms are over channels and positions of a map. So is the final norm in the authors' code, which
trained the published weights. In timm's model the final norm is over the channels of the last map's
mean: `norm_pooled`.
"""

from typing import Any

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm, map_norm
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid

_SMALL, _MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
VARIANTS: dict[str, dict[str, Any]] = {
    "s12": dict(dims=_SMALL, depths=(2, 2, 6, 2), layer_scale_init=1e-5, drop_path_rate=0.1),
    "s24": dict(dims=_SMALL, depths=(4, 4, 12, 4), layer_scale_init=1e-5, drop_path_rate=0.1),
    "s36": dict(dims=_SMALL, depths=(6, 6, 18, 6), layer_scale_init=1e-6, drop_path_rate=0.2),
    "m36": dict(dims=_MEDIUM, depths=(6, 6, 18, 6), layer_scale_init=1e-6, drop_path_rate=0.3),
    "m48": dict(dims=_MEDIUM, depths=(8, 8, 24, 8), layer_scale_init=1e-6, drop_path_rate=0.4),
}
"""Table 1, with the stochastic depth of the authors' README."""
INIT = NORMAL
"""As the authors' code draws them (sail-sg/poolformer, models/poolformer.py)."""


def poolformer(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...] | None = None,
    pool_size: int | tuple[int, ...] = 3,
    mlp_ratio: float | tuple[float, ...] = 4.0,
    mixer: str = "pooling",
    layer_scale_init: float | None = 1e-5,
    norm_pooled: bool = False,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    remat: bool = False,
    scan: bool = False,
    dense: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a PoolFormer, or another MetaFormer with another mixer.

    Args:
      num_heads: heads of mixers that have heads; None for heads of 32 channels.
      pool_size: side of the neighbourhood, odd.
      norm_pooled: the classifier reads the norm of the last map's mean, and not the mean of its
        norm.
      drop_rate: dropout of the outputs of mixers and MLPs.
      dense: for dense heads: a separate norm of each map that a head reads, but not of the next
        stage's input, as in the authors' segmentation code.
    """
    options = dict(pool_size=pool_size, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate)
    ratios = mlp_ratio if isinstance(mlp_ratio, tuple) else (mlp_ratio,) * len(dims)
    block = spec(
        Block,
        mlp=tuple(spec(Mlp, mlp_ratio=r, drop_rate=drop_rate) for r in ratios),
        norm=map_norm(),
        layer_scale_init=layer_scale_init,
    )
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads or tuple(max(1, d // 32) for d in dims),
        mixers=fill_mixers(parse_mixers(mixer, len(dims)), **options),
        stem=spec(ConvNorm, kernel_size=7, stride=4, padding=2),
        downsample=spec(ConvNorm, kernel_size=3, stride=2, padding=1), block=block,
        norm=layer_norm() if norm_pooled else map_norm(), norm_pooled=norm_pooled,
        feature_norm=map_norm() if dense else None, num_classes=num_classes,
        image_size=image_size, drop_path_rate=drop_path_rate, remat=remat, scan=scan,
        param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.9,
    interpolation="bicubic",
    source="sail-sg/poolformer, models/poolformer.py",
)

FAMILY = Family(
    models={f"poolformer_{v}": spec(poolformer, **kw) for v, kw in VARIANTS.items()},
    weights={poolformer: "poolformer"},
    paper="[PoolFormer](https://arxiv.org/abs/2111.11418)",
    code="sail-sg/poolformer, Apache-2.0",
    source="the repository's README",
    golden="a small one of the authors' code, and timm's s12: logits, stages, gradients",
    published={
        "poolformer_s12": (12, 1.8, 77.2, ""),
        "poolformer_s24": (21, 3.4, 80.3, ""),
        "poolformer_s36": (31, 5.0, 81.4, ""),
        "poolformer_m36": (56, 8.8, 82.1, ""),
        "poolformer_m48": (73, 11.6, 82.5, ""),
    },
    preprocessing={"poolformer_m*": PREPROCESSING._replace(crop=0.95), "*": PREPROCESSING},
)
