"""Swin V2: the authors' names; timm's are accepted. The position bias fits any window."""

from vitjax.weights import torchvision, transformers
from vitjax.weights.swin import IGNORE, SHARED, adapt

__all__ = ["IGNORE", "LIBRARIES", "TABLE", "adapt"]

TABLE = (
    *(
        (
            f"layers.{{i}}.blocks.{{j}}.attn.{theirs}",
            f"stage_{{i}}/block_{{j}}/mixer/{ours}",
            kind,
        )
        for theirs, ours, kind in (
            ("logit_scale", "logit_scale", "param"),
            ("q_bias", "q_bias", "param"),
            ("v_bias", "v_bias", "param"),
            ("cpb_mlp.0", "cpb_fc1", "linear"),
            ("cpb_mlp.2", "cpb_fc2", "linear"),
        )
    ),
    *SHARED,
)
LIBRARIES = (transformers.SWINV2, torchvision.SWINV2)
