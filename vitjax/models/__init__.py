"""The models: MODELS is the menu, `create_model` builds one by name."""

import fnmatch
import re
from typing import Any

import flax.linen as nn

from vitjax.attention import unknown
from vitjax.layers.spec import Spec, fields, spec
from vitjax.models import vit
from vitjax.models.vit import ViT

MODELS: dict[str, Spec] = {
    f"vit_{size}{patch}{suffix}": spec(ViT, patch_size=patch, **vit.VARIANTS[size], **extra)
    for size, patches in vit.PATCH_SIZES.items()
    for patch in patches
    for suffix, extra in (("", {}), ("_reg4", vit.REGISTERS))
}
"""Name → factory with the variant's hyperparameters."""


def list_models(pattern: str = "*") -> list[str]:
    """Names on the menu that match a shell pattern: `list_models("vit_*16")`."""
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def create_model(name: str, num_classes: int = 1000, **overrides: Any) -> nn.Module:
    """A linen module by name: `create_model("vit_s16", num_classes=10, image_size=64)`.

    Args:
      name: one of `list_models()`; a ViT with any patch size, `vit_b20`, works too.
      num_classes: 0 for a model without head.
      **overrides: hyperparameters of the model, by the names in its docstring.

    Raises:
      ValueError: no such model or hyperparameter (the nearest is named), or a value that does not
        fit.
    """
    entry = model_spec(name)
    options = fields(entry.factory)
    for key in overrides:
        if key not in options:
            raise ValueError(unknown(f"hyperparameter of {name!r}", key, options))
    return entry.replace(num_classes=num_classes, **overrides).build()


def model_spec(name: str) -> Spec:
    """The menu's entry of this name, or the ViT of any patch size that it describes."""
    if name in MODELS:
        return MODELS[name]
    if match := re.fullmatch(r"vit_([a-zA-Z]+?)([1-9]\d?)(_reg4)?", name):
        size, patch, registers = match.groups()
        if size in vit.VARIANTS:
            extra = vit.REGISTERS if registers else {}
            return spec(ViT, patch_size=int(patch), **vit.VARIANTS[size], **extra)
    raise ValueError(unknown("model", name, MODELS))
