"""DAT and DAT++: the authors' names."""

import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.attention.deformable_bias import resize_fixed_bias
from vitjax.layers.position import resize_grid
from vitjax.layers.spec import defaults
from vitjax.models.pyramid import Pyramid
from vitjax.weights.swin import resize_bias_table

_ATTENTION, _MIXER = "stages.{i}.attns.{j}", "stage_{i}/block_{j}/mixer"
_THEIR_MLP, _MLP = "stages.{i}.mlps.{j}", "stage_{i}/block_{j}/mlp"
TABLE = (
    ("patch_proj.0", "stem/conv", "conv"),
    ("patch_proj.1.norm", "stem/norm", "norm"),
    ("patch_proj.0", "stem/conv_0/conv", "conv"),
    ("patch_proj.1.norm", "stem/conv_0/norm", "norm"),
    ("patch_proj.3", "stem/conv_1/conv", "conv"),
    ("patch_proj.4.norm", "stem/conv_1/norm", "norm"),
    ("down_projs.{i}.0", "downsample_{i+1}/conv", "conv"),
    ("down_projs.{i}.1.norm", "downsample_{i+1}/norm", "norm"),
    ("stages.{i}.local_perception_units.{j}", "stage_{i}/block_{j}/cpe", "conv"),
    ("stages.{i}.layer_norms.{2j}.norm", "stage_{i}/block_{j}/norm1", "norm"),
    ("stages.{i}.layer_norms.{2j+1}.norm", "stage_{i}/block_{j}/norm2", "norm"),
    ("stages.{i}.layer_scales.{2j}.weight", "stage_{i}/block_{j}/layer_scale1", "param"),
    ("stages.{i}.layer_scales.{2j+1}.weight", "stage_{i}/block_{j}/layer_scale2", "param"),
    # neighbourhoods
    (f"{_ATTENTION}.rpb", f"{_MIXER}/rpb", "param"),
    (f"{_ATTENTION}.qkv", f"{_MIXER}/qkv", "linear", f"{_MIXER}/rpb"),
    (f"{_ATTENTION}.proj", f"{_MIXER}/proj", "linear", f"{_MIXER}/rpb"),
    # deformable
    (f"{_ATTENTION}.rpe_table", f"{_MIXER}/bias/table", "param"),
    (f"{_ATTENTION}.rpe_table", f"{_MIXER}/bias", "conv"),
    (f"{_ATTENTION}.rpe_table.0", f"{_MIXER}/bias/fc1", "linear"),
    (f"{_ATTENTION}.rpe_table.2", f"{_MIXER}/bias/fc2", "linear"),
    (f"{_ATTENTION}.conv_offset.0", f"{_MIXER}/offset/conv", "conv"),
    (f"{_ATTENTION}.conv_offset.1.norm", f"{_MIXER}/offset/norm", "norm"),
    (f"{_ATTENTION}.conv_offset.3", f"{_MIXER}/offset/offset", "conv_1x1"),
    *((f"{_ATTENTION}.proj_{n}", f"{_MIXER}/{n}", "conv_1x1") for n in "qkv"),
    (f"{_ATTENTION}.proj_out", f"{_MIXER}/proj", "conv_1x1", f"{_MIXER}/k"),
    # the whole branch of ConvNeXt
    (_ATTENTION, f"{_MIXER}/conv", "conv"),
    ("stages.{i}.ln_cnvnxt.{j}.norm", f"{_MIXER}/norm", "norm"),
    *(
        (f"{_THEIR_MLP}.{theirs}", f"{mlp}/{ours}", kind, *when)
        for mlp in (_MLP, f"{_MIXER}/mlp")
        for theirs, ours, kind, *when in (
            ("linear1.0", "fc1", "conv_1x1", f"{mlp}/dwconv"),
            ("linear2.0", "fc2", "conv_1x1", f"{mlp}/dwconv"),
            ("dwc", "dwconv", "conv"),
            ("chunk.linear1", "fc1", "linear"),
            ("chunk.linear2", "fc2", "linear"),
        )
    ),
    # windows
    (f"{_ATTENTION}.relative_position_bias_table", f"{_MIXER}/relative_position_bias", "param"),
    (f"{_ATTENTION}.proj_qkv", f"{_MIXER}/qkv", "linear"),
    (f"{_ATTENTION}.proj_out", f"{_MIXER}/proj", "linear"),
    ("cls_norm.norm", "norm", "norm"),
    ("cls_head", "head", "linear"),
)
IGNORE = (r".*\.(relative_position_index|attn_mask)", r".*\.conv_offset\..*")
"""Buffers, and the offset network of attention without offsets."""


def adapt(state_dict: dict[str, Any], model: Pyramid) -> dict[str, Any]:
    """Interpolate the position tables of another image or window size."""
    for key, table in state_dict.items():
        match = re.fullmatch(r"stages\.(\d+)\.attns\.(\d+)\.(rp\w+|relative\w+_table)", key)
        if match is None:
            continue
        options = mixer_options(model, int(match[1]), int(match[2]))
        if match[3].endswith("bias_table") and "window_size" in options:
            state_dict[key] = resize_bias_table(table, options["window_size"])
        elif match[3] == "rpb" and "neighborhood_size" in options:
            state_dict[key] = resize_table(table, (options["neighborhood_size"],) * 2)
        elif match[3] == "rpe_table" and options.get("position_bias") == "fixed":
            state_dict[key] = _resize_fixed(table, options)
        elif match[3] == "rpe_table" and "table_size" in options:
            state_dict[key] = resize_table(table, options["table_size"])
    return state_dict


def mixer_options(model: Pyramid, stage: int, block: int) -> dict[str, Any]:
    """Collect the hyperparameters of a block's mixer; none of a stage that the model lacks."""
    if stage >= len(model.dims):
        return {}
    mixers = model.mixers[stage]
    mixer = mixers[block % len(mixers)].at(stage)
    return {**defaults(mixer.factory), **dict(mixer.kwargs)}


def resize_table(table: Any, size: tuple[int, int]) -> Any:
    """Resize a table `[heads, 2H-1, 2W-1]` to another H and W (bicubic)."""
    shape = (2 * size[0] - 1, 2 * size[1] - 1)
    if np.shape(table)[1:] == shape:
        return table
    grid = jnp.moveaxis(jnp.asarray(table), 0, -1)
    return np.asarray(jnp.moveaxis(resize_grid(grid, shape, antialias=False), -1, 0))


def _resize_fixed(table: Any, options: dict[str, Any]) -> Any:
    """Resize a table `[heads, N, M]` of a square map to another (bicubic)."""
    sides = [math.isqrt(n) for n in np.shape(table)[1:]]
    height, width = options["table_size"]
    size = (height, width, *(max(side // options["stride"], 1) for side in (height, width)))
    made_for = (sides[0], sides[0], sides[1], sides[1])
    if math.prod(made_for) != math.prod(np.shape(table)[1:]) or made_for == size:
        return table
    return np.asarray(resize_fixed_bias(jnp.asarray(table), made_for, size, "bicubic"))
