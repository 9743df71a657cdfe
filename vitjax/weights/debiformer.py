"""DeBiFormer: names of the authors' checkpoints. One of their blocks is two of ours."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.position import resize_grid
from vitjax.models.pyramid import Pyramid
from vitjax.weights.biformer import HEAD, STEM

_MLP = (
    ("linear1.0", "fc1", "conv_1x1"),
    ("dwc", "dwconv", "conv"),
    ("linear2.0", "fc2", "conv_1x1"),
)
_MIXER = (
    ("qkv.qkv", "w_qkv", "linear"),
    ("router.emb", "router/emb", "linear"),
    ("lepe", "lepe", "conv"),
    ("wo", "w_o", "linear"),
    ("qkv_conv.qkv", "qkv", "conv_1x1"),
    ("conv_offset_q.0", "offset/conv", "conv"),
    ("conv_offset_q.1.norm", "offset/norm", "norm"),
    ("conv_offset_q.3", "offset/offset", "conv_1x1"),
    ("proj_q", "agent_q", "conv_1x1"),
    ("lepe1", "agent_lepe", "conv"),
    ("unifyheads1", "unify", "conv_1x1"),
    ("norm2", "norm1", "norm"),
    *((f"mlp.{theirs}", f"mlp/{ours}", kind) for theirs, ours, kind in _MLP),
    ("norm", "norm2", "norm"),
    ("proj_k", "k", "conv_1x1"),
    ("proj_v", "v", "conv_1x1"),
    ("rpe_table", "bias/table", "param"),
    ("proj_out", "proj", "conv_1x1"),
)


def _half(number: int, block: str) -> tuple[tuple[str, str, str], ...]:
    """Build the rows of one of our two blocks for each block of the authors."""
    theirs, ours = "stages.{i}.{j}.", f"stage_{{i}}/{block}/"
    before, after = 2 * number - 1, 2 * number
    return (
        (f"{theirs}pos_embed{number}", f"{ours}cpe", "conv"),
        (f"{theirs}norm{before}", f"{ours}norm1", "norm"),
        (f"{theirs}gamma{before}", f"{ours}layer_scale1", "param"),
        *((f"{theirs}attn{number}.{t}", f"{ours}mixer/{o}", kind) for t, o, kind in _MIXER),
        (f"{theirs}norm{after}", f"{ours}norm2", "norm"),
        (f"{theirs}gamma{after}", f"{ours}layer_scale2", "param"),
        *((f"{theirs}mlp{number}.{t}", f"{ours}mlp/{o}", kind) for t, o, kind in _MLP),
    )


TABLE = (*STEM, *_half(1, "block_{2j}"), *_half(2, "block_{2j+1}"), *HEAD)


def adapt(state_dict: dict[str, Any], model: Pyramid) -> dict[str, Any]:
    """Resize position tables that were made for another map (bicubic)."""
    for key, table in state_dict.items():
        if match := re.fullmatch(r"stages\.(\d+)\.(\d+)\.attn([12])\.rpe_table", key):
            stage, block, half = map(int, match.groups())
            if shape := _table_shape(model, stage, 2 * block + half - 1):
                resized = resize_grid(jnp.asarray(table).transpose(1, 2, 0), shape)
                state_dict[key] = np.asarray(resized).transpose(2, 0, 1)
    return state_dict


def _table_shape(model: Pyramid, stage: int, block: int) -> tuple[int, int] | None:
    """Return the rows and columns of a block's position table, or None where it has none."""
    mixers = model.mixers[stage] if stage < len(model.mixers) else ()
    size = dict(mixers[block % len(mixers)].at(stage).kwargs).get("table_size") if mixers else None
    return (2 * size[0] - 1, 2 * size[1] - 1) if size else None
