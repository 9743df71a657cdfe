"""SETR: names of the official code (fudan-zvg/SETR), mmsegmentation's are translated; the
backbone's are those of its own family.
"""

from typing import Any

from vitjax.weights import mmseg_decoders

_UP = tuple(
    row
    for theirs, ours in (("decode_head.", "head/"), ("auxiliary_head.{j}.", "auxiliary_{j}/"))
    for row in (
        (theirs + "norm", ours + "norm", "norm"),
        (theirs + "conv_{i}", ours + "conv_{i}/conv", "conv"),
        (theirs + "syncbn_fc_{i}", ours + "conv_{i}/norm", "batch_norm"),
        # The last convolution counts on from the others, of which there are four or one, and two
        # in mmsegmentation's auxiliary heads.
        *(
            (f"{theirs}conv_{n}", ours + "logits", "conv_1x1", f"{ours}conv_{n - 1}")
            for n in range(8, 0, -1)
        ),
    )
)
_STREAM = "decode_head.mlahead.head{i+2}."
TABLE = (
    *_UP,
    (_STREAM + "0", "head/stream_{i}_conv_0/conv", "conv"),
    (_STREAM + "1", "head/stream_{i}_conv_0/norm", "batch_norm"),
    (_STREAM + "3", "head/stream_{i}_conv_1/conv", "conv"),
    (_STREAM + "4", "head/stream_{i}_conv_1/norm", "batch_norm"),
    ("decode_head.cls", "head/logits", "conv"),
    ("auxiliary_head.{j}.aux", "auxiliary_{j}/logits", "conv_1x1"),
)
LIBRARIES = (mmseg_decoders.SETR_MLA, mmseg_decoders.SETR)
IGNORE = (r"(decode_head|auxiliary_head\.\d+)\.conv_seg\.(weight|bias)",)
"""A classifier that every head of that code has, and none of SETR's uses."""


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Drop the class token and its position where the model's blocks do not read them."""
    if "backbone.cls_token" not in state_dict or model.encoder.build().pool == "token":
        return state_dict
    del state_dict["backbone.cls_token"]
    state_dict["backbone.pos_embed"] = state_dict["backbone.pos_embed"][:, 1:]
    return state_dict
