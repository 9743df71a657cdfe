"""Mask R-CNN and Faster R-CNN: torchvision's names; the backbone's are those of its ResNet."""

from typing import Any

from vitjax.weights import torchvision_detection as detection

TABLE = (
    *detection.PYRAMID,
    ("rpn.head.conv.0.0", "head/rpn/conv/conv", "conv"),
    ("rpn.head.cls_logits", "head/rpn/objectness", "conv"),
    ("rpn.head.bbox_pred", "head/rpn/deltas", "conv"),
    ("roi_heads.box_head.fc6", "head/box_head/fc_0", "linear_of_map"),
    ("roi_heads.box_head.fc7", "head/box_head/fc_1", "linear"),
    ("roi_heads.box_predictor.cls_score", "head/box_head/class_logits", "linear"),
    ("roi_heads.box_predictor.bbox_pred", "head/box_head/box_deltas", "linear"),
    ("roi_heads.mask_head.{i}.0", "head/mask_head/conv_{i}/conv", "conv"),
    ("roi_heads.mask_predictor.conv5_mask", "head/mask_head/enlarge", "conv"),
    ("roi_heads.mask_predictor.mask_fcn_logits", "head/mask_head/logits", "conv"),
)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate torchvision's names of the backbone."""
    del model
    return detection.adapt_backbone(state_dict)
