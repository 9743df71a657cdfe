"""DETR: names of transformers' DetrForObjectDetection; the authors' are translated."""

import re
from typing import Any

import numpy as np

from vitjax.weights.libraries import rename
from vitjax.weights.table import Row


def attention(theirs: str, ours: str) -> tuple[Row, ...]:
    """Build the rows of an attention of given queries, keys and values."""
    inner = (*((f"{n}_proj", n) for n in "qkv"), ("out_proj", "proj"))
    return tuple((f"{theirs}.{a}", f"{ours}/{b}", "linear") for a, b in inner)


def layer(theirs: str, ours: str, norms: tuple[str, ...]) -> tuple[Row, ...]:
    """Build the rows of a layer's norms and MLP."""
    return (
        *((f"{theirs}.{n}", f"{ours}/norm{i}", "norm") for i, n in enumerate(norms, 1)),
        (f"{theirs}.fc1", f"{ours}/mlp/fc1", "linear"),
        (f"{theirs}.fc2", f"{ours}/mlp/fc2", "linear"),
    )


ENCODER, DECODER = "model.encoder.layers.{i}", "model.decoder.layers.{i}"
OWN, CROSS, LAST = "self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"
TABLE = (
    ("model.input_projection", "head/input/conv", "conv"),
    ("model.query_position_embeddings.weight", "head/queries", "param"),
    *attention(f"{ENCODER}.self_attn", "head/encoder_{i}/attn"),
    *layer(ENCODER, "head/encoder_{i}", (OWN, LAST)),
    *attention(f"{DECODER}.self_attn", "head/decoder_{i}/attn"),
    *attention(f"{DECODER}.encoder_attn", "head/decoder_{i}/cross"),
    *layer(DECODER, "head/decoder_{i}", (OWN, CROSS, LAST)),
    ("model.decoder.layernorm", "head/norm", "norm"),
    ("class_labels_classifier", "head/class_logits", "linear"),
    ("bbox_predictor.layers.{i}", "head/box/fc_{i}", "linear"),
)

BACKBONE = (
    (r"^backbone\.0\.body\.", "backbone."),
    (r"^model\.backbone\.(?:conv_encoder\.)?model\.", "backbone."),
    # transformers' own ResNet
    (r"^backbone\.embedder\.embedder\.convolution\.", "backbone.conv1."),
    (r"^backbone\.embedder\.embedder\.normalization\.", "backbone.bn1."),
    (
        r"^backbone\.encoder\.stages\.(\d+)\.layers\.(\d+)\.",
        lambda m: f"backbone.layer{int(m[1]) + 1}.{m[2]}.",
    ),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d+)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d+)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
)
"""The authors' names of the backbone and transformers', so that they begin with `backbone.`."""
LAYER = (
    (r"\.norm3\.", ".final_layer_norm."),
    (r"\.linear([12])\.", r".fc\1."),
    (r"\.mlp\.fc([12])\.", r".fc\1."),
    (r"\.o_proj\.", ".out_proj."),
)
"""Of transformers' layers, by the authors' names and by those of transformers 5."""
RULES = (
    (r"^transformer\.", "model."),
    (r"\.multihead_attn\.", ".encoder_attn."),
    (r"(encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    *LAYER,
    (r"\.decoder\.norm\.", ".decoder.layernorm."),
    (r"^input_proj\.", "model.input_projection."),
    (r"^query_embed\.", "model.query_position_embeddings."),
    (r"^class_embed\.", "class_labels_classifier."),
    (r"^bbox_embed\.", "bbox_predictor."),
)


def translate(state_dict: dict[str, Any], rules: Any) -> dict[str, Any]:
    """Translate names: the backbone's to its own, the others by rules."""

    def name(key: str) -> str:
        key = rename(key, BACKBONE)
        return key if key.startswith("backbone.") else rename(key, rules)

    return {name(key): value for key, value in state_dict.items()}


def split_projections(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Split PyTorch's joint projections to queries, keys and values."""
    found = {}
    for key, array in state_dict.items():
        if match := re.fullmatch(r"(.*\.)in_proj_(weight|bias)", key):
            for part, own in zip("qkv", np.split(np.asarray(array), 3), strict=True):
                found[f"{match[1]}{part}_proj.{match[2]}"] = own
        else:
            found[key] = array
    return found


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate the authors' names, which files of older versions have too."""
    del model
    return split_projections(translate(state_dict, RULES))
