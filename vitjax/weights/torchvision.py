"""Names of torchvision: `vit_b_16` …, `swin_t` …, `swin_v2_t` …, `convnext_tiny` …."""

import re
from typing import Any

import numpy as np

from vitjax.models.preprocessing import TORCHVISION
from vitjax.weights.libraries import Names

VIT = Names(
    "torchvision",
    r"^conv_proj\.",
    (
        (r"^class_token$", "cls_token"),
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
        (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.pre_logits\.", "pre_logits.fc."),
        (r"^heads\.head\.", "head."),
    ),
    preprocessing=TORCHVISION,
)


def _stage(match: re.Match[str]) -> str:
    """Translate `features.{n}` to a stage or a downsampling, which alternate."""
    stage, halving = divmod(int(match[1]) - 1, 2)
    return f"layers.{stage}." + ("downsample." if halving else "blocks.")


SWIN_BLOCK = ((r"\.mlp\.0\.", ".mlp.fc1."), (r"\.mlp\.3\.", ".mlp.fc2."))
_SWIN = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.(\d+)\.", _stage),
    *SWIN_BLOCK,
)


def _of_convnext(match: re.Match[str]) -> str:
    """Name a stage, whose blocks come with what follows in the name, or a halving before one."""
    stage, halving = divmod(int(match[1]), 2)
    return f"stages.{stage}." if halving else f"downsample_layers.{stage}."


CONVNEXT = Names(
    "torchvision",
    r"^features\.0\.0\.",
    (
        (r"^features\.(\d+)\.", _of_convnext),
        (r"\.block\.0\.", ".dwconv."),
        (r"\.block\.2\.", ".norm."),
        (r"\.block\.3\.", ".pwconv1."),
        (r"\.block\.5\.", ".pwconv2."),
        (r"\.layer_scale$", ".gamma"),
        (r"^classifier\.0\.", "norm."),
        (r"^classifier\.2\.", "head."),
    ),
    preprocessing=TORCHVISION,
)
SWIN = Names("torchvision", r"^features\.0\.0\.", _SWIN, preprocessing=TORCHVISION)


def _split_bias(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Split the biases of q, k and v; k's is not read there either."""
    del model
    for key in [key for key in state_dict if key.endswith(".attn.qkv.bias")]:
        q, _, v = np.split(np.asarray(state_dict.pop(key)), 3)
        block = key.removesuffix("qkv.bias")
        state_dict |= {f"{block}q_bias": q, f"{block}v_bias": v}
    return []


SWINV2 = Names(
    "torchvision", r"^features\.0\.0\.", _SWIN, finish=_split_bias, preprocessing=TORCHVISION
)
