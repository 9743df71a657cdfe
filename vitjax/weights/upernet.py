"""UPerNet: mmsegmentation's names; those of transformers' UperNetForSemanticSegmentation with a
Swin are translated.
"""

from typing import Any

from vitjax.weights.libraries import rename
from vitjax.weights.mmseg import adapt_backbone, conv_module

TABLE = (
    *conv_module("decode_head.psp_modules.{i}.1", "head/pool_{i}"),
    *conv_module("decode_head.bottleneck", "head/bottleneck"),
    *conv_module("decode_head.lateral_convs.{i}", "head/lateral_{i}"),
    *conv_module("decode_head.fpn_convs.{i}", "head/fpn_{i}"),
    *conv_module("decode_head.fpn_bottleneck", "head/fpn_bottleneck"),
    ("decode_head.conv_seg", "head/classifier/conv", "conv"),
    ("neck.lateral_convs.{i}.conv", "head/resample/lateral_{i}/conv", "conv"),
    ("neck.convs.{i}.conv", "head/resample/conv_{i}/conv", "conv"),
    *conv_module("auxiliary_head.convs.{i}", "auxiliary_0/conv_{i}"),
    ("auxiliary_head.conv_seg", "auxiliary_0/classifier/conv", "conv"),
)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate names of transformers and of segmentation code.

    A checkpoint with an auxiliary head may be read by a model without one (`auxiliary_width=0`).
    """
    if not model.auxiliary:
        state_dict = {k: v for k, v in state_dict.items() if not k.startswith("auxiliary_head.")}
    if any(key.startswith("backbone.hidden_states_norms.") for key in state_dict):
        state_dict = _from_transformers(state_dict)
    return adapt_backbone(state_dict)


_RULES = (
    (r"\.batch_norm\.", ".bn."),
    (r"^(decode_head|auxiliary_head)\.classifier\.", r"\1.conv_seg."),
    (r"^backbone\.swin\.", "backbone."),
    (r"^backbone\.hidden_states_norms\.stage(\d+)\.", lambda m: f"backbone.norm{int(m[1]) - 1}."),
)
"""What is not the Swin's own, which its family translates."""


def _from_transformers(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Rename heads and norms of maps, and drop Swin's last norm, which no head reads."""
    found = {rename(key, _RULES): value for key, value in state_dict.items()}
    return {k: v for k, v in found.items() if not k.startswith("backbone.layernorm.")}
