"""ViT and R+ViT: names of the PyTorch conversions (timm), and of Google's own files (`GOOGLE`)."""

import logging
import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.patch_embed import patch_grid
from vitjax.layers.position import resize_positions
from vitjax.models.preprocessing import GOOGLE as GOOGLE_IMAGES
from vitjax.models.vit import ViT
from vitjax.weights import mmseg, pretraining, resnet, torchvision, transformers

log = logging.getLogger(__name__)

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
    ("norm_pre", "norm_pre", "norm"),
    ("norm", "norm", "norm"),
    ("fc_norm", "fc_norm", "norm"),
    ("pre_logits.fc", "representation", "linear"),
    ("head", "head", "linear"),
    ("exits.{i}.norm", "exit_{i}/norm", "norm"),
    ("exits.{i}.head", "exit_{i}/head", "linear"),
    ("patch_embed.backbone.conv", "patch_embed/backbone/conv", "conv"),
    ("patch_embed.backbone.norm", "patch_embed/backbone/norm", "norm"),
    *resnet.rows("patch_embed.backbone.", "patch_embed/backbone/"),
)

_BLOCK = "Transformer/encoderblock_{i}/"
_ATTENTION = _BLOCK + "MultiHeadDotProductAttention_1/"
GOOGLE = (
    ("cls", "cls_token", "param"),
    ("Transformer/posembed_input/pos_embedding", "pos_embed", "param"),
    ("embedding", "patch_embed/proj", "flax"),
    (_BLOCK + "LayerNorm_0", "block_{i}/norm1", "flax_norm"),
    (_ATTENTION + "query+key+value", "block_{i}/mixer/qkv", "flax"),
    (_ATTENTION + "out", "block_{i}/mixer/proj", "flax_heads"),
    (_BLOCK + "LayerNorm_2", "block_{i}/norm2", "flax_norm"),
    (_BLOCK + "MlpBlock_3/Dense_0", "block_{i}/mlp/fc1", "flax"),
    (_BLOCK + "MlpBlock_3/Dense_1", "block_{i}/mlp/fc2", "flax"),
    ("Transformer/encoder_norm", "norm", "flax_norm"),
    ("pre_logits", "representation", "flax"),
    ("head", "head", "flax"),
    ("conv_root", "patch_embed/backbone/conv", "flax"),
    ("gn_root", "patch_embed/backbone/norm", "flax_norm"),
    *resnet.google_rows("patch_embed/backbone/"),
)
"""Names of ViT, AugReg and R+ViT in `.npz` files; `load.py` has stacked query, key and value."""
GOOGLE_PREPROCESSING = {"*": GOOGLE_IMAGES}

LIBRARIES = (
    transformers.VIT, transformers.CLIP, transformers.OF_SIGLIP, pretraining.CLIP,
    transformers.OF_DINOV2, transformers.OF_MAE, transformers.DINOV3, torchvision.VIT, mmseg.VIT,
    pretraining.MAE, pretraining.DINOV3, pretraining.DINO, pretraining.DINOV2,
    pretraining.OF_DINOV3, pretraining.TUNED_MAE, pretraining.TIMM_CLIP, pretraining.MAP,
    pretraining.CHECK,
)  # fmt: skip


def published_size(arrays: dict[str, Any], model: ViT) -> int | None:
    """Compute the image side of a position table; None for one that is no square."""
    tables = (v for k, v in arrays.items() if _POSITIONS.search(k) and np.ndim(v) == 3)
    length = next((np.shape(table)[1] for table in tables), 0)
    sides = (math.isqrt(length - n) for n in range(min(3, length)) if _is_square(length - n))
    return model.patch_size * side if (side := next(sides, 0)) else None


_POSITIONS = re.compile(r"(?<!decoder_)(pos_embed|pos_embedding|position_embeddings)$")


def _is_square(n: int) -> bool:
    return math.isqrt(n) ** 2 == n


def has_class_position(positions: Any) -> bool:
    """Return whether a table has an entry for the class token before those of a square."""
    length = np.shape(positions)[1]
    return not _is_square(length) and _is_square(length - 1)


def adapt(state_dict: dict[str, Any], model: ViT) -> dict[str, Any]:
    """Interpolate a position table that was trained at another image size."""
    grid = patch_grid(model.image_size, model.patch_size)
    length = model.table_prefix + math.prod(grid)
    for key in ("pos_embed", "Transformer/posembed_input/pos_embedding"):
        positions = state_dict.get(key)
        if positions is None:
            continue
        if np.shape(positions)[1] == length:  # as it is, also where it might be a square and one
            if grid[0] != grid[1] and (side := math.isqrt(math.prod(grid))) ** 2 == math.prod(grid):
                log.warning(
                    "The weights' position table has %d patches and is read as %d×%d; if it was "
                    "made for %d×%d, load it at another image_size.",
                    side * side,
                    *grid,
                    side,
                    side,
                )
            continue
        if not model.table_prefix and has_class_position(positions):
            state_dict[key] = positions = np.asarray(positions)[:, 1:]
        if np.shape(positions)[1] != length:
            resized = resize_positions(jnp.asarray(positions), grid, num_prefix=model.table_prefix)
            state_dict[key] = np.asarray(resized)
    return state_dict
