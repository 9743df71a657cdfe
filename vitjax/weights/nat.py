"""NAT and DiNAT: the authors' names; those of transformers are translated.

DiNAT_s has Swin's (`swin.py`).
"""

import re
from typing import Any

from vitjax.models.pyramid import Pyramid
from vitjax.weights import transformers
from vitjax.weights.dat import mixer_options, resize_table

_THEIRS, _OURS = "levels.{i}.blocks.{j}", "stage_{i}/block_{j}"
TABLE = (
    ("patch_embed.proj.{i}", "stem/conv_{i}/conv", "conv"),
    ("patch_embed.norm", "stem/conv_1/norm", "norm"),
    ("levels.{i}.downsample.reduction", "downsample_{i+1}/conv", "conv"),
    ("levels.{i}.downsample.norm", "downsample_{i+1}/norm", "norm"),
    (f"{_THEIRS}.attn.rpb", f"{_OURS}/mixer/rpb", "param"),
    (f"{_THEIRS}.attn.qkv", f"{_OURS}/mixer/qkv", "linear"),
    (f"{_THEIRS}.attn.proj", f"{_OURS}/mixer/proj", "linear"),
    *((f"{_THEIRS}.norm{k}", f"{_OURS}/norm{k}", "norm") for k in (1, 2)),
    *((f"{_THEIRS}.gamma{k}", f"{_OURS}/layer_scale{k}", "param") for k in (1, 2)),
    *((f"{_THEIRS}.mlp.fc{k}", f"{_OURS}/mlp/fc{k}", "linear") for k in (1, 2)),
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
)
LIBRARIES = (transformers.NAT,)


def adapt(state_dict: dict[str, Any], model: Pyramid) -> dict[str, Any]:
    """Interpolate the position tables of another neighbourhood, as the authors did for 11×11."""
    for key, table in state_dict.items():
        if match := re.fullmatch(r"levels\.(\d+)\.blocks\.(\d+)\.attn\.rpb", key):
            options = mixer_options(model, int(match[1]), int(match[2]))
            if size := options.get("neighborhood_size"):
                state_dict[key] = resize_table(table, (size, size))
    return state_dict
