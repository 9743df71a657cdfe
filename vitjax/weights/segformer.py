"""SegFormer: names of the published weights, Hugging Face's are translated; those of
mmsegmentation, whose decoder is another.
"""

import re
from typing import Any

from vitjax.weights import mit, mmseg_decoders
from vitjax.weights.mmseg import conv_module

_THEIRS = "head/embed_0/norm"  # of mmsegmentation's decoder alone
TABLE = (
    *conv_module("decode_head.convs.{i}", "head/embed_{i}"),
    *((*row, _THEIRS) for row in conv_module("decode_head.fusion_conv", "head/fuse")),
    ("decode_head.conv_seg", "head/logits", "conv_1x1", _THEIRS),
    ("decode_head.linear_c{i+1}.proj", "head/embed_{i}", "linear"),
    ("decode_head.linear_fuse.conv", "head/fuse/conv", "conv"),
    ("decode_head.linear_fuse.bn", "head/fuse/norm", "batch_norm"),
    ("decode_head.linear_pred", "head/logits", "conv_1x1"),
)
LIBRARIES = (mmseg_decoders.SEGFORMER,)
IGNORE = (r"decode_head\.conv_seg\..*",)
"""A classifier that the published decoder has and does not use."""


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate the names of Hugging Face's `SegformerForSemanticSegmentation`."""
    if not mit.from_hugging_face(state_dict):
        return state_dict

    def published(key: str) -> str:
        key = re.sub(
            r"^decode_head\.linear_(?:c|projections)\.(\d+)\.",
            lambda match: f"decode_head.linear_c{int(match[1]) + 1}.",
            key,
        )
        key = key.replace("decode_head.linear_fuse.", "decode_head.linear_fuse.conv.")
        key = key.replace("decode_head.batch_norm.", "decode_head.linear_fuse.bn.")
        return key.replace("decode_head.classifier.", "decode_head.linear_pred.")

    translated = mit.encoder(state_dict, "backbone.")
    return {published(key): value for key, value in translated.items()}
