"""EfficientFormer: timm's names; those of the authors' code are translated."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.position import resize_grid

# What turns maps into tokens has a number too there, before the blocks with attention, which are
# told by their norms.
_LATE, _EARLY, _OURS = "stages.{i}.blocks.{j+1}.", "stages.{i}.blocks.{j}.", "stage_{i}/block_{j}/"
_PARTS = (
    *((f"norm{k}", f"norm{k}", "norm") for k in (1, 2)),
    ("token_mixer.attention_biases", "mixer/attention_biases", "flat_map"),
    *((f"token_mixer.{name}", f"mixer/{name}", "linear") for name in ("qkv", "proj")),
    *((f"ls{k}.gamma", f"layer_scale{k}", "param") for k in (1, 2)),
)
TABLE = (
    *(
        (f"stem.{theirs}{k + 1}", f"stem/conv_{k}/{theirs}", kind)
        for k in (0, 1)
        for theirs, kind in (("conv", "conv"), ("norm", "batch_norm"))
    ),
    ("stages.{i}.downsample.conv", "downsample_{i}/conv", "conv"),
    ("stages.{i}.downsample.norm", "downsample_{i}/norm", "batch_norm"),
    *(
        (_LATE + theirs, _OURS + ours, kind, _OURS + "norm1")
        for theirs, ours, kind in (
            *_PARTS,
            *((f"mlp.fc{k}", f"mlp/fc{k}", "linear") for k in (1, 2)),
        )
    ),
    *(
        (_EARLY + theirs, _OURS + ours, kind)
        for theirs, ours, kind in (
            *_PARTS,
            *((f"mlp.fc{k}", f"mlp/fc{k}", "conv_1x1") for k in (1, 2)),
            *((f"mlp.norm{k}", f"mlp/norm{k}", "batch_norm") for k in (1, 2)),
        )
    ),
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
    ("head_dist", "head_dist", "linear"),
)
IGNORE = (r".*\.attention_bias_idxs",)
"""A buffer."""


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate the authors' keys to timm's, and interpolate the biases of another map."""
    found = {_timm(key): value for key, value in state_dict.items()}
    sizes = dict(model.mixers[-1][-1].kwargs).get("map_size")
    size = sizes and sizes[-1]
    biases = re.compile(rf"stages\.{len(model.depths) - 1}\..*\.attention_biases")
    for key, value in found.items():
        if size and biases.fullmatch(key) and np.shape(value)[1] != size[0] * size[1]:
            found[key] = resize_biases(np.asarray(value), size)
    return found


def resize_biases(table: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate `[heads, side²]` distance biases for a map of another size.

    As in the mixer at run time, the table is first mirrored to negative distances.
    """
    side = round(table.shape[1] ** 0.5)
    offsets = np.abs(np.arange(1 - side, side))
    grid = table.reshape(-1, side, side).transpose(1, 2, 0)[offsets][:, offsets]
    rows, columns = size
    resized = np.asarray(resize_grid(jnp.asarray(grid), (2 * rows - 1, 2 * columns - 1)))
    return resized[rows - 1 :, columns - 1 :].transpose(2, 0, 1).reshape(table.shape[0], -1)


_AUTHORS = (
    (r"^patch_embed\.([01])\.", lambda m: f"stem.{('conv', 'norm')[int(m[1])]}1."),
    (r"^patch_embed\.([34])\.", lambda m: f"stem.{('conv', 'norm')[int(m[1]) - 3]}2."),
    (r"^network\.(\d+)\.proj\.", lambda m: f"stages.{(int(m[1]) + 1) // 2}.downsample.conv."),
    (r"^network\.(\d+)\.norm\.", lambda m: f"stages.{(int(m[1]) + 1) // 2}.downsample.norm."),
    (r"^network\.(\d+)\.(\d+)\.", lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}."),
    (r"\.layer_scale_([12])$", r".ls\1.gamma"),
    (r"^dist_head\.", "head_dist."),
)


def _timm(key: str) -> str:
    for pattern, replacement in _AUTHORS:
        key = re.sub(pattern, replacement, key)
    return key
