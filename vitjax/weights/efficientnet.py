"""EfficientNet: timm's names, which hold for its conversions of the authors' weights (`tf_`) and
for its own; torchvision's are translated.
"""

import logging
import re
from typing import Any

from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.weights.libraries import Names

log = logging.getLogger(__name__)

_BLOCK, _OURS = "blocks.{i}.{j}.", "stage_{i}/block_{j}/"
_EXPAND = _OURS + "expand"
TABLE = (
    ("conv_stem", "stem/conv", "conv"),
    ("bn1", "stem/norm", "batch_norm"),
    (_BLOCK + "conv_dw", _OURS + "depthwise/conv", "conv"),
    (_BLOCK + "se.conv_reduce", _OURS + "se/fc1", "conv_1x1"),
    (_BLOCK + "se.conv_expand", _OURS + "se/fc2", "conv_1x1"),
    (_BLOCK + "conv_pw", _OURS + "expand/conv", "conv"),
    (_BLOCK + "bn1", _OURS + "expand/norm", "batch_norm"),
    (_BLOCK + "bn2", _OURS + "depthwise/norm", "batch_norm", _EXPAND),
    (_BLOCK + "conv_pwl", _OURS + "project/conv", "conv", _EXPAND),
    (_BLOCK + "bn3", _OURS + "project/norm", "batch_norm", _EXPAND),
    # Without expansion their numbers begin with the depthwise convolution.
    (_BLOCK + "bn1", _OURS + "depthwise/norm", "batch_norm"),
    (_BLOCK + "conv_pw", _OURS + "project/conv", "conv"),
    (_BLOCK + "bn2", _OURS + "project/norm", "batch_norm"),
    ("conv_head", "top/conv", "conv"),
    ("bn2", "top/norm", "batch_norm"),
    ("classifier", "head", "linear"),
)


def _check_timm(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Log what timm's names do not distinguish."""
    del state_dict
    kind = "tf_efficientnet_*" if model.padding == "same" else "efficientnet_*"
    log.warning(
        "timm names the parameters of two kinds of EfficientNet alike; with padding=%r and "
        "norm_epsilon=%g the model computes what its %s do%s.",
        model.padding,
        model.norm_epsilon,
        kind,
        "; those without 'tf_' need padding='symmetric', norm_epsilon=1e-5"
        if model.padding == "same"
        else "; those with 'tf_' need the defaults",
    )
    return []


TIMM = Names("", r"^conv_stem\.", finish=_check_timm)


def _check_torchvision(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Raise ValueError unless the model computes what torchvision's does."""
    del state_dict
    epsilon = 1e-3 if model.width_factor >= 1.6 else 1e-5  # from B5 on
    if (model.padding, model.norm_epsilon) != ("symmetric", epsilon):
        raise ValueError(
            f"These weights are torchvision's, which were trained with padding='symmetric' and "
            f"norm_epsilon={epsilon:g}, and the model has padding={model.padding!r} and "
            f"norm_epsilon={model.norm_epsilon:g}; give it theirs."
        )
    return []


def _block(match: re.Match[str]) -> str:
    """Translate a layer of a block: theirs are numbered, one less without expansion."""
    stage, block, layer, rest = int(match[1]) - 1, match[2], int(match[3]), match[4]
    names = (("conv_pw", "bn1"), ("conv_dw", "bn2"), (), ("conv_pwl", "bn3"))
    if stage == 0:
        names = (("conv_dw", "bn1"), (), ("conv_pw", "bn2"))
    part, dot, leaf = rest.partition(".")
    part = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}.get(part) or names[layer][int(part)]
    return f"blocks.{stage}.{block}.{part}{dot}{leaf}"


def _torchvision(size: int, resized: int) -> Preprocessing:
    return Preprocessing(
        **IMAGENET,
        crop=size / resized,
        interpolation="bicubic",
        image_size=size,
        source="torchvision's transforms of the IMAGENET1K_V1 weights",
    )


TORCHVISION = Names(
    "torchvision",
    r"^features\.0\.0\.",
    (
        (r"^features\.0\.0\.", "conv_stem."),
        (r"^features\.0\.1\.", "bn1."),
        (r"^features\.8\.0\.", "conv_head."),
        (r"^features\.8\.1\.", "bn2."),
        (r"^features\.(\d)\.(\d+)\.block\.(\d)\.(.*)", _block),
        (r"^classifier\.1\.", "classifier."),
    ),
    finish=_check_torchvision,
    preprocessing={
        f"efficientnet_{name}": _torchvision(*sizes)
        for name, sizes in {
            "b0": (224, 256), "b1": (240, 256), "b2": (288, 288), "b3": (300, 320),
            "b4": (380, 384), "b5": (456, 456), "b6": (528, 528), "b7": (600, 600),
        }.items()
    },
)  # fmt: skip

LIBRARIES = (TIMM, TORCHVISION)
"""In this order, so that torchvision's, once renamed, are not taken for timm's."""
