"""DAT and DAT++: the authors' names."""

import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.attention.deformable_bias import resize_fixed_bias
from vitjax.layers.position import resize_grid
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
    # windows
    (f"{_ATTENTION}.relative_position_bias_table", f"{_MIXER}/relative_position_bias", "param"),
    (f"{_ATTENTION}.proj_qkv", f"{_MIXER}/qkv", "linear"),
    (f"{_ATTENTION}.proj_out", f"{_MIXER}/proj", "linear"),
    (f"{_THEIR_MLP}.linear1.0", f"{_MLP}/fc1", "conv_1x1", f"{_MLP}/dwconv"),
    (f"{_THEIR_MLP}.linear2.0", f"{_MLP}/fc2", "conv_1x1", f"{_MLP}/dwconv"),
    (f"{_THEIR_MLP}.dwc", f"{_MLP}/dwconv", "conv"),
    (f"{_THEIR_MLP}.chunk.linear1", f"{_MLP}/fc1", "linear"),
    (f"{_THEIR_MLP}.chunk.linear2", f"{_MLP}/fc2", "linear"),
    ("cls_norm.norm", "norm", "norm"),
    ("cls_head", "head", "linear"),
)
IGNORE = (r".*\.(relative_position_index|attn_mask)", r".*\.conv_offset\..*")
"""Buffers, and the offset network of attention without offsets."""
