"""Swin: the authors' names; timm's (downsampling counted with the stage after it) are accepted."""

import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.position import resize_grid, resize_positions
from vitjax.models.pyramid import Pyramid
from vitjax.weights import torchvision, transformers

_ATTENTION = "layers.{i}.blocks.{j}.attn"
_MIXER = "stage_{i}/block_{j}/mixer"
SHARED = (
    ("absolute_pos_embed", "stem/absolute_position", "param"),
    ("patch_embed.proj", "stem/embed/conv", "conv"),
    ("patch_embed.norm", "stem/embed/norm", "norm"),
    (f"{_ATTENTION}.qkv", f"{_MIXER}/qkv", "linear"),
    (f"{_ATTENTION}.proj", f"{_MIXER}/proj", "linear"),
    ("layers.{i}.blocks.{j}.norm1", "stage_{i}/block_{j}/norm1", "norm"),
    ("layers.{i}.blocks.{j}.norm2", "stage_{i}/block_{j}/norm2", "norm"),
    ("layers.{i}.blocks.{j}.mlp.fc1", "stage_{i}/block_{j}/mlp/fc1", "linear"),
    ("layers.{i}.blocks.{j}.mlp.fc2", "stage_{i}/block_{j}/mlp/fc2", "linear"),
    ("layers.{i}.downsample.norm", "downsample_{i+1}/norm", "norm"),
    ("layers.{i}.downsample.reduction", "downsample_{i+1}/reduction", "linear"),
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
)
"""What both versions have."""
TABLE = (
    (f"{_ATTENTION}.relative_position_bias_table", f"{_MIXER}/relative_position_bias", "param"),
    (f"{_ATTENTION}.rpb", f"{_MIXER}/rpb", "param"),  # of neighbourhoods, in DiNAT_s
    *SHARED,
)
IGNORE = (r".*\.(relative_position_index|relative_coords_table|attn_mask|k_bias)",)
"""Buffers, and timm's constant zero bias of k."""

LIBRARIES = (transformers.SWIN, torchvision.SWIN)


def adapt(state_dict: dict[str, Any], model: Pyramid) -> dict[str, Any]:
    """Translate timm's keys; interpolate the position tables of another window or image size."""
    state_dict = authors_names(state_dict, len(model.depths))
    for key, table in state_dict.items():
        if match := re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\..*position_bias_table", key):
            stage, block = map(int, match.groups())
            if window := _window_size(model, stage, block):
                state_dict[key] = resize_bias_table(table, window)
    maps = dict(model.stem.kwargs).get("map_size")
    positions = state_dict.get("absolute_pos_embed")
    if maps and positions is not None and np.shape(positions)[1] != math.prod(maps[0]):
        resized = resize_positions(jnp.asarray(positions), maps[0], num_prefix=0, antialias=False)
        state_dict["absolute_pos_embed"] = np.asarray(resized)
    return state_dict


def resize_bias_table(table: Any, window_size: int) -> Any:
    """Interpolate a table `[(2M-1)², heads]` of relative positions for another M (bicubic)."""
    length, side = math.isqrt(np.shape(table)[0]), 2 * window_size - 1
    if length == side:
        return table
    grid = jnp.asarray(table).reshape(length, length, -1)
    return np.asarray(resize_grid(grid, (side, side), antialias=False).reshape(side * side, -1))


def _window_size(model: Pyramid, stage: int, block: int) -> int | None:
    """Return the window of a block, or None where it has no such mixer."""
    if stage >= len(model.mixers):
        return None
    mixers = model.mixers[stage]
    return dict(mixers[block % len(mixers)].at(stage).kwargs).get("window_size")


def authors_names(state_dict: dict[str, Any], num_stages: int) -> dict[str, Any]:
    """Translate timm's names of the head and of downsampling, which it counts with what follows."""
    state_dict = {re.sub(r"^head\.fc\.", "head.", key): v for key, v in state_dict.items()}
    if not any(key.startswith(f"layers.{num_stages - 1}.downsample.") for key in state_dict):
        return state_dict

    def rename(key: str) -> str:
        return re.sub(
            r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", key
        )

    return {rename(key): value for key, value in state_dict.items()}
