"""PVT v2 (Wang et al., arXiv:2106.13797).

New there: overlapping patch embeddings and a depthwise convolution in the MLP in the place of
position tables, so that any image size works; and, with `linear`, keys and values pooled to 7×7.

The official code has epsilon 1e-5 in the norms after a patch embedding and after a reduction, 1e-6
in the others; a reduction drops the rows and columns left over. Of the paper's linear variant it
also has, untold, a ReLU between the first layer of the MLP and its convolution.
"""

from typing import Any

import flax.linen as nn

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init, fan_out_normal
from vitjax.layers.mlp import ConvMlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pvt import reduce_mixers
from vitjax.models.pyramid import Block, Pyramid

_HEADS = dict(num_heads=(1, 2, 5, 8))
_B0 = dict(_HEADS, dims=(32, 64, 160, 256), mlp_ratio=(8.0, 8.0, 4.0, 4.0))
_B = dict(_HEADS, dims=(64, 128, 320, 512), mlp_ratio=(8.0, 8.0, 4.0, 4.0))
VARIANTS = {
    "b0": dict(_B0, depths=(2, 2, 2, 2), drop_path_rate=0.1),
    "b1": dict(_B, depths=(2, 2, 2, 2), drop_path_rate=0.1),
    "b2": dict(_B, depths=(3, 4, 6, 3), drop_path_rate=0.1),
    "b2_li": dict(_B, depths=(3, 4, 6, 3), drop_path_rate=0.1, linear=True),
    "b3": dict(_B, depths=(3, 4, 18, 3), drop_path_rate=0.3),
    "b4": dict(_B, depths=(3, 8, 27, 3), drop_path_rate=0.3),
    "b5": dict(_B, depths=(3, 6, 40, 3), drop_path_rate=0.3, mlp_ratio=(4.0, 4.0, 4.0, 4.0)),
}
INIT = Init(conv=fan_out_normal)
"""As the authors' code draws them (whai362/PVT, classification/pvt_v2.py)."""


def pvt_v2(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    mlp_ratio: float | tuple[float, ...] = (8.0, 8.0, 4.0, 4.0),
    sr_ratio: int | tuple[int, ...] | None = None,
    linear: bool = False,
    qkv_bias: bool = True,
    scale: float | None = None,
    mixer: str = "sra",
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.1,
    remat: bool = False,
    scan: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a PVT v2: a norm after each stage, no positions, no class token.

    Args:
      sr_ratio: reduction of each stage; None leaves it to the mixer, whose default is 8, 4, 2, 1.
      linear: keys and values pooled to 7×7 in every stage, and a ReLU before the convolution of
        the MLP.
      scale: of the attention logits; 1/√head_dim if None.
      drop_rate: dropout of each mixer's output and in the MLPs.
    """
    last = len(dims) - 1
    patches = spec(
        ConvNorm,
        kernel_size=(7,) + (3,) * last,
        stride=(4,) + (2,) * last,
        padding=(3,) + (1,) * last,
        norm=layer_norm(1e-5),
    )
    mixers = fill_mixers(
        reduce_mixers(parse_mixers(mixer, len(dims)), sr_ratio),
        pooled_size=7 if linear else 0,
        qkv_bias=qkv_bias,
        scale=scale,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
    )
    mlp = spec(
        ConvMlp, mlp_ratio=mlp_ratio, pre_act=nn.relu if linear else None, drop_rate=drop_rate
    )
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads, mixers=mixers, stem=patches,
        downsample=patches, block=spec(Block, mlp=tuple(mlp.at(i) for i in range(len(dims)))),
        stage_norm=True, num_classes=num_classes, image_size=image_size,
        drop_path_rate=drop_path_rate, remat=remat, scan=scan, param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="whai362/PVT, classification/datasets.py",
)

FAMILY = Family(
    models={f"pvt_v2_{v}": spec(pvt_v2, **kw) for v, kw in VARIANTS.items()},
    weights={pvt_v2: "pvt_v2"},
    paper="[PVT v2](https://arxiv.org/abs/2106.13797)",
    code="whai362/PVT, Apache-2.0",
    source="the repository's README; multiply-adds: the paper, table 1",
    golden="b0: logits, stages, gradients",
    published={
        "pvt_v2_b0": (3.4, 0.6, 70.5, "the README says 3.4 M, the code has 3.67 M"),
        "pvt_v2_b1": (13.1, 2.1, 78.7, "the README says 13.1 M, the code has 14.0 M"),
        "pvt_v2_b2": (25.4, 4.0, 82.0, ""),
        "pvt_v2_b2_li": (22.6, 3.9, 82.1, ""),
        "pvt_v2_b3": (45.2, 6.9, 83.1, ""),
        "pvt_v2_b4": (62.6, 10.1, 83.6, ""),
        "pvt_v2_b5": (82.0, 11.8, 83.8, ""),
    },
    preprocessing={"*": PREPROCESSING},
)
