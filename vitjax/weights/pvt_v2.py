"""PVT v2: names of the official code; timm's are translated."""

import re
from typing import Any

from vitjax.weights import transformers
from vitjax.weights.pvt import BLOCKS, ENTRIES

TABLE = (
    *(
        (f"patch_embed{s + 1}.{theirs}", f"{entry}/{ours}", kind)
        for s, entry in enumerate(ENTRIES)
        for theirs, ours, kind in (("proj", "conv", "conv"), ("norm", "norm", "norm"))
    ),
    *BLOCKS,
    *(
        (f"block{s + 1}.{{i}}.mlp.dwconv.dwconv", f"stage_{s}/block_{{i}}/mlp/dwconv", "conv")
        for s in range(4)
    ),
    *((f"norm{s + 1}", f"norm_{s}", "norm") for s in range(4)),
    ("head", "head", "linear"),
)

LIBRARIES = (transformers.PVT_V2,)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Translate timm's names: `stages.0.blocks.1` is the authors' `block1.1`."""
    if not any(key.startswith("stages.") for key in state_dict):
        return state_dict

    def authors(key: str) -> str:
        match = re.fullmatch(r"stages\.(\d+)\.(downsample|norm|blocks)\.(.*)", key)
        if not match:
            return key.replace("patch_embed.", "patch_embed1.")
        stage, part, rest = int(match[1]) + 1, match[2], match[3]
        names = {"downsample": "patch_embed", "norm": "norm", "blocks": "block"}
        return f"{names[part]}{stage}.{rest.replace('mlp.dwconv.', 'mlp.dwconv.dwconv.')}"

    return {authors(key): value for key, value in state_dict.items()}
