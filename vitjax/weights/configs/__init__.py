"""Choice of the model by the config beside its weights.

Beside a file, in its folder or in its repository, timm and transformers write `config.json`,
open_clip `open_clip_config.json`, and a run of ours `config.json`.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from vitjax.models import create_model, model_arguments, model_options, model_spec
from vitjax.names import check_choice
from vitjax.weights.configs.fields import Fields, Options, same
from vitjax.weights.configs.open_clip import open_clip_model
from vitjax.weights.configs.timm import timm_model
from vitjax.weights.configs.transformers import TRANSFORMERS
from vitjax.weights.files import beside

log = logging.getLogger(__name__)

FILES = ("config.json", "open_clip_config.json")


class Chosen(NamedTuple):
    """Model that a config describes.

    Attributes:
      name, options: as `create_model` takes them.
      where: what says so.
      num_classes: how many there are; None if it does not say.
      classes: their names, if it says them.
    """

    name: str
    options: Options
    where: str
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.name}({inside})" if inside else self.name


def choose(source: str | os.PathLike[str]) -> Chosen:
    """Choose the model by the config beside weights, and log the choice.

    Raises:
      ValueError: there is no config, or its model is none of ours; the hyperparameter that ours
        cannot express is named.
    """
    text = os.fspath(source)
    found = describe(text)
    if found is None:
        raise ValueError(
            f"Which model are the weights {text!r} of? No config.json of timm, transformers or a "
            f"run, and no open_clip_config.json, lies beside them; say it: MODEL={text}, "
            f"load_pretrained(MODEL, {text!r})."
        )
    log.warning("%s chooses the model %s.", found.where, found)
    return found


def describe(source: str) -> Chosen | None:
    """Read the config beside weights; None if there is none.

    Raises: as `choose`.
    """
    for file in FILES:
        content = beside(source, file)
        where = f"{file} beside {source}"
        if content is None:
            continue
        try:
            found = _read(file, content, where, source)
            if found is not None:
                create_model(found.name, **found.options)
                return found
        except (KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
            raise ValueError(
                f"{where} does not describe a model in a form that is known "
                f"({type(error).__name__}: {error}); mend it, or load the weights from elsewhere."
            ) from error
    return None


def _read(file: str, content: Any, where: str, source: str) -> Chosen | None:
    if file == "open_clip_config.json":
        return Chosen(*open_clip_model(content, where), where)
    if "architecture" in content:
        count = content.get("num_classes")
        classes = content.get("label_names")
        classes = classes or (content.get("pretrained_cfg") or {}).get("label_names")
        return Chosen(*timm_model(content, where), where, count, _unique(classes))
    if "model_type" in content:
        return _of_transformers(content, where)
    if isinstance(content.get("model"), Mapping) and "name" in content["model"]:
        size = content["data"]["image_size"]
        model = {"dtype": "float32", **content["model"]}
        size = tuple(size) if isinstance(size, list) else size
        classes = beside(source, "classes.json")
        count = len(classes) if classes else None
        return Chosen(*model_arguments(model, size), where, count, _unique(classes))
    return None


def _of_transformers(content: Mapping[str, Any], where: str) -> Chosen:
    """Read transformers' `config.json`; of a pair of towers, the one of images."""
    kind = content["model_type"]
    check_choice(f"model_type of {where}:", kind, TRANSFORMERS)
    read, defaults = TRANSFORMERS[kind]
    tower = kind in ("clip", "siglip")
    f = Fields(content.get("vision_config") or {} if tower else content, where, defaults)
    name, options = read(f)
    if unread := f.unread():
        log.warning("Not read in %s: %s.", where, ", ".join(unread[:12]))
    labels = None if tower else content.get("id2label")
    if labels:
        labels = [str(labels[key]) for key in sorted(labels, key=int)]
    named = labels and not all(label == f"LABEL_{i}" for i, label in enumerate(labels))
    count = len(labels) if labels else content.get("num_labels")
    return Chosen(name, options, where, count, _unique(labels) if named else None)


def _unique(labels: Any) -> tuple[str, ...] | None:
    """Make class names unique: a repeated name gets its number (ImageNet has two cranes).

    Args:
      labels: a list, or None.
    """
    if not labels:
        return None
    names = [str(label) for label in labels]
    first = {name: i for i, name in reversed([*enumerate(names)])}
    return tuple(name if first[name] == i else f"{name} ({i})" for i, name in enumerate(names))


_FREE = (
    "image_size", "num_classes", "dtype", "remat", "scan", "dense", "drop_rate", "attn_drop_rate",
    "drop_path_rate", "param_init", "decay_rules", "representation_size", "layers_of_features",
)  # fmt: skip
"""Options that weights fit with any value."""
_SAID = ("norm_epsilon", "norm_pooled", "window_size", "pretrained_window_size")
"""Options that weights fit with any value, and that change what comes out."""


def compare(name: str, source: str | os.PathLike[str], overrides: Mapping[str, Any]) -> Any:
    """Compare a model that the user names with the config beside its weights.

    Options that the user gives are not compared. What cannot be compared is logged.

    Returns:
      What the config says, or None.

    Raises:
      ValueError: they are different models.
    """
    try:
        found = describe(os.fspath(source))
    except ValueError as error:
        log.warning("%s is not compared with its config: %s", name, error)
        return None
    if found is None:
        return None
    advice = "leave the name out to have what the file says, or choose the weights' own."
    ours, theirs = model_spec(name).factory, model_spec(found.name).factory
    own, other = model_options(name), {**model_options(found.name), **found.options}
    if "backbone" in own and "backbone" not in other:
        return found  # of a classifier, for the backbone; all keys are checked when it is loaded
    if ours is not theirs:
        raise ValueError(
            f"{found.where} says that the weights are those of {found}, and the model "
            f"asked for is {name!r}: {advice}"
        )
    for key, value in own.items():
        if key in _FREE or key in overrides or same(key, value, other[key]):
            continue
        if key == "layer_scale_init" and None not in (value, other[key]):
            continue  # it is in the weights
        if key in _SAID:
            log.warning("%s has %s=%r, and %s says %r.", name, key, value, found.where, other[key])
            continue
        raise ValueError(
            f"{found.where} says that the weights are those of {found}, with {key}={other[key]!r}, "
            f"and {name!r} has {key}={value!r}: {advice}"
        )
    return found


def classes_of(chosen: Chosen | None, model: Any) -> tuple[str, ...] | None:
    """Return the class names of a loaded model, if its config has as many."""
    classes = chosen.classes if chosen else None
    count = getattr(model, "num_classes", None)
    if classes and count and len(classes) != count:
        log.warning(
            "%s names %d classes, and the model has %d: names are left out.",
            chosen.where if chosen else "",
            len(classes),
            count,
        )
    return classes if classes and len(classes) == count else None
