"""Mask R-CNN (He et al., arXiv:1703.06870), and without masks Faster R-CNN (arXiv:1506.01497).

New there: a mask for each region beside its class and box, and RoIAlign, which samples a region's
map where it lies instead of rounding its box.

On a feature pyramid (arXiv:1612.03144), with the anchors and samples of torchvision's first
version, whose RoIAlign takes pixels' centres to lie at whole numbers (`aligned=False`). Networks
trained by others than torchvision have them at halves, and as many samples as a region has pixels:
`aligned=True, sampling_ratio=0`, and mmdetection's besides L1 losses of boxes, `box_beta=0.0`.

Classes count objects alone; torchvision's count the background too, as number 0, so that its 91 are
90 here, and the id of a category of COCO is one more than the class.
"""

from vitjax.heads.mask_rcnn import MaskRCNNHead
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import dense_model
from vitjax.models.detector import Detector
from vitjax.models.family import Family
from vitjax.models.retinanet import COCO_IDS, FROZEN, PREPROCESSING


@dense_model
def mask_rcnn(
    *,
    backbone: Spec,
    with_masks: bool = True,
    width: int = 256,
    box_width: int = 1024,
    anchor_scale: float = 8.0,
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    rpn_ious: tuple[float, float] = (0.7, 0.3),
    rpn_samples: int = 256,
    rpn_candidates: tuple[int, int] = (2000, 1000),
    rpn_nms: float = 0.7,
    proposals: tuple[int, int] = (2000, 1000),
    box_beta: float = 1 / 9,
    iou: float = 0.5,
    samples: int = 512,
    positive_share: float = 0.25,
    box_bins: int = 7,
    mask_bins: int = 14,
    sampling_ratio: int = 2,
    aligned: bool = False,
    score_threshold: float = 0.05,
    candidates: int = 2000,
    nms_threshold: float = 0.5,
    limit: int = 100,
) -> Detector:
    """Build a Mask R-CNN.

    Args:
      backbone: of the menu, by name: "swin_tiny(drop_path_rate=0.2)".
      with_masks: False for Faster R-CNN.

    The rest are those of `MaskRCNNHead` and of `dense_model`.
    """
    options = dict(locals())
    del options["backbone"]
    return Detector(encoder=backbone, head=spec(MaskRCNNHead, **options))


FAMILY = Family(
    models={
        "mask_rcnn": spec(mask_rcnn, backbone="resnet50(frozen_statistics=True)"),
        "mask_rcnn_resnet50": spec(mask_rcnn, backbone=FROZEN, num_classes=COCO_IDS - 1),
        "faster_rcnn_resnet50": spec(
            mask_rcnn, backbone=FROZEN, with_masks=False, num_classes=COCO_IDS - 1
        ),
    },
    weights={mask_rcnn: "mask_rcnn"},
    paper="[Mask R-CNN](https://arxiv.org/abs/1703.06870)",
    code="pytorch/vision, BSD-3-Clause",
    source="torchvision's table of COCO_V1 weights; box AP and mask AP on COCO's validation images",
    golden=(
        "on ResNet-50: maps, outputs, proposals, samples, detections, masks, losses, gradients"
    ),
    published={
        "mask_rcnn_resnet50": (44.40, None, None, "AP 37.9, of masks 34.6"),
        "faster_rcnn_resnet50": (41.76, None, None, "AP 37.0"),
    },
    preprocessing={"*": PREPROCESSING},
)
