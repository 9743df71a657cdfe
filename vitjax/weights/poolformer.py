"""PoolFormer: names of the authors' checkpoints; timm's are translated."""

import logging
from typing import Any

from vitjax.weights.libraries import Names

log = logging.getLogger(__name__)

_THEIRS, _OURS = "network.{2i}.{j}.", "stage_{i}/block_{j}/"
TABLE = (
    ("patch_embed.proj", "stem/conv", "conv"),
    ("network.{2i+1}.proj", "downsample_{i+1}/conv", "conv"),
    *((f"{_THEIRS}norm{k}", f"{_OURS}norm{k}", "norm") for k in (1, 2)),
    *((f"{_THEIRS}layer_scale_{k}", f"{_OURS}layer_scale{k}", "param") for k in (1, 2)),
    *((f"{_THEIRS}mlp.fc{k}", f"{_OURS}mlp/fc{k}", "conv_1x1") for k in (1, 2)),
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
)


def _of_stage(offset: int, rest: str) -> Any:
    """Number what timm counts by stages: the authors count stages and downsampling in turn."""
    return lambda match: f"network.{2 * int(match[1]) + offset}.{rest}"


def _finish(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Say which of the two final norms the model has."""
    under_head = getattr(model, "feature_norm", None) is not None  # where there is no final norm
    if "norm.weight" in state_dict and not (model.norm_pooled or under_head):
        log.warning(
            "timm normalises the mean of the last map, and this model the map, as the authors do; "
            "norm_pooled=True is timm's."
        )
    return []


TIMM = Names(
    "timm",
    r"^stem\.conv\.",
    (
        (r"^stem\.conv\.", "patch_embed.proj."),
        (r"^stages\.(\d+)\.downsample\.conv\.", _of_stage(-1, "proj.")),
        (r"^stages\.(\d+)\.blocks\.", _of_stage(0, "")),
        (r"\.layer_scale([12])\.scale$", r".layer_scale_\1"),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    ),
    finish=_finish,
)
LIBRARIES = (TIMM,)
