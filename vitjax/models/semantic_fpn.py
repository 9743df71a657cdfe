"""Semantic FPN: Panoptic Feature Pyramid Networks (Kirillov et al., arXiv:1901.02446).

New there: the feature pyramid of a detector, with a light head, segments as well as networks made
for it. It is the cheapest of the heads with which transformer backbones are compared.

Here as PVT, PVT v2 and BiFormer use it, with mmsegmentation's first weights and dropout. PVT's
position tables are those of 224 pixels and interpolated, as in its authors' segmentation code.
"""

from vitjax.heads.blocks import MMSEG_INIT
from vitjax.heads.fpn import FUSIONS, SemanticFPNHead
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import DenseModel, dense_model
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pvt import VARIANTS as PVT
from vitjax.models.pvt_v2 import VARIANTS as PVT_V2
from vitjax.names import check_choice

BACKBONES = {
    **{f"pvt_{v}": "image_size=224, drop_path_rate=0.1" for v in PVT},
    **{f"pvt_v2_{v}": "drop_path_rate=0.1" for v in PVT_V2},
    "biformer_small": "n_win=8, drop_path_rate=0.15",
    "biformer_base": "n_win=8, drop_path_rate=0.3",
}
"""Backbone → its hyperparameters, as the authors' configurations for ADE20K have them."""


@dense_model
def semantic_fpn(
    *,
    backbone: Spec,
    width: int = 128,
    neck_width: int = 256,
    fusion: str = "sum",
    drop_rate: float = 0.1,
) -> DenseModel:
    """Build a Semantic FPN: logits `[B, h, w, num_classes]` at the finest map's resolution.

    Args:
      backbone: of the menu, by name: "pvt_v2_b0", "swin_tiny(drop_path_rate=0.3)".
      width: of the head's convolutions; `neck_width`: of the FPN's maps.
      fusion: of the FPN's maps: "sum", or attentional, "aff" or "iaff" (arXiv:2009.14082).
      drop_rate: share of channels that training drops before the classifier.

    The rest are those of `dense_model`.
    """
    check_choice("fusion", fusion, FUSIONS)
    head = spec(
        SemanticFPNHead, width=width, neck_width=neck_width, fusion=fusion, drop_rate=drop_rate
    )
    return DenseModel(encoder=backbone, head=head, param_init=MMSEG_INIT)


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.0,
    interpolation="bilinear",
    source="configs/ade20k.py, after mmsegmentation's",
)

FAMILY = Family(
    models={
        "semantic_fpn": spec(semantic_fpn, backbone="pvt_v2_b0"),
        **{
            f"semantic_fpn_{b}": spec(semantic_fpn, backbone=f"{b}({kw})")
            for b, kw in BACKBONES.items()
        },
    },
    weights={semantic_fpn: "semantic_fpn"},
    paper="[Semantic FPN](https://arxiv.org/abs/1901.02446)",
    code="open-mmlab/mmsegmentation, Apache-2.0",
    source=(
        "the README of each backbone's segmentation code; mIoU on ADE20K's validation images, "
        "one scale"
    ),
    golden="neck and head alone: maps, logits, loss, gradients",
    published={
        "semantic_fpn_pvt_tiny": (None, None, None, "mIoU 36.6"),
        "semantic_fpn_pvt_small": (None, None, None, "mIoU 41.9"),
        "semantic_fpn_pvt_medium": (None, None, None, "mIoU 43.5"),
        "semantic_fpn_biformer_small": (None, None, None, "mIoU 48.9"),
        "semantic_fpn_biformer_base": (None, None, None, "mIoU 49.9"),
    },
    preprocessing={"*": PREPROCESSING},
)
