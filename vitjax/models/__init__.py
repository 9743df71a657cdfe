"""The models: MODELS is the menu, `create_model` builds one by name."""

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vitjax.attention import MIXERS
from vitjax.layers.spec import CONTEXT, Spec, defaults, fields, spec
from vitjax.models import (
    biformer,
    bit,
    dat,
    debiformer,
    deit,
    hybrid,
    pvt,
    pvt_v2,
    swin,
    swinv2,
    vit,
    volo,
)
from vitjax.models.family import Family
from vitjax.models.vit import ViT
from vitjax.names import unknown

FAMILIES: tuple[Family, ...] = (
    vit.FAMILY,
    hybrid.FAMILY,
    bit.FAMILY,
    deit.FAMILY,
    swin.FAMILY,
    swinv2.FAMILY,
    pvt.FAMILY,
    pvt_v2.FAMILY,
    dat.FAMILY,
    dat.FAMILY_PP,
    biformer.FAMILY,
    debiformer.FAMILY,
    volo.FAMILY,
)
"""All families; the menu, the tables of weights and docs/models.md come from them."""

MODELS: dict[str, Spec] = {name: s for family in FAMILIES for name, s in family.models.items()}
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
      ValueError: no such model or hyperparameter (the nearest is named), a value that does not
        fit, or one that no part of the model takes, such as a window of another mixer's.
    """
    entry = model_spec(name)
    options = fields(entry.factory)
    for key in overrides:
        if key not in options:
            raise ValueError(unknown(f"hyperparameter of {name!r}", key, options))
    entry = entry.replace(num_classes=num_classes)
    model = entry.replace(**overrides).build()
    default = {**defaults(entry.factory), **dict(entry.kwargs)}
    for key, value in overrides.items():
        # Rates are a schedule over the blocks, which of a few blocks may be the same.
        if key not in {*CONTEXT, "drop_path_rate"} and value != default[key]:
            others = {k: v for k, v in overrides.items() if k != key}
            mixer = str(overrides.get("mixer", default.get("mixer")))
            _check_taken(name, key, value, mixer, model, entry.replace(**others))
    return model


def _check_taken(name: str, key: str, value: Any, mixer: str, model: Any, without: Spec) -> None:
    """Raise ValueError if the model is the same without this hyperparameter."""
    try:
        other: Any = without.build()
    except ValueError:  # the others need this one
        return

    def effective(m: Any) -> Any:
        return m.effective() if hasattr(m, "effective") else m

    takers = [mixer for mixer, entry in MIXERS.items() if key in fields(entry.factory)]
    here = {part.partition("(")[0].strip() for part in re.split(r"[|;]", mixer)}
    # A window that is cut to a small map, say, is the same with another size.
    taken = here & set(takers) and f"{key}=" not in mixer
    if not taken and effective(model) == effective(other):
        raise ValueError(
            f"{key}={value!r} changes nothing in {name!r} with mixer={mixer!r}: none of its parts "
            f"takes {key}, or the mixer sets it already."
            + (f" Token mixers with one: {', '.join(takers)}." if takers else "")
            + " Leave it out, or choose a mixer that takes it."
        )


def from_config(config: Mapping[str, Any], num_classes: int, image_size: int) -> nn.Module:
    """The model of a run's config: `name`, `dtype`, and hyperparameters by their names."""
    name, options = model_arguments(config, image_size)
    return create_model(name, num_classes, **options)


def model_arguments(config: Mapping[str, Any], image_size: int) -> tuple[str, dict[str, Any]]:
    """Name and hyperparameters of a run's config, as `create_model` takes them.

    Args:
      image_size: of the run's images; the model's own tables are made for it unless the config
        gives the model another.
    """
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    name, dtype = options.pop("name"), options.pop("dtype")
    if "image_size" in fields(model_spec(name).factory):
        options.setdefault("image_size", image_size)
    return name, {**options, "dtype": None if dtype == "float32" else jnp.dtype(dtype)}


def model_options(name: str) -> dict[str, Any]:
    """Hyperparameters that `create_model(name, …)` takes, with this model's values."""
    entry = model_spec(name)
    return {**defaults(entry.factory), **dict(entry.kwargs)}


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
