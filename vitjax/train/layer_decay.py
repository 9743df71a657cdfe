"""Layer-wise learning rate decay, for every model of the menu (ELECTRA, arXiv:2003.10555; BEiT,
arXiv:2106.08254).
"""

import re
from typing import Any

import numpy as np

from vitjax.train.state import map_named, named_leaves

STYLES = ("timm", "mae")
_HEAD = (
    r"head|top|head_dist|aux_head|auxiliary_\d+|exit_\d+|neck|representation|attention_pool|fc_norm"
)
_NORM = r"norm|(?:feature_)?norm_\d+"


def layer_factors(params: Any, decay: float, style: str = "timm") -> Any:
    """Compute the learning rate factor of each parameter: decay^(number of later layers).

    Layer 0 is everything before the first block: patches, tokens, positions. Then each block is a
    layer; parameters before a stage of a pyramid belong to the first block of the stage. The head
    is the last layer.

    Args:
      params: nested dicts of parameters, or of their shapes; those of scanned blocks get an array
        with a factor for each layer.
      decay: such as 0.75; above 0 and at most 1.
      style: the layer of the final norm: "timm" puts it into the layer of the last block, "mae"
        into that of the head, with factor 1.

    Raises:
      ValueError: the decay or the style is not allowed, or the model has no blocks.
    """
    if not 0 < decay <= 1 or style not in STYLES:
        raise ValueError(
            f"layer_decay={decay:g}, layer_decay_style={style!r}: the decay lies above 0 and at "
            f"most at 1, and the styles are {' and '.join(map(repr, STYLES))}."
        )
    leaves = named_leaves(params)
    parts = {path.split("/")[0] for path in leaves}
    # Under a dense head the backbone's parameters count as if it stood alone.
    dense = "backbone" in parts and not parts & {"patch_embed", "pos_embed", "norm", "stem"}
    inner = "backbone/" if dense else ""
    leaves = {path.removeprefix(inner): leaf for path, leaf in leaves.items()}
    blocks = sorted({key for path in leaves if (key := _block(path))})
    scanned = {leaf.shape[0] for path, leaf in leaves.items() if path.startswith("blocks/")}
    depth = max(scanned) if scanned else len(blocks)
    if not depth:
        raise ValueError(
            f"layer_decay={decay:g} needs a model of blocks; this one has the parts "
            f"{', '.join(sorted({path.split('/')[0] for path in leaves}))}."
        )

    def factor(path: str, leaf: Any) -> Any:
        path = path.removeprefix(inner)
        if path.startswith("blocks/"):
            behind = np.arange(depth, 0, -1).reshape(-1, *[1] * (len(leaf.shape) - 1))
            return (decay**behind).astype(np.float32)
        return decay ** (depth + 1 - _layer(path, blocks, depth, style))

    return map_named(factor, params)


def _block(path: str) -> tuple[int, ...]:
    """Return the position of the block that holds a parameter; () outside of blocks."""
    if match := re.match(r"(?:backbone/)?stage_(\d+)/block_(\d+)/", path):
        return int(match[1]), int(match[2])
    if match := re.match(r"post_(\d+)/", path):
        return 1_000, int(match[1])  # VOLO's class blocks come after all stages
    match = re.match(r"block_(\d+)/", path)
    return (int(match[1]),) if match else ()


def _layer(path: str, blocks: list[tuple[int, ...]], depth: int, style: str) -> int:
    if block := _block(path):
        return blocks.index(block) + 1
    part = path.split("/")[0]
    if re.fullmatch(_HEAD, part):
        return depth + 1
    if re.fullmatch(_NORM, part):
        if part == "norm":
            return depth + 1 if style == "mae" else depth
        stage = int(part.rpartition("_")[2])
        return max(i + 1 for i, b in enumerate(blocks) if b[0] == stage)
    if match := re.match(r"(?:down|up)sample_(\d+)", part):
        stage = int(match[1])
        return min((i + 1 for i, b in enumerate(blocks) if b[0] >= stage), default=depth)
    return 0
