"""RefineNet: the decoder's names are those of the authors' networks, as their PyTorch conversion
has them; the backbone's are those of its own family, with nothing before them in that conversion.
"""

import re
from typing import Any

_UNITS = (("adapt_stage{i+1}_b.0.{j+1}_", "adapt"), ("mflow_conv_g{i+1}_b.0.{j+1}_", "output"))
TABLE = (
    ("p_ims1d2_outl{i+1}_dimred", "head/block_{i}/reduce", "conv"),
    *(
        row
        for theirs, ours in _UNITS
        for row in (
            (theirs + "conv", f"head/block_{{i}}/{ours}_{{j}}/conv_0", "conv"),
            (theirs + "conv_relu_varout_dimred", f"head/block_{{i}}/{ours}_{{j}}/conv_1", "conv"),
        )
    ),
    ("adapt_stage{i+1}_b2_joint_varout_dimred", "head/block_{i}/fuse", "conv"),
    ("mflow_conv_g{i}_b3_joint_varout_dimred", "head/block_{i}/fuse_coarser", "conv"),
    ("mflow_conv_g{i+1}_pool.0.{j+1}_outvar_dimred", "head/block_{i}/pool/conv_{j}", "conv"),
    ("clf_conv", "head/logits", "conv"),
)


def adapt(state_dict: dict[str, Any], model: Any) -> dict[str, Any]:
    """Add `backbone.` before the names of a whole model's ResNet."""
    del model
    if "clf_conv.weight" not in state_dict:
        return state_dict  # a classifier's
    ours = re.compile(r"(conv1|bn1|layer\d+)\.")
    return {f"backbone.{k}" if ours.match(k) else k: v for k, v in state_dict.items()}
