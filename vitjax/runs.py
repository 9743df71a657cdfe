"""Trained runs and published weights, for fine-tuning, prediction and distillation."""

import json
import logging
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array

from vitjax.abstract import abstract_init
from vitjax.data.source import DataInfo
from vitjax.data.transforms.crops import height_and_width
from vitjax.layers.pixels import normalize_pixels
from vitjax.layers.spec import fields
from vitjax.models import (
    create_model,
    model_arguments,
    model_spec,
    preprocessing_of,
)
from vitjax.models.preprocessing import Preprocessing
from vitjax.models.protocols import input_shape
from vitjax.train import sharding
from vitjax.train.checkpoint import SavedSteps
from vitjax.train.config import read, read_run_config
from vitjax.train.defaults import RunConfig

log = logging.getLogger(__name__)

IMAGENET = 1000
"""Its classes: published weights have them in the order of WordNet ids, and may name them in words.
"""


class Run(NamedTuple):
    """Work folder of a run.

    Attributes:
      config: fields of runs of all tasks; fields that are newer than the run have their defaults.
      said: config as stored, with the task's sections; see `tasks.read_config`.
      info: info of the training data.
    """

    folder: pathlib.Path
    config: RunConfig
    said: Mapping[str, Any]
    info: DataInfo
    checkpoints: SavedSteps

    def variables(self, step: int | None = None) -> tuple[int, dict[str, Any]]:
        """Read the variables to evaluate, the averages if there are any; see `SavedSteps.read`."""
        step, found = self.checkpoints.read(step)
        return step, {"params": found["ema"] or found["params"], **found["collections"]}


class Trained(NamedTuple):
    """Trained model, and the preprocessing of its images.

    Attributes:
      model: images → logits.
      variables: parameters and other collections.
      mean, std: normalisation, one value for each channel.
      image_size: size of the training images: a side, or rows and columns.
      crop, interpolation: preprocessing of evaluation, see `pipeline.eval_batches`.
      classes: class names, if they are known.
      name, options: arguments of `create_model`.
    """

    model: nn.Module
    variables: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | tuple[int, int]
    crop: float = 0.875
    interpolation: str = "bicubic"
    classes: tuple[str, ...] | None = None
    name: str = ""
    options: Mapping[str, Any] = types.MappingProxyType({})


def open_run(folder: pathlib.Path | str) -> Run:
    """Open a run's work folder for reading.

    Raises:
      ValueError: the folder holds no run.
    """
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder!s} is no run's folder: it has no config.json. Give the --workdir that a "
            f"training was given."
        )
    said = read_run_config(path)
    classes = tuple(json.loads((folder / "classes.json").read_text()))
    data = folder / "data.json"
    facts = json.loads(data.read_text()).get("training", {}) if data.is_file() else {}
    info = DataInfo(
        classes, facts.get("fingerprint", ""), multi_label=facts.get("multi_label", False)
    )
    return Run(folder, read(RunConfig, said), said, info, SavedSteps(folder / "checkpoints"))


def open_untrained(name: str, image_size: int | tuple[int, int] = 0) -> Trained:
    """Build a model of the menu with random weights, and its family's preprocessing.

    Args:
      name: as in `create_model`.
      image_size: of the images; 0 for the model's own.

    Raises:
      ValueError: the model is unknown.
    """
    shown = _sized_preprocessing(preprocessing_of(name), image_size)
    size = image_size or shown.image_size
    assert size, f"{name} has no image size"
    takes_size = "image_size" in fields(model_spec(name).factory)
    options: dict[str, Any] = {"image_size": size} if takes_size else {}
    model = create_model(name, **options)
    image = jnp.zeros(input_shape(model, size, len(shown.mean)))
    variables = jax.jit(model.init)(jax.random.key(0), image)
    return Trained(
        model, variables, shown.mean, shown.std, size, shown.crop, shown.interpolation, None, name,
        options,
    )  # fmt: skip


def _sized_preprocessing(shown: Preprocessing, image_size: int | tuple[int, int]) -> Preprocessing:
    """Return the preprocessing at an image size; that which is stated if it is 0."""
    return shown.at(min(height_and_width(image_size))) if image_size else shown


def open_trained(text: str, *, abstract: bool = False) -> Trained:
    """Open a trained model with the preprocessing of its images.

    Args:
      text: a run's folder, or published weights: `MODEL=SOURCE` as in `load_pretrained`, or the
        source alone, `hf://owner/repo` or a path, whose config chooses the model.
      abstract: read no weights; the variables are None.

    Raises:
      ValueError: there is no such run, or the weights do not fit.
    """
    if published := published_weights(text):
        return _open_published(*published, abstract)
    if not (pathlib.Path(text) / "config.json").is_file():
        raise no_model(text)
    run = open_run(text)
    d = run.config.data
    name, options = model_arguments(run.config.model, d.image_size)
    model = create_model(name, len(run.info.classes), **options)
    variables = None if abstract else run.variables()[1]
    return Trained(
        model, variables, tuple(d.mean), tuple(d.std), d.image_size, d.eval_crop, d.interpolation,
        run.info.classes, name, options,
    )  # fmt: skip


def no_model(text: str) -> ValueError:
    """Build the error for a text that names neither a run nor weights."""
    return ValueError(
        f"{text!r} is no run's folder: it has no config.json. Give a --workdir that a training "
        f"was given, MODEL=SOURCE, or weights with a config (hf://owner/repo, or a path)."
    )


def published_weights(text: str) -> tuple[str, str] | None:
    """Parse the name of published weights, as in `open_trained`, to model and source.

    The model is "" if the config chooses it. The result is None for a run's folder, or for a text
    that names neither.
    """
    path = pathlib.Path(text).expanduser()
    if text.startswith("hf://") or path.is_file():
        return "", text
    if path.is_dir():
        others = (path / file for file in ("config.json", "open_clip_config.json"))
        found = next((file for file in others if file.is_file()), None)
        return ("", text) if found and not _of_run(found) else None
    name, equals, source = text.partition("=")
    return (name, source) if equals else None


def _of_run(config: pathlib.Path) -> bool:
    """Return whether a config.json is that of a run, which has a model and data."""
    try:
        content = json.loads(config.read_text())
    except ValueError:
        return True  # to be opened as one, which says what is wrong
    return {"model", "data"} <= set(content)


def _open_published(name: str, source: str, abstract: bool) -> Trained:
    """Open published weights with the image size and normalisation of their training.

    Args:
      name: name of the model; empty to take that of the config beside the weights.
    """
    chosen, options = None, {}
    if not name:
        from vitjax.weights import configs  # only such a run pays for it

        chosen = configs.choose(source)
        name, options = chosen.name, chosen.options

    def sized(shown: Preprocessing) -> dict[str, Any]:
        # Windows depend on the size, and positions are interpolated once.
        takes_size = "image_size" in fields(model_spec(name).factory)
        return {**options, "image_size": shown.image_size} if takes_size else options

    def trained(model: nn.Module, variables: Any, shown: Preprocessing) -> Trained:
        size = shown.image_size
        assert size, f"{name} has no image size"
        classes = None
        if chosen:
            from vitjax.weights import configs

            classes = configs.classes_of(chosen, model)
        return Trained(
            model, variables, shown.mean, shown.std, size, shown.crop, shown.interpolation,
            classes, name, sized(shown),
        )  # fmt: skip

    if abstract and not chosen:
        shown = preprocessing_of(name)
        return trained(create_model(name, **sized(shown)), None, shown)
    from vitjax.weights import configs, files, load  # only such a run pays for it
    from vitjax.weights.preprocessing import published_preprocessing

    if abstract:
        assert chosen
        shown = published_preprocessing(name, source, options=options)
        return trained(create_model(name, chosen.num_classes, **sized(shown)), None, shown)
    arrays = files.read(source)
    chosen = chosen or configs.compare(name, source, {})
    shown = published_preprocessing(name, source, arrays, options)
    return trained(*load.load_arrays(name, arrays, source, **sized(shown)), shown)


def published_pixels(name: str, source: str) -> Preprocessing:
    """Find the preprocessing of images for a model that starts from these weights.

    If `source` is empty, or the weights are not available, as in a plan, it is that of the model's
    family.
    """
    if not source:
        return preprocessing_of(name)
    from vitjax.weights import files  # only such a run pays for it
    from vitjax.weights.preprocessing import published_preprocessing

    try:
        return published_preprocessing(name, source, files.read(source))
    except (FileNotFoundError, ImportError) as error:
        found = preprocessing_of(name)
        log.warning("%s Images are taken to be those of %s: %s.", error, name, found)
        return found


def load_weights(config: RunConfig, source: str, num_classes: int) -> Any:
    """Load the weights named by `config.init` for the model of a run's config.

    Args:
      source: as in `load_pretrained`.
      num_classes: number of classes of the run's data; a head of other classes is initialised anew.
        A first convolution of other channels is adapted.
    """
    from vitjax.weights import files, load  # only such a run pays for it
    from vitjax.weights.preprocessing import published_preprocessing

    name, options = model_arguments(config.model, config.data.image_size)
    arrays, d = files.read(source), config.data
    if "backbone" not in options:
        shown = published_preprocessing(name, source, arrays)
        if (shown.mean, shown.std) != (tuple(d.mean), tuple(d.std)):
            log.warning(
                "The pretrained weights expect mean %s and std %s, and this run's images have %s "
                "and %s; '--config.data.mean=()' '--config.data.std=()' use those of the weights.",
                shown.mean,
                shown.std,
                tuple(d.mean),
                tuple(d.std),
            )
    return load.load_arrays(name, arrays, source, num_classes, channels=d.channels, **options)[1]


def abstract_teacher(text: str) -> Trained | None:
    """Build a teacher for a plan, with shapes for its variables.

    Args:
      text: as in `open_trained`; empty for none.
    """
    if not text:
        return None
    teacher = open_trained(text, abstract=True)
    shape = input_shape(teacher.model, teacher.image_size, len(teacher.mean))
    image = np.zeros(shape, np.float32)
    shapes: Any = abstract_init(teacher.model.init, jax.random.key(0), image)
    return teacher._replace(variables=shapes)


def open_teacher(text: str, class_names: Sequence[str]) -> Trained | None:
    """Open a teacher, whose classes must be the student's.

    Args:
      text: as in `open_trained`; empty for none.
      class_names: class names of the student.

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
    imagenet = count == len(class_names) == IMAGENET and published_weights(text)
    if classes is not None and imagenet and classes != tuple(class_names):
        log.warning("The teacher's classes are matched by number: ImageNet's have several names.")
    elif classes is not None and classes != tuple(class_names):
        raise ValueError(
            f"The teacher {text!r} knows {len(classes)} classes ({', '.join(classes[:5])} …), and "
            f"the data has {len(class_names)} ({', '.join(class_names[:5])} …); they must be the "
            f"same, in the same order."
        )
    return teacher


def replicate(trained: Trained, batch_size: int) -> tuple[Any, NamedSharding, int]:
    """Replicate the variables of a trained model on every device.

    Returns:
      The variables, the sharding of batches, and the batch size, rounded up to a multiple of the
      devices.
    """
    mesh = sharding.make_mesh()
    parts = sharding.batch_parts(mesh)
    variables = jax.device_put(trained.variables, sharding.replicated(mesh))
    return variables, sharding.batch_sharding(mesh), -(-batch_size // parts) * parts


def forward(trained: Trained, variables: Any, images: Array, method: Any = None) -> Array:
    """Apply a trained model to 8-bit images; the result is float32.

    Args:
      variables: variables of the model, as `replicate` places them.
      method: method of the model, `__call__` if None.
    """
    pixels = normalize_pixels(images, trained.mean, trained.std)
    return jnp.asarray(trained.model.apply(variables, pixels, method=method), jnp.float32)
