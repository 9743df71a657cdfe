"""DAT: Vision Transformer with Deformable Attention (Xia et al., arXiv:2201.00520), and DAT++:
Spatially Dynamic Vision Transformer with Deformable Attention (arXiv:2309.01430).

New there: keys and values are sampled at points that offsets, predicted from the queries, move to
where the image has something to say; all queries share them. DAT alternates it with windows in
its last two stages; DAT++ with neighbourhood attention in all but the last, and adds convolutions
to stem, downsampling and MLPs, and a position convolution (local perception unit) to each block.

The paper divides by the number of points along a side when it spreads them over [-1, 1], and so
did the code of the first release (`inset=0`). The present code, which is the default here for
both, divides by one less: the last points then lie outside of the map. Its shifted windows move by
⌈M/2⌉ pixels, Swin's by ⌊M/2⌋.
"""

from typing import Any

from vitjax.attention import MIXERS, fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm, ConvStem
from vitjax.layers.init import Init, normal, torch_default
from vitjax.layers.mlp import ConvMlp, Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import KERNELS, Block, Pyramid

_WINDOWS = "window | window(shift=4)"
_CVPR = dict(
    mixer=f"{_WINDOWS} ; {_WINDOWS} ; window | deformable ; window | deformable",
    stride=1,
    offset_range_factor=2.0,
)
_PLUS = dict(
    mixer="; ".join(["neighborhood | deformable"] * 3 + ["deformable"]),
    overlap=True,
    conv_mlp=True,
    cpe_kernel_size=3,
)
_T = dict(dims=(96, 192, 384, 768), num_heads=(3, 6, 12, 24))
_B = dict(dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32))
VARIANTS = {
    "tiny": dict(_CVPR, **_T, depths=(2, 2, 6, 2), offset_groups=(1, 1, 3, 6)),
    "small": dict(_CVPR, **_T, depths=(2, 2, 18, 2), offset_groups=(1, 1, 3, 6),
                  drop_path_rate=0.3),
    "base": dict(_CVPR, **_B, depths=(2, 2, 18, 2), offset_groups=(1, 1, 4, 8),
                 drop_path_rate=0.5),
    "pp_tiny": dict(_PLUS, dims=(64, 128, 256, 512), num_heads=(2, 4, 8, 16),
                    depths=(2, 4, 18, 2), offset_groups=(1, 2, 4, 8)),
    "pp_small": dict(_PLUS, **_T, depths=(2, 4, 18, 2), offset_groups=(1, 2, 3, 6),
                     drop_path_rate=0.4),
    "pp_base": dict(_PLUS, **_B, depths=(2, 4, 18, 2), offset_groups=(2, 4, 8, 16),
                    drop_path_rate=0.6),
}  # fmt: skip
"""Table 1 of DAT, table 2 of DAT++."""
DECAY = ((".*/rpb", 1.0), *KERNELS)
"""The authors' code exempts its own tables, and not those of the neighbourhood attention."""
INIT = Init(dense=torch_default, table=normal(0.01))
"""PyTorch's defaults: `reset_parameters` of the authors' code changes nothing (LeapLabTHU/DAT)."""


def dat(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    mixer: str,
    offset_groups: int | tuple[int | None, ...] | None = None,
    stride: int | tuple[int, ...] = (8, 4, 2, 1),
    kernel_size: int | tuple[int, ...] = (9, 7, 5, 3),
    offset_range_factor: float | tuple[float, ...] = -1.0,
    inset: int | tuple[int, ...] = 1,
    position_bias: str | tuple[str, ...] = "table",
    offsets: bool | tuple[bool, ...] = True,
    window_size: int | tuple[int, ...] = 7,
    neighborhood_size: int | tuple[int, ...] = 7,
    sr_ratio: int | tuple[int, ...] = (8, 4, 2, 1),
    mlp_ratio: float = 4.0,
    conv_mlp: bool | tuple[bool, ...] = False,
    cpe_kernel_size: int | tuple[int, ...] = 0,
    layer_scale_init: float | tuple[float | None, ...] | None = None,
    overlap: bool = False,
    patch_size: int = 4,
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
    """Build a DAT or DAT++; `mixer` is the pattern of its stages.

    Args:
      offset_groups … offsets: see `DeformableAttention`.
      sr_ratio: of the mixer "sra", as in PVT.
      conv_mlp: a depthwise convolution is added in the MLPs.
      cpe_kernel_size: 3 for local perception units.
      overlap: convolutions with overlap in stem and downsampling, otherwise patches.
      image_size: that for which the position tables are made; see `DeformableAttention`.
      dense: for dense heads: a LayerNorm of its own on each map that a head reads, and not on what
        the next stage reads, as in the authors' segmentation code.
    """
    stages = len(dims)
    deformable = MIXERS["deformable"].replace(
        offset_groups=offset_groups,
        stride=stride,
        kernel_size=kernel_size,
        offset_range_factor=offset_range_factor,
        inset=inset,
        position_bias=position_bias,
        offsets=offsets,
    )
    menu = {**MIXERS, "deformable": deformable, "sra": MIXERS["sra"].replace(sr_ratio=sr_ratio)}
    norm = layer_norm(1e-5)
    mlps = tuple(
        spec(ConvMlp, residual=True, mlp_ratio=mlp_ratio, drop_rate=drop_rate)
        if conv
        else spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate)
        for conv in (conv_mlp if isinstance(conv_mlp, tuple) else (conv_mlp,) * stages)
    )
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    maps = tuple(
        (-(-height // s), -(-width // s)) for s in (patch_size << i for i in range(stages))
    )
    options = dict(
        table_size=maps, window_size=window_size, neighborhood_size=neighborhood_size,
        map_size=((0, 0),) * stages,  # no map is small enough to leave out a shift
        drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, norm=norm, mlp=mlps,
    )  # fmt: skip
    if overlap:
        stem = spec(ConvStem, norm=norm, stride=patch_size // 2)
        downsample = spec(ConvNorm, kernel_size=3, stride=2, padding=1, use_bias=False, norm=norm)
    else:
        stem = spec(ConvNorm, kernel_size=patch_size, stride=patch_size, norm=norm)
        downsample = spec(ConvNorm, kernel_size=2, stride=2, use_bias=False, norm=norm)
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads, stem=stem,
        stem_stride=patch_size, downsample=downsample,
        mixers=fill_mixers(parse_mixers(mixer, stages, menu), **options),
        block=spec(Block, mlp=mlps, norm=norm, cpe_kernel_size=cpe_kernel_size,
                   layer_scale_init=layer_scale_init),
        norm=norm, feature_norm=norm if dense else None, num_classes=num_classes,
        image_size=image_size, drop_path_rate=drop_path_rate,
        remat=remat, scan=scan, param_init=INIT, decay_rules=DECAY, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    large_crop=0.0,
    source="LeapLabTHU/DAT, data/build.py, which squeezes images to 256×256 first",
)

FAMILY = Family(
    models={f"dat_{v}": spec(dat, **kw) for v, kw in VARIANTS.items() if not v.startswith("pp_")},
    weights={dat: "dat"},
    paper="[DAT](https://arxiv.org/abs/2201.00520)",
    code="LeapLabTHU/DAT, Apache-2.0",
    source="the paper, table 2",
    golden="tiny: logits, stages, gradients",
    published={
        "dat_tiny": (29, 4.6, 82.0, ""),
        "dat_small": (50, 9.0, 83.7, ""),
        "dat_base": (88, 15.8, 84.0, ""),
    },
    preprocessing={"*": PREPROCESSING},
)


FAMILY_PP = Family(
    models={f"dat_{v}": spec(dat, **kw) for v, kw in VARIANTS.items() if v.startswith("pp_")},
    weights={dat: "dat"},
    paper="[DAT++](https://arxiv.org/abs/2309.01430)",
    code="LeapLabTHU/DAT, Apache-2.0",
    source="the paper, table 3",
    golden="tiny: logits, stages, gradients",
    published={
        "dat_pp_tiny": (24, 4.3, 83.9, ""),
        "dat_pp_small": (53, 9.4, 84.6, ""),
        "dat_pp_base": (93, 16.6, 84.9, ""),
    },
    preprocessing={"*": PREPROCESSING},
)
