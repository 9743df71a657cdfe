"""Names of self-supervised pretraining in PyTorch: code of DINOv2, DINOv3, MAE, CLIP, and of timm.

Of timm they are those of the attention pooling of image-text models. Such weights hold parts that a
classifier has not, or need options of a ViT.
"""

import re
from typing import Any

import numpy as np

from vitjax.models.preprocessing import CLIP_TOWER, SIGLIP
from vitjax.models.preprocessing import DINO as DINO_IMAGES
from vitjax.models.preprocessing import DINOV2 as DINOV2_IMAGES
from vitjax.models.preprocessing import DINOV3 as DINOV3_IMAGES
from vitjax.models.preprocessing import MAE as MAE_IMAGES
from vitjax.weights.libraries import Names

NEEDED = (
    (
        r"^norm_pre\.",
        "pre_norm",
        "These weights are a visual tower of CLIP's, which normalises tokens before the first "
        "block ({key}): give the model pre_norm=True, norm_epsilon=1e-5 and, if it is OpenAI's, "
        "act='quick_gelu', or take timm's name of it (vit_base_patch16_clip_quickgelu_224).",
    ),
    (
        r"^fc_norm\.",
        "pool_norm",
        "These weights normalise the mean of the patches ({key}), as MAE's fine-tuned ViTs do: "
        "give the model pool='gap', class_token=True and pool_norm=True.",
    ),
)
"""(What a key of theirs looks like, the option of a ViT that they need, what to do)."""


def check(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Raise ValueError if the weights need an option that the model does not have."""
    for pattern, option, sentence in NEEDED:
        key = next((key for key in state_dict if re.search(pattern, key)), None)
        if key and not getattr(model, option):
            raise ValueError(sentence.format(key=repr(key)))
    return []


CHECK = Names("", "", finish=check)
"""No names: what it does is to say what a model lacks."""

MAE = Names(
    "MAE's pretraining code; its decoder and mask token are no part of a ViT",
    r"^decoder_embed\.",
    left_out=(r"mask_token", r"decoder_\w+(\..*)?"),
    preprocessing={"*": MAE_IMAGES},
)

DINO = Names("", r"^(module\.)?head\.last_layer\.weight_[gv]$", preprocessing={"*": DINO_IMAGES})
"""Its training's files, in the names of our tables."""

TUNED_MAE = Names("", r"^fc_norm\.", preprocessing={"*": MAE_IMAGES})


def finish_clip(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Convert a CLIP tower's axes to a ViT's, its projection to a head, and set biases to 0."""
    del model
    if (table := state_dict.get("pos_embed")) is not None:
        state_dict["pos_embed"] = np.asarray(table).reshape(1, -1, np.shape(table)[-1])
    if (projection := state_dict.pop("proj", None)) is not None:
        state_dict["head.weight"] = np.asarray(projection).T
    for name in ("patch_embed.proj", "head"):
        if (weight := state_dict.get(f"{name}.weight")) is not None:
            state_dict.setdefault(f"{name}.bias", np.zeros(len(weight), weight.dtype))
    return []


TIMM_CLIP = Names("", r"^norm_pre\.", finish=finish_clip, preprocessing={"*": CLIP_TOWER})
CLIP = Names(
    "CLIP's code",
    r"^class_embedding$",
    (
        (r"^class_embedding$", "cls_token"),
        (r"^positional_embedding$", "pos_embed"),
        (r"^conv1\.", "patch_embed.proj."),
        (r"^ln_pre\.", "norm_pre."),
        (r"^transformer\.resblocks\.(\d+)\.", r"blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.attn\.in_proj_", ".attn.qkv."),
        (r"\.attn\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.c_fc\.", ".mlp.fc1."),
        (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        (r"^ln_post\.", "norm."),
    ),
    finish=finish_clip,
    preprocessing={"*": CLIP_TOWER},
)
"""OpenAI's names, which are open_clip's too."""

DINOV2 = Names(
    "DINOv2's code; its mask token is no part of a ViT",
    r"^(mask_token|register_tokens)$",
    (
        (r"^register_tokens$", "reg_token"),
        # Blocks may be in chunks, in which they keep their numbers.
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
        (r"\.mlp\.w12\.", ".mlp.fc1."),
        (r"\.mlp\.w3\.", ".mlp.fc2."),
    ),
    left_out=(r"mask_token",),
    preprocessing={"*": DINOV2_IMAGES},
)


def _drop_key_bias(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Drop the masks of the biases of q, k and v, and what they mask: k's."""
    del model
    masks = [key for key in state_dict if key.endswith(".attn.qkv.bias_mask")]
    for mask in masks:
        del state_dict[mask]
        if (biases := state_dict.get(key := mask.removesuffix("_mask"))) is not None:
            q, _, v = np.split(np.asarray(biases), 3)
            state_dict[key] = np.concatenate([q, v])
    return masks


DINOV3 = Names(
    "DINOv3's code; its mask token and the norm of small crops are no part of a ViT",
    r"^storage_tokens$",
    ((r"^storage_tokens$", "reg_token"), (r"\.mlp\.w3\.", ".mlp.fc2.")),
    ((("w1", "w2"), "fc1"),),
    (r"mask_token", r"rope_embed\.periods", r"local_cls_norm\..*"),
    _drop_key_bias,
)
OF_DINOV3 = Names("", r"^storage_tokens$", preprocessing={"*": DINOV3_IMAGES})
"""They have a mask token too, so that DINOv2's images must not come last."""


def _split_pool(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Split the combined layer of keys and values."""
    del model
    for leaf in ("weight", "bias"):
        if (both := state_dict.pop(f"attn_pool.kv.{leaf}", None)) is not None:
            key, value = np.split(np.asarray(both), 2)
            state_dict[f"attention_pool.key.{leaf}"] = key
            state_dict[f"attention_pool.value.{leaf}"] = value
    for name in [name for name in state_dict if name.startswith("attn_pool.")]:
        ours = name.replace("attn_pool.q.", "attn_pool.query.")
        ours = ours.replace("attn_pool.latent", "attn_pool.probe")
        state_dict[ours.replace("attn_pool.", "attention_pool.")] = state_dict.pop(name)
    return []


MAP = Names(
    "timm, with its attention pooling",
    r"^attn_pool\.",
    finish=_split_pool,
    preprocessing={"*": SIGLIP},
)
