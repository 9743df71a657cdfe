"""Layer-wise learning rate decay, for every model of the menu (ELECTRA, arXiv:2003.10555; BEiT,
arXiv:2106.08254).
"""

import re
from typing import Any

import numpy as np

from vitjax.train.state import map_named, named_leaves

STYLES = ("timm", "mae")
_HEAD = r"head|head_dist|aux_head|representation|attention_pool"
_NORM = r"norm|norm_\d+"


def layer_factors(params: Any, decay: float, style: str = "timm") -> Any:
    """Give each parameter the learning rate's factor of its layer: decay^(layers behind it).

    Layer 0 is all before the first block: patches, tokens, positions. Then each block is a layer;
    what stands before a stage of a pyramid belongs to the stage's first block. Last is the head.

    Args:
      params: nested dicts of parameters, or of their shapes; those of scanned blocks get an array
        with a factor for each layer.
      decay: 0.75, say; above 0 and at most 1.
      style: where the final norm belongs: "timm" has it in the layer of the last block, "mae" in
        that of the head, with factor 1.

    Raises:
      ValueError: the decay or the style is none of these, or the model has no blocks.
    """
    if not 0 < decay <= 1 or style not in STYLES:
        raise ValueError(
            f"layer_decay={decay:g}, layer_decay_style={style!r}: the decay lies above 0 and at "
            f"most at 1, and the styles are {' and '.join(map(repr, STYLES))}."
        )
    leaves = named_leaves(params)
    blocks = sorted({key for path in leaves if (key := _block(path))})
    scanned = {leaf.shape[0] for path, leaf in leaves.items() if path.startswith("blocks/")}
    depth = max(scanned) if scanned else len(blocks)
    if not depth:
        raise ValueError(
            f"layer_decay={decay:g} needs a model of blocks; this one has the parts "
            f"{', '.join(sorted({path.split('/')[0] for path in leaves}))}."
        )

    def factor(path: str, leaf: Any) -> Any:
        if path.startswith("blocks/"):
            behind = np.arange(depth, 0, -1).reshape(-1, *[1] * (len(leaf.shape) - 1))
            return (decay**behind).astype(np.float32)
        return decay ** (depth + 1 - _layer(path, blocks, depth, style))

    return map_named(factor, params)


def _block(path: str) -> tuple[int, ...]:
    """The place of the block that a parameter is in; () outside of blocks."""
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
        if style == "mae" and not part.startswith("norm_"):
            return depth + 1
        if not part.startswith("norm_"):
            return depth
        return max(i + 1 for i, b in enumerate(blocks) if b[0] == int(part[5:]))
    if match := re.match(r"downsample_(\d+)", part):
        stage = int(match[1])
        return min((i + 1 for i, b in enumerate(blocks) if b[0] >= stage), default=1)
    return 0
