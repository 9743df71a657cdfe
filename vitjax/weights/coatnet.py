"""CoAtNet: timm's names of `coatnet_nano_rw`, in whose layout the paper's sizes are written too.

The first block of a stage, which halves the map, belongs to ours before the stage.
"""

import re
from typing import Any

import numpy as np

from vitjax.models.pyramid import Pyramid
from vitjax.weights.swin import resize_bias_table

_CONV = (
    ("pre_norm", "norm1", "batch_norm"),
    ("conv1_1x1", "mixer/expand/conv", "conv"),
    ("norm1", "mixer/expand/norm", "batch_norm"),
    ("conv2_kxk", "mixer/depthwise/conv", "conv"),
    ("norm2", "mixer/depthwise/norm", "batch_norm"),
    ("se.fc1", "mixer/se/fc1", "conv_1x1"),
    ("se.fc2", "mixer/se/fc2", "conv_1x1"),
    ("conv3_1x1", "mixer/project/conv", "conv"),
)
_TRANSFORMER = (
    ("attn.qkv", "mixer/qkv", "heads_qkv"),
    ("attn.rel_pos.relative_position_bias_table", "mixer/position_bias", "table"),
    ("attn.proj", "mixer/proj", "conv_1x1"),
    ("norm2", "norm2", "norm"),
    ("mlp.fc1", "mlp/fc1", "conv_1x1"),
    ("mlp.fc2", "mlp/fc2", "conv_1x1"),
)


def _rows(theirs: str, ours: str, norm1: str) -> tuple[tuple[str, ...], ...]:
    """Build the rows of a block; those of a bottleneck hold only where there is one."""
    conv = ours + "mixer/expand/conv"
    return (
        *((theirs + t, ours + o, kind, conv) for t, o, kind in _CONV),
        (theirs + norm1, ours + "norm1", "norm"),
        (theirs + "shortcut.expand", ours + "shortcut", "conv_1x1"),
        *((theirs + t, ours + o, kind) for t, o, kind in _TRANSFORMER),
    )


TABLE: Any = (
    ("stem.conv1", "stem/conv_0/conv", "conv"),
    ("stem.norm1", "stem/conv_0/norm", "batch_norm"),
    ("stem.conv2", "stem/conv_1/conv", "conv"),
    *_rows("stages.0.blocks.0.", "stem/block/", "norm1.norm"),
    *_rows("stages.{i}.blocks.0.", "downsample_{i}/", "norm1.norm"),
    *_rows("stages.{i}.blocks.{j+1}.", "stage_{i}/block_{j}/", "norm1"),
    ("norm", "norm", "norm"),
    ("head.fc", "head", "linear"),
    ("head.pre_logits.fc", "head/hidden", "linear"),
    ("head.fc", "head/out", "linear"),
)
IGNORE = (r".*\.relative_position_index",)
"""A buffer."""


def adapt(state_dict: dict[str, Any], model: Pyramid) -> dict[str, Any]:
    """Interpolate the relative position tables of another image size, for square maps."""
    for key, table in state_dict.items():
        match = re.fullmatch(r"stages\.(\d+)\.blocks\.\d+\.attn\..*position_bias_table", key)
        if match and int(match[1]) < len(model.mixers):
            mixer = model.mixers[int(match[1])][-1].at(int(match[1]))
            height, width = dict(mixer.kwargs).get("map_size") or (0, 0)
            if height == width != 0 and np.ndim(table) == 2:
                state_dict[key] = resize_bias_table(table, height)
    return state_dict
