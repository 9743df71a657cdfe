"""MiT: names of the published weights, which are PVT v2's; Hugging Face's and mmsegmentation's are
translated.
"""

import re
from typing import Any

import numpy as np

from vitjax.weights import mmseg, pvt_v2

TABLE = pvt_v2.TABLE
LIBRARIES = (mmseg.MIT,)

_PARTS = {  # of a block: Hugging Face's name → ours; of transformers 4 and of the files, then of 5
    "layer_norm_1": "norm1", "layernorm_before": "norm1",
    "layer_norm_2": "norm2", "layernorm_after": "norm2",
    "attention.self.query": "attn.q", "attention.q_proj": "attn.q",
    "attention.self.key": "attn.k", "attention.k_proj": "attn.k",
    "attention.self.value": "attn.v", "attention.v_proj": "attn.v",
    "attention.self.sr": "attn.sr", "attention.sequence_reduction.sequence_reduction": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "attention.sequence_reduction.layer_norm": "attn.norm",
    "attention.output.dense": "attn.proj", "attention.o_proj": "attn.proj",
    "mlp.dense1": "mlp.fc1", "mlp.dense2": "mlp.fc2",
}  # fmt: skip


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate the names of Hugging Face's `SegformerForImageClassification`."""
    if not from_hugging_face(state_dict):
        return state_dict
    return {
        key.replace("classifier.", "head."): value for key, value in encoder(state_dict).items()
    }


def from_hugging_face(state_dict: dict[str, Any]) -> bool:
    """Return whether the names are Hugging Face's."""
    return any(key.startswith("segformer.") for key in state_dict)


def encoder(state_dict: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Translate Hugging Face's names of the encoder; others stay.

    Keys and values have a projection each there, and one in the published weights.

    Args:
      prefix: of the translated names.

    Raises:
      KeyError: a projection of keys without one of values.
    """
    found = {_name(key, prefix): value for key, value in state_dict.items()}
    for key in [key for key in found if ".attn.k." in key]:
        both = found.pop(key), found.pop(key.replace(".attn.k.", ".attn.v."))
        found[key.replace(".attn.k.", ".attn.kv.")] = np.concatenate(both)
    return found


def _name(key: str, prefix: str) -> str:
    """Translate one of Hugging Face's names to the published one."""
    # Transformers 5 has `stages.0.blocks.1`, and 4 and the files `encoder.block.0.1`.
    key = re.sub(r"^segformer\.stages\.(\d+)\.(\w+?)s?\.", r"segformer.encoder.\2.\1.", key)
    pattern = r"segformer\.encoder\.(patch_embedding|block|layer_norm)s?\.(\d+)\.(.*)"
    if not (match := re.fullmatch(pattern, key)):
        return key
    kind, stage, rest = match[1], int(match[2]) + 1, match[3]
    if kind == "block":
        number, rest = rest.split(".", 1)
        part, leaf = rest.rsplit(".", 1)
        return f"{prefix}block{stage}.{number}.{_PARTS.get(part, part)}.{leaf}"
    if kind == "patch_embedding":
        return f"{prefix}patch_embed{stage}.{rest.replace('layer_norm', 'norm')}"
    return f"{prefix}norm{stage}.{rest}"
