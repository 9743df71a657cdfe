"""BiT: names of timm's conversions, of the authors' PyTorch files and of their `.npz` files."""

import re
from typing import Any

from vitjax.models.bit import BiT
from vitjax.models.preprocessing import HALF, Preprocessing
from vitjax.weights import resnet, transformers

TABLE = (
    *resnet.rows("", "backbone/"),
    ("norm", "norm", "norm"),
    ("head.fc", "head", "conv_1x1"),
)

_UNIT, _OURS = "resnet/block{i+1}/unit{j+1:02d}/", "backbone/stage_{i}/block_{j}/"
GOOGLE = (
    ("resnet/root_block/standardized_conv2d", "backbone/stem/conv", "flax"),
    *(
        row
        for k, letter in ((1, "a"), (2, "b"), (3, "c"))
        for row in (
            (f"{_UNIT}{letter}/standardized_conv2d", f"{_OURS}conv{k}", "flax"),
            (f"{_UNIT}{letter}/group_norm", f"{_OURS}norm{k}", "tf_norm"),
        )
    ),
    (_UNIT + "a/proj/standardized_conv2d", _OURS + "shortcut_conv", "flax"),
    ("resnet/group_norm", "norm", "tf_norm"),
    ("resnet/head/conv2d", "head", "flax"),
)
GOOGLE_PREPROCESSING = {
    "*": Preprocessing(
        **HALF,
        crop=0.0,
        interpolation="bilinear",
        image_size=480,
        source="google-research/big_transfer, bit_hyperrule.py and input_pipeline_tf2_or_jax.py",
    )
}

LIBRARIES = (transformers.BIT,)
_AUTHORS = {"root.conv.": "stem.conv.", "head.gn.": "norm.", "head.conv.": "head.fc."}


def adapt(state_dict: dict[str, Any], model: BiT) -> dict[str, Any]:
    """Translate the keys of the authors' PyTorch code to timm's."""

    def block(match: re.Match[str]) -> str:
        i, j, rest = int(match[1]) - 1, int(match[2]) - 1, match[3]
        rest = re.sub(r"^gn(?=\d\.)", "norm", rest)
        rest = re.sub(r"^downsample\.(?=weight)", "downsample.conv.", rest)
        return f"stages.{i}.blocks.{j}.{rest}"

    def rename(key: str) -> str:
        for theirs, ours in _AUTHORS.items():
            if key.startswith(theirs):
                return ours + key.removeprefix(theirs)
        return re.sub(r"^body\.block(\d+)\.unit(\d+)\.(.*)$", block, key)

    return {rename(key): value for key, value in state_dict.items()}
