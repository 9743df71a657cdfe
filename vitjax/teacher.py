"""Trained models, another run's or published weights: teachers, and what is evaluated."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array

from vitjax.tasks.classification import normalize
from vitjax.tasks.distillation import TEACHER, Teacher
from vitjax.train import sharding

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""How published weights want their images; a run says so itself."""


def describe(text: str) -> tuple[Teacher, list[str] | None]:
    """`open_trained` without its variables, which are None; no weights are read."""
    from vitjax.models import create_model, from_config
    from vitjax.train.config import read_config

    name, equals, _ = text.partition("=")
    if equals:
        model: Any = create_model(name)
        side = model.image_size if isinstance(model.image_size, int) else model.image_size[0]
        return Teacher(model, None, IMAGENET_MEAN, IMAGENET_STD, side), None
    folder = pathlib.Path(text)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{text!r} is no run's folder: it has no config.json. Give a --workdir that train.py "
            f"was given, or MODEL=SOURCE."
        )
    classes = json.loads((folder / "classes.json").read_text())
    config = read_config(folder / "config.json")
    d = config["data"]
    model = from_config(config["model"], len(classes), d["image_size"])
    seen = {"crop": d.get("eval_crop", 0.875), "interpolation": d.get("interpolation", "area")}
    mean, std = tuple(d["mean"]), tuple(d["std"])
    return Teacher(model, None, mean, std, d["image_size"], **seen), classes


def open_trained(text: str) -> tuple[Teacher, list[str] | None]:
    """A trained model with what its images are like, and its classes' names if it says them.

    Args:
      text: a run's folder, or `MODEL=SOURCE` as `load_pretrained` takes them.

    Raises:
      ValueError: there is no such run, or the weights do not fit.
    """
    trained, classes = describe(text)
    name, equals, source = text.partition("=")
    if equals:
        from vitjax.weights.load import load_pretrained

        return trained._replace(variables=load_pretrained(name, source)[1]), classes
    from vitjax.train.checkpoint import SavedSteps

    _, found = SavedSteps(pathlib.Path(text) / "checkpoints").read()
    variables = {"params": found["ema"] or found["params"], **found["rest"]}
    variables.pop(TEACHER, None)
    return trained._replace(variables=variables), classes


def outline(text: str) -> Teacher | None:
    """A teacher for a plan: zeros, which take no memory, for its variables."""
    if not text:
        return None
    teacher, _ = describe(text)
    image = np.zeros((1, teacher.image_size, teacher.image_size, 3), np.float32)
    shapes: Any = jax.eval_shape(teacher.model.init, jax.random.key(0), image)
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)
    return teacher._replace(variables=zeros)


def open_teacher(text: str, class_names: Sequence[str]) -> Teacher | None:
    """Reads the teacher's variables.

    Args:
      text: as in `open_trained`; empty for none.
      class_names: the student's.

    Raises:
      ValueError: there is no such model, or it has other classes.
    """
    if not text:
        return None
    teacher, classes = open_trained(text)
    count = getattr(teacher.model, "num_classes", None)
    if classes is None and count != len(class_names):
        raise ValueError(
            f"The teacher {text!r} has {count} classes, and the data has {len(class_names)}; "
            f"choose weights with the data's classes."
        )
    if classes is not None and classes != list(class_names):
        raise ValueError(
            f"The teacher {text!r} knows {len(classes)} classes ({', '.join(classes[:5])} …), and "
            f"the data has {len(class_names)} ({', '.join(class_names[:5])} …); they must be the "
            f"same, in the same order."
        )
    return teacher


def place(trained: Teacher, batch_size: int) -> tuple[Any, NamedSharding, int]:
    """Its variables on every device, where batches go, and their size in whole rows a device."""
    mesh = sharding.make_mesh({"data": -1})
    parts = sharding.batch_parts(mesh)
    variables = jax.device_put(trained.variables, sharding.replicated(mesh))
    return variables, sharding.batch_sharding(mesh), -(-batch_size // parts) * parts


def ask(trained: Teacher, variables: Any, images: Array, method: Any = None) -> Array:
    """What it says of uint8 images, in float32.

    Args:
      variables: its own, as they are placed.
      method: of the model, its `__call__` if None.
    """
    pixels = normalize(images, trained.mean, trained.std)
    return jnp.asarray(trained.model.apply(variables, pixels, method=method), jnp.float32)
