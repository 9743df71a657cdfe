"""DeBiFormer (Long et al., arXiv:2410.08582).

New there: deformable agents route. Points that the map moves gather from the regions that they are
routed to, and every position attends to these few agents; such blocks alternate with BiFormer's.

The authors' released classification code does not run: a misspelt argument and names that exist
only when padding is on. This file is what the code says with the two slips mended, and it runs.
Where it differs from the paper, the default is the code, with which the published sizes agree:
- Offsets have one channel, which moves a point along the diagonal; the paper's (y, x) is
  `offset_channels=2`.
- Routing and attention are scaled by 1/√(full width); `scale=32**-0.5` is the paper's 1/√head_dim.
- The base model has 95.5 M parameters, where paper and README say 77 M; multiply-adds agree.
- Offsets are not bounded by tanh, points are clipped to the map (`offset_range_factor` ≥ 0 bounds
  them). Undisplaced points are centres of cells where ±1 are the map's edges, but are read where
  ±1 are its outermost pixels.
- Weights are initialised as torch does by default, as the released initialisation has no effect.
An official block is two of ours: (position convolution, BRA, MLP), (position convolution, DBRA,
MLP), with the same rate of stochastic depth.
"""

from typing import Any

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm, ConvStem
from vitjax.layers.drop_path import drop_path_schedule
from vitjax.layers.init import Init, normal, torch_default
from vitjax.layers.mlp import ConvMlp
from vitjax.layers.norm import batch_norm, layer_norm
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid

VARIANTS = {
    "tiny": dict(dims=(64, 128, 256, 512), depths=(2, 2, 8, 2), offset_groups=(1, 2, 4, 8)),
    "small": dict(
        dims=(64, 128, 256, 512),
        depths=(4, 4, 18, 6),
        offset_groups=(1, 2, 4, 8),
        mlp_ratio=(3.0, 3.0, 3.0, 2.0),
        agent_mlp_ratio=(3.0, 3.0, 3.0, 1.0),
    ),
    "base": dict(dims=(96, 192, 384, 768), depths=(4, 4, 18, 4), offset_groups=(1, 2, 3, 6)),
}
"""Depths count our blocks, two for one of the paper's."""
INIT = Init(dense=torch_default, table=normal(0.01))
"""PyTorch's defaults: the authors' code defines an initialisation that no module is given."""


def debiformer(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    head_dim: int = 32,
    scale: float | None = None,
    n_win: int | tuple[int, ...] = 7,
    mixer: str = "bra(topk=1) | dbra ; bra(topk=4) | dbra ; bra(topk=16) | dbra ; dbra",
    offset_groups: tuple[int, ...] | None = None,
    offset_channels: int = 1,
    offset_range_factor: float = -1.0,
    agent_mlp_ratio: float | tuple[float, ...] = 3.0,
    lepe_kernel_size: int = 5,
    cpe_kernel_size: int = 3,
    table_size: tuple[int, ...] = (56, 28, 14, 7),
    kv_downsample: str = "identity",
    kv_size: int | tuple[int, ...] = 0,
    param_routing: bool = False,
    diff_routing: bool = False,
    mul_weight: str = "none",
    mlp_ratio: float | tuple[float, ...] = 3.0,
    pre_norm: bool = True,
    layer_scale_init: float | None = None,
    drop_path_rate: float = 0.0,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    remat: bool = False,
    scan: bool = False,
    dense: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a DeBiFormer: blocks of bi-level routing attention alternate with deformable ones.

    Args:
      depths: two for each of the paper's blocks.
      head_dim: width of a head; their number is dims / head_dim.
      offset_groups … agent_mlp_ratio: see `DeformableBiLevelRoutingAttention`.
      table_size: side of the map that each stage's table of position biases is for. Fixed, as in
        the authors' code: images of any size look up relative positions in it.
      scale, kv_downsample … mul_weight: see `BiLevelRoutingAttention`.
      pre_norm: x + branch(norm(x)); otherwise norm(x + branch(x)).
      drop_path_rate: of the last pair of blocks, linear over pairs.
      dense: for dense heads: a LayerNorm of its own on each map that a head reads, and not on what
        the next stage reads, as in the authors' segmentation code. Their regions there are 8×8.
    """
    options = dict(
        scale=scale, n_win=n_win, offset_groups=offset_groups, offset_channels=offset_channels,
        offset_range_factor=offset_range_factor, agent_mlp_ratio=agent_mlp_ratio,
        lepe_kernel_size=lepe_kernel_size, table_size=tuple((side, side) for side in table_size),
        kv_downsample=kv_downsample, kv_size=kv_size, param_routing=param_routing,
        diff_routing=diff_routing, mul_weight=mul_weight,
    )  # fmt: skip
    mixers = fill_mixers(parse_mixers(mixer, len(dims)), **options)
    ratios = mlp_ratio if isinstance(mlp_ratio, tuple) else (mlp_ratio,) * len(dims)
    mlps = tuple(spec(ConvMlp, mlp_ratio=r, residual=True) for r in ratios)
    pairs = drop_path_schedule(drop_path_rate, -(-sum(depths) // 2))
    return Pyramid(
        dims, depths, tuple(width // head_dim for width in dims), mixers,
        stem=spec(ConvStem),
        downsample=spec(ConvNorm, kernel_size=3, stride=2, padding=1, norm=batch_norm()),
        block=spec(
            Block, mlp=mlps, cpe_kernel_size=cpe_kernel_size, layer_scale_init=layer_scale_init,
            norm_place="before" if pre_norm else "sum",
        ),
        norm=batch_norm(), feature_norm=layer_norm() if dense else None,
        num_classes=num_classes, image_size=image_size,
        drop_path_rate=tuple(pairs[i // 2] for i in range(sum(depths))), remat=remat, scan=scan,
        param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="maclong01/DeBiFormer, classification/datasets.py",
)

FAMILY = Family(
    models={f"debiformer_{v}": spec(debiformer, **kw) for v, kw in VARIANTS.items()},
    weights={debiformer: "debiformer"},
    paper="[DeBiFormer](https://arxiv.org/abs/2410.08582)",
    code="maclong01/DeBiFormer, MIT",
    source="the repository's README",
    golden=(
        "tiny: logits, stages, gradients, routed regions, of the released code with the two "
        "slips mended that keep it from running"
    ),
    published={
        "debiformer_tiny": (21.4, 2.6, 81.9, ""),
        "debiformer_small": (44, 5.4, 83.9, ""),
        "debiformer_base": (77, 11.8, 84.4, "the README says 77 M, the code has 95.5 M"),
    },
    preprocessing={"*": PREPROCESSING},
)
