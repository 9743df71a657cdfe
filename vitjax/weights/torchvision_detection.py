"""Names that torchvision's detectors share, those of its older files included."""

import re
from typing import Any

from vitjax.weights.libraries import rename
from vitjax.weights.table import Row

PYRAMID: tuple[Row, ...] = (
    ("fpn.inner_blocks.{i}.0", "head/neck/lateral_{i}/conv", "conv"),
    ("fpn.layer_blocks.{i}.0", "head/neck/fpn_{i}/conv", "conv"),
)


def _halve(match: re.Match[str]) -> str:
    """Count convolutions alone: in older files activations lie between them."""
    return f"{match[1]}{int(match[2]) // 2}.0.{match[3]}"


_RULES = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.", "fpn."),
    # Older files have convolutions without the modules around them.
    (r"^(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^(head\.\w+_head\.conv\.)(\d+)\.(weight|bias)$", _halve),
    (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
    (r"^(roi_heads\.mask_head\.)mask_fcn(\d)\.", lambda m: f"{m[1]}{int(m[2]) - 1}.0."),
)


def adapt_backbone(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Translate names, so that those of the backbone alone begin with `backbone.`."""
    return {rename(key, _RULES): value for key, value in state_dict.items()}
