"""Names of Hugging Face's transformers, of version 5 and, as in files, of older ones.

`google/vit-…`, `facebook/deit-…`, `facebook/dinov2-…`, `facebook/dinov3-vit…`, `openai/clip-…`,
`google/siglip-…`, `microsoft/swin-…`, `microsoft/swinv2-…`, `Zetatech/pvt-…`,
`OpenGVLab/pvt_v2_…`, `google/bit-…`, `shi-labs/nat-…`, `shi-labs/dinat-…`; MiT's are in `mit.py`.
Their norms have an epsilon of 1e-12 in ViT and DeiT, and 1e-6 in all of PVT v2's, where the
authors' code and ours have others.
"""

import math
from typing import Any

import numpy as np

from vitjax.models.preprocessing import CLIP_TOWER, GOOGLE, MAE, SIGLIP
from vitjax.models.preprocessing import DINOV2 as DINOV2_IMAGES
from vitjax.models.preprocessing import DINOV3 as DINOV3_IMAGES
from vitjax.weights.libraries import KV, QKV, Names, count
from vitjax.weights.pretraining import finish_clip

_BARE = (
    r"^(?:vit|deit|dinov2|dinov2_with_registers|swin|swinv2|pvt|pvt_v2|bit|nat|dinat|vivit)\.",
    "",
)
_HEAD = (r"^(?:cls_)?classifier\.", "head.")
_ATTENTION = (
    *(
        (rf"\.attention\.(?:attention\.|self\.)?(?:{long}|{long[0]}_proj)\.", f".attn.{long[0]}.")
        for long in ("query", "key", "value")
    ),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
)
_BLOCK = (
    *_ATTENTION,
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
)


def _finish_vit(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Drop a pooler, and a head of class token and mean patch, that the model lacks."""
    head, token = (np.shape(state_dict.get(key, 0)) for key in ("head.weight", "cls_token"))
    doubled = len(head) == 2 and head[1] == 2 * math.prod(token)
    dropped = [
        key
        for key in state_dict
        if (key.startswith("pre_logits.") and not model.representation_size)
        or (key.startswith("head.") and doubled)
    ]
    for key in dropped:
        del state_dict[key]
    return dropped


VIT = Names(
    "Hugging Face's transformers",
    r"^(?:\w+\.)?embeddings\.patch_embeddings\.projection\.",
    (
        _BARE,
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.distillation_token$", "dist_token"),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^(?:encoder\.layers?|layers)\.(\d+)\.", r"blocks.\1."),
        *_BLOCK,
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
        (r"^layernorm\.", "norm."),
        (r"^pooler\.dense\.", "pre_logits.fc."),
        _HEAD,
        (r"^distillation_classifier\.", "head_dist."),
    ),
    (*QKV, (("gate_proj", "up_proj"), "fc1")),
    (r"(\w+\.)?embeddings\.mask_token", r"decoder\..*"),
    _finish_vit,
    {"vit_*": GOOGLE, "r*_vit_*": GOOGLE},
)
"""ViT, DeiT, DINOv2 and MAE."""
OF_DINOV2 = Names("", r"\.layer_scale1\.lambda1$", preprocessing={"*": DINOV2_IMAGES})
OF_MAE = Names("", r"^decoder\.decoder_embed\.", preprocessing={"*": MAE})
"""What tells that weights of that layout want their images otherwise."""

DINOV3 = Names(
    "Hugging Face's transformers",
    r"^embeddings\.patch_embeddings\.weight$",
    (
        (r"^model\.", ""),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^layer\.(\d+)\.", r"blocks.\1."),
        *_ATTENTION,
        (r"\.mlp\.up_proj\.", ".mlp.fc1."),
        (r"\.mlp\.down_proj\.", ".mlp.fc2."),
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    ),
    (*QKV, (("q", "v"), "qkv"), (("gate_proj", "fc1"), "fc1")),  # k has no bias
    (r"embeddings\.mask_token",),
    preprocessing={"*": DINOV3_IMAGES},
)


def _finish_tower(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Convert a CLIP tower's axes and biases to a ViT's, and split SigLIP's pooling projections."""
    for leaf in ("weight", "bias"):
        if (joint := state_dict.pop(f"head.attention.in_proj_{leaf}", None)) is not None:
            for part, array in zip(("query", "key", "value"), np.split(joint, 3), strict=True):
                state_dict[f"attention_pool.{part}.{leaf}"] = array
    return finish_clip(state_dict, model)


CLIP = Names(
    "Hugging Face's transformers",
    r"^(?:vision_model\.)?embeddings\.patch_embedding\.",
    (
        (r"^vision_model\.", ""),
        (r"^embeddings\.class_embedding$", "cls_token"),
        (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
        (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"^pre_layrnorm\.", "norm_pre."),
        (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
        (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
        (r"\.self_attn\.out_proj\.", ".attn.proj."),
        (r"\.layer_norm([12])\.", r".norm\1."),
        (r"^post_layernorm\.", "norm."),
        (r"^visual_projection\.", "head."),
        (r"^head\.probe$", "attention_pool.probe"),
        (r"^head\.attention\.out_proj\.", "attention_pool.proj."),
        (r"^head\.layernorm\.", "attention_pool.norm."),
        (r"^head\.mlp\.", "attention_pool.mlp."),
    ),
    QKV,
    (r".*\.position_ids", r"text_model\..*", r"text_projection\..*", r"logit_(scale|bias)"),
    _finish_tower,
    {"*": CLIP_TOWER},
)
"""The towers of CLIP and SigLIP, alone or beside that of texts."""
OF_SIGLIP = Names("", r"^(?:vision_model\.)?head\.probe$", preprocessing={"*": SIGLIP})

_SWIN = (
    _BARE,
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^embeddings\.position_embeddings$", "absolute_pos_embed"),
    (r"^encoder\.layers\.", "layers."),
    *_BLOCK,
    (r"\.attention\.(?:self|relative_position_bias)\.(relative_\w+|logit_scale)$", r".attn.\1"),
    (r"\.attention\.self\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."),
    (r"^layernorm\.", "norm."),
    _HEAD,
)
_MARKER_OF_SWIN = r"^(?:\w+\.)?encoder\.layers\.0\.blocks\.0\.attention\."
_NOT_IN_SWIN = (r"(\w+\.)?embeddings\.mask_token", r"decoder\..*")
SWIN = Names("Hugging Face's transformers", _MARKER_OF_SWIN, _SWIN, QKV, _NOT_IN_SWIN)
SWINV2 = Names(
    "Hugging Face's transformers",
    _MARKER_OF_SWIN,
    (*_SWIN, (r"\.attn\.([qv])\.bias$", r".attn.\1_bias")),  # k has none
    QKV,
    _NOT_IN_SWIN,
)

PVT = Names(
    "Hugging Face's transformers",
    r"^(?:pvt\.)?encoder\.patch_embeddings\.0\.projection\.",
    (
        _BARE,
        (r"^encoder\.patch_embeddings\.\d+\.cls_token$", "cls_token"),
        (r"^encoder\.patch_embeddings\.(\d+)\.position_embeddings$", count("pos_embed")),
        (r"^encoder\.patch_embeddings\.(\d+)\.projection\.", count("patch_embed", ".proj.")),
        (r"^encoder\.patch_embeddings\.(\d+)\.layer_norm\.", count("patch_embed", ".norm.")),
        (r"^encoder\.block\.(\d+)\.", count("block", ".")),
        *_ATTENTION,
        (r"\.attention\.self\.sequence_reduction\.", ".attn.sr."),
        (r"\.attention\.self\.layer_norm\.", ".attn.norm."),
        (r"\.layer_norm_([12])\.", r".norm\1."),
        (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
        (r"^encoder\.layer_norm\.", "norm."),
        _HEAD,
    ),
    KV,
)

PVT_V2 = Names(
    "Hugging Face's transformers",
    r"^(?:pvt_v2\.)?encoder\.layers\.0\.patch_embedding\.",
    (
        _BARE,
        (r"^encoder\.layers\.(\d+)\.patch_embedding\.proj\.", count("patch_embed", ".proj.")),
        (
            r"^encoder\.layers\.(\d+)\.patch_embedding\.layer_norm\.",
            count("patch_embed", ".norm."),
        ),
        (r"^encoder\.layers\.(\d+)\.blocks\.", count("block", ".")),
        (r"^encoder\.layers\.(\d+)\.layer_norm\.", count("norm", ".")),
        *_ATTENTION,
        (r"\.attention\.proj\.", ".attn.proj."),
        (r"\.attention\.spatial_reduction\.", ".attn.sr."),
        (r"\.attention\.layer_norm\.", ".attn.norm."),
        (r"\.layer_norm_([12])\.", r".norm\1."),
        (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
        _HEAD,
    ),
    KV,
)


def _finish_bit(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Convert the head to a 1×1 convolution, as in the published weights."""
    del model
    head = np.asarray(state_dict.get("head.fc.weight", 0))
    if head.ndim == 2:
        state_dict["head.fc.weight"] = head[:, :, None, None]
    return []


BIT = Names(
    "Hugging Face's transformers",
    r"^(?:bit\.)?embedder\.convolution\.",
    (
        _BARE,
        (r"^embedder\.convolution\.", "stem.conv."),
        (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"stages.\1.blocks.\2."),
        (r"^classifier\.1\.", "head.fc."),
    ),
    finish=_finish_bit,
)


def _finish_nat(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Split the two layer scales of a block."""
    del model
    for key in [key for key in state_dict if key.endswith(".layer_scale_parameters")]:
        for k, scale in enumerate(state_dict.pop(key), 1):
            state_dict[key.replace("layer_scale_parameters", f"gamma{k}")] = scale
    return []


NAT = Names(
    "Hugging Face's transformers",
    r"^(?:(?:di)?nat\.)?embeddings\.patch_embeddings\.projection\.0\.",
    (
        _BARE,
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.norm\.", "patch_embed.norm."),
        (r"^encoder\.levels\.(\d+)\.layers\.", r"levels.\1.blocks."),
        (r"^encoder\.levels\.", "levels."),
        (r"\.attention\.self\.rpb$", ".attn.rpb"),
        *_BLOCK,
        (r"^layernorm\.", "norm."),
        _HEAD,
    ),
    QKV,
    finish=_finish_nat,
)
