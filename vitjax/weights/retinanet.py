"""RetinaNet: torchvision's names of pyramid and head; the backbone's are those of its ResNet."""

from typing import Any

from vitjax.weights import torchvision_detection as detection

TABLE = (
    *detection.PYRAMID,
    ("fpn.extra_blocks.p{i+6}", "head/extra_{i}/conv", "conv"),
    ("head.classification_head.conv.{i}.0", "head/class_{i}/conv", "conv"),
    ("head.classification_head.conv.{i}.1", "head/class_{i}/norm", "norm"),
    ("head.classification_head.cls_logits", "head/class_logits", "conv"),
    ("head.regression_head.conv.{i}.0", "head/box_{i}/conv", "conv"),
    ("head.regression_head.conv.{i}.1", "head/box_{i}/norm", "norm"),
    ("head.regression_head.bbox_reg", "head/box_deltas", "conv"),
)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate torchvision's names of the backbone."""
    del model
    return detection.adapt_backbone(state_dict)
