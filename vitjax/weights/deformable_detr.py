"""Deformable DETR: names of transformers' DeformableDetrForObjectDetection; the authors' are
translated.
"""

import re
from typing import Any

from vitjax.weights import detr
from vitjax.weights.table import Row


def sampling(theirs: str, ours: str) -> tuple[Row, ...]:
    """Build the rows of a multi-scale deformable attention."""
    inner = dict(sampling_offsets="offset", attention_weights="weight", value_proj="v")
    inner |= dict(output_proj="proj")
    return tuple((f"{theirs}.{a}", f"{ours}/{b}", "linear") for a, b in inner.items())


TABLE = (
    ("model.input_proj.{i}.0", "head/input_{i}/conv", "conv"),
    ("model.input_proj.{i}.1", "head/input_{i}/norm", "norm"),
    ("model.level_embed", "head/level", "param"),
    ("model.query_position_embeddings.weight", "head/queries", "param"),
    ("model.reference_points", "head/reference", "linear"),
    ("model.enc_output", "head/encoded", "linear"),
    ("model.enc_output_norm", "head/encoded_norm", "norm"),
    ("model.pos_trans", "head/placed", "linear"),
    ("model.pos_trans_norm", "head/placed_norm", "norm"),
    *sampling(f"{detr.ENCODER}.self_attn", "head/encoder_{i}/attn"),
    *detr.layer(detr.ENCODER, "head/encoder_{i}", (detr.OWN, detr.LAST)),
    *detr.attention(f"{detr.DECODER}.self_attn", "head/decoder_{i}/attn"),
    *sampling(f"{detr.DECODER}.encoder_attn", "head/decoder_{i}/cross"),
    *detr.layer(detr.DECODER, "head/decoder_{i}", (detr.OWN, detr.CROSS, detr.LAST)),
    ("class_embed.{i}", "head/class_logits_{i}", "linear"),
    ("bbox_embed.{i}.layers.{j}", "head/box_{i}/fc_{j}", "linear"),
)

RULES = (
    (r"^transformer\.", "model."),
    (r"^(input_proj|query_embed)\.", r"model.\1."),
    (r"\.query_embed\.", ".query_position_embeddings."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"(encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
    *detr.LAYER,
    (r"^model\.decoder\.(bbox|class)_embed\.", r"\1_embed."),  # the same arrays once more
)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate names; layers of classes and boxes that all share are there once."""
    found = detr.translate(state_dict, RULES)
    if not dict(model.head.kwargs)["refine"]:
        copies = re.compile(r"(class|bbox)_embed\.[1-9]\d*\..*")
        found = {key: value for key, value in found.items() if not copies.fullmatch(key)}
    return detr.split_projections(found)
