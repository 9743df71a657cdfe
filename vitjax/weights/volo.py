"""VOLO: names of the official code, which are timm's too."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.position import resize_grid

_BLOCK = (
    ("norm1", "norm1", "norm"),
    ("attn.qkv", "mixer/qkv", "linear"),
    ("attn.q", "mixer/q", "linear"),
    ("attn.kv", "mixer/kv", "linear"),
    ("attn.v", "mixer/v", "linear"),
    ("attn.attn", "mixer/attn", "linear"),
    ("attn.proj", "mixer/proj", "linear"),
    ("norm2", "norm2", "norm"),
    ("mlp.fc1", "mlp/fc1", "linear"),
    ("mlp.fc2", "mlp/fc2", "linear"),
)
TABLE = (
    ("cls_token", "cls_token", "param"),
    *(("pos_embed", f"downsample_{s}/pos_embed", "param") for s in (1, 2)),
    *((f"patch_embed.conv.{3 * i}", f"stem/conv_{i}/conv", "conv") for i in range(3)),
    *((f"patch_embed.conv.{3 * i + 1}", f"stem/conv_{i}/norm", "batch_norm") for i in range(3)),
    ("patch_embed.proj", "stem/proj/conv", "conv"),
    ("network.1.proj", "downsample_1/proj/conv", "conv"),
    *((f"network.downsample{s}.proj", f"downsample_{s}/proj/conv", "conv") for s in (2, 3)),
    *(
        (f"{theirs}.{leaf}", f"{ours}/{our_leaf}", kind)
        for theirs, ours in (
            ("network.0.{i}", "stage_0/block_{i}"),
            *((f"network.{s + 1}.{{i}}", f"stage_{s}/block_{{i}}") for s in (1, 2, 3)),
            ("post_network.{i}", "post_{i}"),
        )
        for leaf, our_leaf, kind in _BLOCK
    ),
    ("norm", "norm", "norm"),
    ("aux_head", "aux_head", "linear"),
    ("head", "head", "linear"),
)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Interpolate the position table of another image size.

    A model without token labels leaves the second head aside. The numbers in `network.3.…` count
    stages and halvings; those of a pattern that was not published become the numbers that they
    have in the published one, and a second halving becomes `network.downsample2`.
    """
    transition = dict(model.downsample.kwargs)
    names, number = {}, 0
    for stage, halve in enumerate(transition["halve"]):
        if halve:
            names[str(number)] = "1" if stage == 1 else f"downsample{stage}"
            number += 1
        names[str(number)] = str(stage + 1) if stage else "0"
        number += 1
    renamed = {}
    for key, value in state_dict.items():
        root, *rest = key.split(".")
        if root == "network":
            rest[0] = names.get(rest[0], rest[0])
        if root != "aux_head" or model.token_label:
            renamed[".".join((root, *rest))] = value
    grid = next(filter(None, transition["grid"]), None)
    table = renamed.get("pos_embed")
    if grid and table is not None and np.shape(table)[1:3] != grid:
        renamed["pos_embed"] = np.asarray(resize_grid(jnp.asarray(table)[0], grid))[None]
    return renamed
