"""RetinaNet: Focal Loss for Dense Object Detection (Lin et al., arXiv:1708.02002).

New there: a loss that hardly counts the many easy anchors, so that a detector of one stage, which
classifies every anchor of a pyramid, learns without choosing among them.

In the two forms that torchvision publishes. The first: BatchNorm that does not train, without
epsilon, coarse levels made of the pyramid's last, L1 loss of boxes. The second
(`retinanet_resnet50_v2`, arXiv:2111.11429): BatchNorm, coarse levels made of the backbone's last
map, GroupNorm in the towers, GIoU loss. The paper has smooth L1, and the backbone's map as the
second. Classes are the ids of COCO's categories, of which 0 and some others are not used.
"""

from typing import Any

from vitjax.heads.blocks import normal_001
from vitjax.heads.retinanet import BOX_LOSSES, RetinaNetHead
from vitjax.layers.init import Init
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import dense_model
from vitjax.models.detector import Detector
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.names import check_choice

COCO_IDS = 91
FROZEN = "resnet50(frozen_statistics=True, epsilon=0.0)"
"""As torchvision's first detectors were trained, and their weights are read."""
VERSION_2: dict[str, Any] = dict(group_norm=True, extra_from_backbone=True, box_loss="giou")


@dense_model
def retinanet(
    *,
    backbone: Spec,
    width: int = 256,
    depth: int = 4,
    finest: int = 8,
    extra_levels: int = 2,
    extra_from_backbone: bool = False,
    group_norm: bool = False,
    anchor_scale: float = 4.0,
    octave_scales: int = 3,
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    positive: float = 0.5,
    negative: float = 0.4,
    box_loss: str = "l1",
    alpha: float = 0.25,
    gamma: float = 2.0,
    score_threshold: float = 0.05,
    candidates: int = 1000,
    nms_threshold: float = 0.5,
    limit: int = 100,
) -> Detector:
    """Build a RetinaNet.

    Args:
      backbone: of the menu, by name: "swin_tiny(drop_path_rate=0.2)".

    The rest are those of `RetinaNetHead` and of `dense_model`.
    """
    options = dict(locals())
    del options["backbone"]
    check_choice("box_loss", box_loss, BOX_LOSSES)
    return Detector(
        encoder=backbone, head=spec(RetinaNetHead, **options), param_init=Init(conv=normal_001)
    )


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.0,
    interpolation="bilinear",
    source="torchvision's GeneralizedRCNNTransform: a short side of 800 pixels, a long one of 1333",
)

FAMILY = Family(
    models={
        "retinanet": spec(retinanet, backbone="resnet50(frozen_statistics=True)"),
        "retinanet_resnet50": spec(retinanet, backbone=FROZEN, num_classes=COCO_IDS),
        "retinanet_resnet50_v2": spec(
            retinanet, backbone="resnet50", num_classes=COCO_IDS, **VERSION_2
        ),
    },
    weights={retinanet: "retinanet"},
    paper="[RetinaNet](https://arxiv.org/abs/1708.02002)",
    code="pytorch/vision, BSD-3-Clause",
    source="torchvision's table of COCO_V1 weights; box AP on COCO's validation images",
    golden="both forms on ResNet-50: maps, outputs, matches, detections, losses, gradients",
    published={
        "retinanet_resnet50": (34.01, None, None, "AP 36.4"),
        "retinanet_resnet50_v2": (38.20, None, None, "AP 41.5"),
    },
    preprocessing={"*": PREPROCESSING},
)
