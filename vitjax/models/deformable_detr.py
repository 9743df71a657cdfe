"""Deformable DETR (Zhu et al., arXiv:2010.04159).

New there: attention that reads a few samples of several maps instead of all of one, so that finer
maps are read at little cost, and training needs a tenth of DETR's epochs.

Beyond it here, as in the authors' code: boxes that each layer refines, and queries that the encoded
maps propose (`refine`, `two_stage`; the second needs the first). Classes are the ids of COCO's
categories, each with a sigmoid of its own. The first maps' strides are 8, 16 and 32, and a fourth
is made of the last; the single-scale model is `finest=32, extra_levels=0`.
"""

from vitjax.heads.deformable_detr import INIT, DeformableDETRHead
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import dense_model
from vitjax.models.detector import Detector
from vitjax.models.detr import FROZEN, PREPROCESSING
from vitjax.models.family import Family
from vitjax.models.retinanet import COCO_IDS


@dense_model
def deformable_detr(
    *,
    backbone: Spec,
    width: int = 256,
    num_heads: int = 8,
    encoder_depth: int = 6,
    decoder_depth: int = 6,
    mlp_ratio: float = 4.0,
    num_points: int = 4,
    num_queries: int = 300,
    finest: int = 8,
    extra_levels: int = 1,
    refine: bool = False,
    two_stage: bool = False,
    drop_rate: float = 0.1,
    loss_weights: tuple[float, float, float] = (2.0, 5.0, 2.0),
    limit: int = 100,
) -> Detector:
    """Build a Deformable DETR.

    Args:
      backbone: of the menu, by name: "swin_tiny(drop_path_rate=0.2)".

    The rest are those of `DeformableDETRHead` and of `dense_model`.

    Raises:
      ValueError: `two_stage` without `refine`, or groups that do not divide the width.
    """
    options = dict(locals())
    del options["backbone"]
    if two_stage and not refine:
        raise ValueError("two_stage=True needs refine=True: queries begin as boxes.")
    if width % 32:
        raise ValueError(f"width={width} must be a multiple of 32, the groups of its norms.")
    head = spec(DeformableDETRHead, **options)
    return Detector(encoder=backbone, head=head, param_init=INIT)


R50 = FROZEN.format("resnet50")
FAMILY = Family(
    models={
        "deformable_detr": spec(deformable_detr, backbone=R50),
        "deformable_detr_resnet50": spec(deformable_detr, backbone=R50, num_classes=COCO_IDS),
        "deformable_detr_resnet50_refine": spec(
            deformable_detr, backbone=R50, num_classes=COCO_IDS, refine=True
        ),
        "deformable_detr_resnet50_two_stage": spec(
            deformable_detr, backbone=R50, num_classes=COCO_IDS, refine=True, two_stage=True
        ),
    },
    weights={deformable_detr: "deformable_detr"},
    paper="[Deformable DETR](https://arxiv.org/abs/2010.04159)",
    code="fundamentalvision/Deformable-DETR, Apache-2.0",
    source="the repository's table; box AP on COCO's validation images",
    golden="on ResNet-50, padded: outputs of all layers, matches, detections, losses, gradients",
    published={
        "deformable_detr_resnet50": (40.0, None, None, "AP 44.5"),
        "deformable_detr_resnet50_refine": (41.0, None, None, "AP 46.2"),
        "deformable_detr_resnet50_two_stage": (41.0, None, None, "AP 46.9"),
    },
    preprocessing={"*": PREPROCESSING},
)
