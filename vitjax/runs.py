"""Trained runs and published weights, opened: to go on from, to ask, to learn from."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array
from ml_collections import ConfigDict

from vitjax.data.source import DataInfo
from vitjax.layers.pixels import normalize_pixels
from vitjax.models import create_model, from_config
from vitjax.train import sharding
from vitjax.train.checkpoint import SavedSteps
from vitjax.train.config import DEFAULTS, read_run_config

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""How published weights want their images; a run says so itself."""


class Run(NamedTuple):
    """A run's work folder.

    Attributes:
      config: resolved; fields that are newer than the run have their defaults.
      info: of its training data.
    """

    folder: pathlib.Path
    config: Any
    info: DataInfo
    checkpoints: SavedSteps

    def variables(self, step: int | None = None) -> tuple[int, dict[str, Any]]:
        """Read what to evaluate, the averages if there are any; see `SavedSteps.read`."""
        step, found = self.checkpoints.read(step)
        return step, {"params": found["ema"] or found["params"], **found["collections"]}


class Trained(NamedTuple):
    """A trained model and how it wants its images.

    Attributes:
      model: images → logits.
      variables: its parameters and the rest.
      mean, std: its normalisation.
      image_size: side of the images that it was trained with.
      crop, interpolation: how it was evaluated, see `pipeline.eval_batches`.
      classes: their names, if it says them.
    """

    model: nn.Module
    variables: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    crop: float = 0.875
    interpolation: str = "bicubic"
    classes: tuple[str, ...] | None = None


def open_run(folder: pathlib.Path | str) -> Run:
    """Open a run's work folder, for reading.

    Raises:
      ValueError: it is none.
    """
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder!s} is no run's folder: it has no config.json. Give the --workdir that a "
            f"training was given."
        )
    config = ConfigDict(DEFAULTS)
    config.update(ConfigDict(read_run_config(path)))
    classes = tuple(json.loads((folder / "classes.json").read_text()))
    data = folder / "data.json"
    facts = json.loads(data.read_text()).get("training", {}) if data.is_file() else {}
    info = DataInfo(
        classes, facts.get("fingerprint", ""), multi_label=facts.get("multi_label", False)
    )
    return Run(folder, config, info, SavedSteps(folder / "checkpoints"))


def open_trained(text: str, *, abstract: bool = False) -> Trained:
    """Open a trained model with what its images are like.

    Args:
      text: a run's folder, or `MODEL=SOURCE` as `load_pretrained` takes them.
      abstract: read no weights; the variables are None.

    Raises:
      ValueError: there is no such run, or the weights do not fit.
    """
    name, equals, source = text.partition("=")
    if equals:
        model: Any = create_model(name)
        side = model.image_size if isinstance(model.image_size, int) else model.image_size[0]
        trained = Trained(model, None, IMAGENET_MEAN, IMAGENET_STD, side)
        if abstract:
            return trained
        from vitjax.weights.load import load_pretrained  # only such a run pays for it

        return trained._replace(variables=load_pretrained(name, source)[1])
    if not (pathlib.Path(text) / "config.json").is_file():
        raise ValueError(
            f"{text!r} is no run's folder: it has no config.json. Give a --workdir that a training "
            f"was given, or MODEL=SOURCE."
        )
    run = open_run(text)
    d = run.config.data
    model = from_config(run.config.model.to_dict(), len(run.info.classes), d.image_size)
    variables = None if abstract else run.variables()[1]
    return Trained(
        model, variables, tuple(d.mean), tuple(d.std), d.image_size, d.eval_crop, d.interpolation,
        run.info.classes,
    )  # fmt: skip


def abstract_teacher(text: str) -> Trained | None:
    """Give a teacher for a plan: shapes for its variables.

    Args:
      text: as in `open_trained`; empty for none.
    """
    if not text:
        return None
    teacher = open_trained(text, abstract=True)
    image = np.zeros((1, teacher.image_size, teacher.image_size, 3), np.float32)
    shapes: Any = jax.eval_shape(teacher.model.init, jax.random.key(0), image)
    return teacher._replace(variables=shapes)


def open_teacher(text: str, class_names: Sequence[str]) -> Trained | None:
    """Open a teacher, whose classes must be the student's.

    Args:
      text: as in `open_trained`; empty for none.
      class_names: the student's.

    Raises:
      ValueError: there is no such model, or it has other classes.
    """
    if not text:
        return None
    teacher = open_trained(text)
    classes, count = teacher.classes, getattr(teacher.model, "num_classes", None)
    if classes is None and count != len(class_names):
        raise ValueError(
            f"The teacher {text!r} has {count} classes, and the data has {len(class_names)}; "
            f"choose weights with the data's classes."
        )
    if classes is not None and classes != tuple(class_names):
        raise ValueError(
            f"The teacher {text!r} knows {len(classes)} classes ({', '.join(classes[:5])} …), and "
            f"the data has {len(class_names)} ({', '.join(class_names[:5])} …); they must be the "
            f"same, in the same order."
        )
    return teacher


def replicate(trained: Trained, batch_size: int) -> tuple[Any, NamedSharding, int]:
    """Put its variables on every device.

    Returns:
      They, where batches go, and the batch size in whole rows a device.
    """
    mesh = sharding.make_mesh({"data": -1})
    parts = sharding.batch_parts(mesh)
    variables = jax.device_put(trained.variables, sharding.replicated(mesh))
    return variables, sharding.batch_sharding(mesh), -(-batch_size // parts) * parts


def forward(trained: Trained, variables: Any, images: Array, method: Any = None) -> Array:
    """Apply a trained model to 8-bit images; the result is float32.

    Args:
      variables: its own, as they are placed.
      method: of the model, its `__call__` if None.
    """
    pixels = normalize_pixels(images, trained.mean, trained.std)
    return jnp.asarray(trained.model.apply(variables, pixels, method=method), jnp.float32)
