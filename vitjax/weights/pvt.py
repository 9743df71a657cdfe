"""PVT: names of the official code."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.position import resize_positions
from vitjax.weights import transformers

BLOCKS = tuple(
    (f"block{s + 1}.{{i}}.{theirs}", f"stage_{s}/block_{{i}}/{ours}", kind)
    for s in range(4)
    for theirs, ours, kind in (
        ("norm1", "norm1", "norm"),
        ("attn.q", "mixer/q", "linear"),
        ("attn.kv", "mixer/kv", "linear"),
        ("attn.sr", "mixer/reduce/conv", "conv"),
        ("attn.norm", "mixer/reduce/norm", "norm"),
        ("attn.proj", "mixer/proj", "linear"),
        ("norm2", "norm2", "norm"),
        ("mlp.fc1", "mlp/fc1", "linear"),
        ("mlp.fc2", "mlp/fc2", "linear"),
    )
)
"""Those of both versions."""
ENTRIES = ("stem", "downsample_1", "downsample_2", "downsample_3")
TABLE = (
    *(
        (f"{theirs}{s + 1}{leaf}", f"{entry}/{ours}", kind)
        for s, entry in enumerate(ENTRIES)
        for theirs, leaf, ours, kind in (
            ("patch_embed", ".proj", "patch/conv", "conv"),
            ("patch_embed", ".norm", "patch/norm", "norm"),
            ("pos_embed", "", "pos_embed", "param"),
        )
    ),
    *(("cls_token", f"{entry}/cls_token", "param") for entry in ENTRIES),
    *BLOCKS,
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
)

LIBRARIES = (transformers.PVT,)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Interpolate the position tables of another image size, bilinearly as the model does.

    A model without class token (`pool="gap"`, or under dense heads) drops the token's weights; the
    authors' segmentation code has its position, and not the token.
    """
    entry = dict(model.downsample.kwargs)
    wanted, grids = entry["class_token"][-1], entry["grid"]
    given = "cls_token" in state_dict
    if not wanted:
        state_dict.pop("cls_token", None)
    for i, grid in enumerate(grids):
        if (table := state_dict.get(key := f"pos_embed{i + 1}")) is None:
            continue
        rows, last = np.shape(table)[1], i == len(grids) - 1
        token_alone = rows != math.prod(grid) and rows - 1 == math.isqrt(rows) ** 2
        prefix = int(last and (given or token_alone))
        if rows != prefix + math.prod(grid):
            table = np.asarray(
                resize_positions(
                    jnp.asarray(table), grid, num_prefix=prefix, method="bilinear", antialias=False
                )
            )
        state_dict[key] = table[:, prefix:] if prefix and not wanted else table
    return state_dict
