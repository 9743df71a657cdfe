"""Semantic FPN: mmsegmentation's names."""

from typing import Any

from vitjax.weights.mmseg import adapt_backbone, conv_module

_RESAMPLE = "head/resample"
TABLE = (
    *conv_module("decode_head.scale_heads.{i}.{2j}", "head/scale_{i}_{j}"),
    ("decode_head.conv_seg", "head/classifier/conv", "conv"),
    # Before the FPN of a plain transformer stands another neck.
    ("neck.0.lateral_convs.{i}.conv", f"{_RESAMPLE}/lateral_{{i}}/conv", "conv"),
    ("neck.0.convs.{i}.conv", f"{_RESAMPLE}/conv_{{i}}/conv", "conv"),
    ("neck.1.lateral_convs.{i}.conv", "head/neck/lateral_{i}/conv", "conv", _RESAMPLE),
    ("neck.1.fpn_convs.{i}.conv", "head/neck/fpn_{i}/conv", "conv", _RESAMPLE),
    ("neck.lateral_convs.{i}.conv", "head/neck/lateral_{i}/conv", "conv"),
    ("neck.fpn_convs.{i}.conv", "head/neck/fpn_{i}/conv", "conv"),
)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate segmentation code's names of a backbone's parts."""
    del model
    return adapt_backbone(state_dict)
