"""Names of mmsegmentation and of code based on it, shared by several tables, and of its backbones.

The names of its decoders are in `mmseg_decoders.py`.
"""

import re
from typing import Any

import numpy as np

from vitjax.weights.libraries import Names, count
from vitjax.weights.table import Row

LIBRARY = "mmsegmentation"


def conv_module(theirs: str, ours: str) -> tuple[Row, Row]:
    """Build the rows of one of their convolutions with BatchNorm."""
    return (f"{theirs}.conv", f"{ours}/conv", "conv"), (
        f"{theirs}.bn",
        f"{ours}/norm",
        "batch_norm",
    )


def adapt_backbone(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Translate segmentation code's names of a backbone, above all the norms of its maps.

    Those are `norm{i}` in mmsegmentation and Swin's, `extra_norms.{i}` in BiFormer's and
    DeBiFormer's, `norms.{i}.norm` in DAT's segmentation code, and in PoolFormer's `norm{2i}`, as
    it counts stages and downsampling in turn. mmsegmentation's Swin has names of its own, and the
    four pixels that patch merging joins in another order than the authors'.
    """
    theirs_swin = any(".attn.w_msa." in key for key in state_dict)
    by_two = any(key.startswith("backbone.norm6.") for key in state_dict)
    found = {}
    for key, value in state_dict.items():
        key = re.sub(r"^backbone\.extra_norms\.(\d)\.", r"backbone.norm\1.", key)
        key = re.sub(r"^backbone\.norms\.(\d)\.norm\.", r"backbone.norm\1.", key)
        if by_two and (match := re.match(r"backbone\.norm([0246])\.", key)):
            key = f"backbone.norm{int(match[1]) // 2}.{key[match.end() :]}"
        if theirs_swin:
            if re.fullmatch(r"backbone\.stages\.\d+\.downsample\.(norm|reduction)\..*", key):
                value = _merge_as_the_authors(np.asarray(value))
            for old, new in _SWIN:
                key = re.sub(old, new, key)
        found[key] = value
    return found


_SWIN = (
    (r"^backbone\.stages\.", "backbone.layers."),
    (r"^backbone\.patch_embed\.projection\.", "backbone.patch_embed.proj."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
"""mmsegmentation's names in its Swin → the authors'."""


def _merge_as_the_authors(array: np.ndarray) -> np.ndarray:
    """Reorder the last axis, of 4·C, of an array of patch merging.

    Theirs has the channels outside and the four pixels row by row inside; the authors' has the
    pixels outside, column by column.
    """
    split = array.reshape(*array.shape[:-1], -1, 4)[..., [0, 2, 1, 3]]
    return np.ascontiguousarray(np.swapaxes(split, -1, -2)).reshape(array.shape)


def _finish_vit(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Add a bias of zeros to the patch embedding, which theirs lacks."""
    del model
    if "patch_embed.proj.bias" not in state_dict:
        kernel = np.asarray(state_dict["patch_embed.proj.weight"])
        state_dict["patch_embed.proj.bias"] = np.zeros(len(kernel), kernel.dtype)
    return []


VIT = Names(
    LIBRARY,
    r"^layers\.0\.attn\.attn\.in_proj_weight",
    (
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.", "blocks."),
        (r"\.ln([12])\.", r".norm\1."),
        (r"\.attn\.attn\.in_proj_", ".attn.qkv."),
        (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        (r"^ln1\.", "norm."),
    ),
    finish=_finish_vit,
)


def _finish_mit(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Split the projection of q, k and v, and convert 1×1 convolutions to linear layers.

    The published weights have these.
    """
    del model
    for key in list(state_dict):
        value = np.asarray(state_dict[key])
        if match := re.fullmatch(r"(.*\.attn\.)attn\.in_proj_(\w+)", key):
            del state_dict[key]
            query = len(value) // 3
            state_dict[f"{match[1]}q.{match[2]}"] = value[:query]
            state_dict[f"{match[1]}kv.{match[2]}"] = value[query:]
        elif re.search(r"\.fc[12]\.weight$", key) and value.ndim == 4:
            state_dict[key] = value[:, :, 0, 0]
    return []


MIT = Names(
    LIBRARY,
    r"^layers\.0\.0\.projection\.",
    (
        (r"^layers\.(\d+)\.0\.projection\.", count("patch_embed", ".proj.")),
        (r"^layers\.(\d+)\.0\.norm\.", count("patch_embed", ".norm.")),
        (r"^layers\.(\d+)\.1\.", count("block", ".")),
        (r"^layers\.(\d+)\.2\.", count("norm", ".")),
        (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
        (r"\.ffn\.layers\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.dwconv.dwconv."),
        (r"\.ffn\.layers\.4\.", ".mlp.fc2."),
    ),
    finish=_finish_mit,
)
