"""ViT: names of the PyTorch conversions (timm)."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.position import resize_positions
from vitjax.models.vit import ViT

TABLE = (
    ("cls_token", "cls_token", "param"),
    ("reg_token", "reg_token", "param"),
    ("pos_embed", "pos_embed", "param"),
    ("patch_embed.proj", "patch_embed/proj", "conv"),
    ("blocks.{i}.norm1", "block_{i}/norm1", "norm"),
    ("blocks.{i}.attn.qkv", "block_{i}/mixer/qkv", "linear"),
    ("blocks.{i}.attn.q_norm", "block_{i}/mixer/q_norm", "norm"),
    ("blocks.{i}.attn.k_norm", "block_{i}/mixer/k_norm", "norm"),
    ("blocks.{i}.attn.proj", "block_{i}/mixer/proj", "linear"),
    ("blocks.{i}.ls1.gamma", "block_{i}/layer_scale1", "param"),
    ("blocks.{i}.norm2", "block_{i}/norm2", "norm"),
    ("blocks.{i}.mlp.fc1", "block_{i}/mlp/fc1", "linear"),
    ("blocks.{i}.mlp.fc2", "block_{i}/mlp/fc2", "linear"),
    ("blocks.{i}.ls2.gamma", "block_{i}/layer_scale2", "param"),
    ("norm", "norm", "norm"),
    ("pre_logits.fc", "representation", "linear"),
    ("head", "head", "linear"),
)


def adapt(state_dict: dict[str, Any], model: ViT) -> dict[str, Any]:
    """Interpolates a position table that was trained at another image size."""
    positions = state_dict.get("pos_embed")
    length = model.table_prefix + math.prod(model.table_grid)
    if positions is not None and np.shape(positions)[1] != length:
        resized = resize_positions(
            jnp.asarray(positions), model.table_grid, num_prefix=model.table_prefix
        )
        state_dict["pos_embed"] = np.asarray(resized)
    return state_dict
