"""The Mix Transformer (MiT), the encoder of SegFormer (Xie et al., arXiv:2105.15203, section 3.1).

New there: Mix-FFN, a depthwise convolution in the MLP that makes position tables unnecessary
(eq. 3), between overlapping patch embeddings and attention on reduced keys (eq. 1 and 2). PVT v2,
of some of the same authors, is the same network with wider MLPs, and so is built here; B5 is equal.

The parameters in the paper's table 6 are those of MLPs that expand by 8 in the first two stages, as
PVT v2's; its table 1 and the published weights have 4 in all.
Epsilons are those of PVT v2: 1e-5 in the norms after a patch embedding and after
a reduction, 1e-6 in the others.
"""

from typing import Any

from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pvt_v2 import pvt_v2
from vitjax.models.pyramid import Pyramid

_B0 = dict(dims=(32, 64, 160, 256))
_B = dict(dims=(64, 128, 320, 512))
VARIANTS = {
    "b0": dict(_B0, depths=(2, 2, 2, 2)),
    "b1": dict(_B, depths=(2, 2, 2, 2)),
    "b2": dict(_B, depths=(3, 4, 6, 3)),
    "b3": dict(_B, depths=(3, 4, 18, 3)),
    "b4": dict(_B, depths=(3, 8, 27, 3)),
    "b5": dict(_B, depths=(3, 6, 40, 3)),
}


def mit(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...] = (1, 2, 5, 8),
    mlp_ratio: float | tuple[float, ...] = 4.0,
    sr_ratio: int | tuple[int, ...] | None = None,
    qkv_bias: bool = True,
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
    """Build a MiT: a norm after each stage, whose maps the decoder reads; no positions.

    First weights are PVT v2's; the paper gives none.

    Args:
      sr_ratio: reduction of each stage, per side; None leaves it to the mixer, whose default is
        8, 4, 2, 1: the paper's R of 64, 16, 4, 1 positions.
      drop_rate: dropout of each mixer's output and in the MLPs.
    """
    return pvt_v2(
        dims=dims, depths=depths, num_heads=num_heads, mlp_ratio=mlp_ratio, sr_ratio=sr_ratio,
        qkv_bias=qkv_bias, mixer=mixer, num_classes=num_classes, image_size=image_size,
        drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate,
        remat=remat, scan=scan, dtype=dtype,
    )  # fmt: skip


_ENCODER = "parameters published without the classifier"


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="assumed: the usual evaluation on ImageNet-1k, as the paper does not say",
)

FAMILY = Family(
    models={f"mit_{v}": spec(mit, **kw) for v, kw in VARIANTS.items()},
    weights={mit: "mit"},
    paper="[MiT](https://arxiv.org/abs/2105.15203), SegFormer's encoder",
    code="NVlabs/SegFormer, non-commercial: ours is from the paper",
    source="parameters: the paper, table 1; top-1: table 6",
    golden="b0 within SegFormer: stages, gradients; parameters of all",
    published={
        "mit_b0": (3.4, None, 70.5, _ENCODER),
        "mit_b1": (13.1, None, 78.7, _ENCODER),
        "mit_b2": (24.2, None, 81.6, _ENCODER),
        "mit_b3": (44.0, None, 83.1, _ENCODER),
        "mit_b4": (60.8, None, 83.6, _ENCODER),
        "mit_b5": (81.4, None, 83.8, _ENCODER),
    },
    preprocessing={"*": PREPROCESSING},
)
