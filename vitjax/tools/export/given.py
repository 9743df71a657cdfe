"""Source of an export: a trained model with its name, options and facts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax import __version__
from vitjax.layers.resize import resize
from vitjax.models import model_arguments
from vitjax.runs import Trained, forward, open_run, open_trained, published_weights


class Given(NamedTuple):
    """Model that is exported.

    Attributes:
      source: what the user named it by.
      name, options: of `create_model`.
      trained: the model, opened.
      facts: of its run: data, step, what was measured there; empty for published weights.
    """

    source: str
    name: str
    options: dict[str, Any]
    trained: Trained
    facts: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images."""
        size: Any = self.trained.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return len(self.trained.mean)

    @property
    def gives(self) -> str:
        """Kind of its output: "classes", "features", "map" or "image"."""
        model: Any = self.trained.model
        given = getattr(model, "output", "classes")
        return given if given != "classes" or getattr(model, "num_classes", 0) else "features"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes, or their numbers where it does not say them."""
        count = getattr(self.trained.model, "num_classes", 0) or 0
        return self.trained.classes or tuple(map(str, range(count)))

    def images(self, batch: Any) -> jax.ShapeDtypeStruct:
        """Return shape and dtype of a batch, whose size may be symbolic."""
        return jax.ShapeDtypeStruct((batch, *self.size, self.channels), jnp.uint8)


def open_given(text: str) -> Given:
    """Open a model with its name, its options and what its run measured.

    Args:
      text: a run's folder, or published weights as `open_trained` takes them.

    Raises:
      ValueError: as `open_trained`; or the model is a detector.
    """
    trained = open_trained(text)
    if getattr(trained.model, "output", "") == "boxes":
        raise ValueError(
            f"{trained.name!r} gives boxes of objects, and classifiers, segmentation and "
            f"restoration are exported; use it by vitjax.load_pretrained and method='detect'."
        )
    if published_weights(text):
        return Given(text, trained.name, dict(trained.options), trained, {})
    run = open_run(text)
    name, options = model_arguments(run.config.model, run.config.data.image_size)
    step = run.checkpoints.read()[0]
    facts = {
        "task": run.config.task,
        "data": run.config.data.train,
        "fingerprint": run.info.fingerprint,
        "step": step,
        "metrics": run.checkpoints.metrics(step),
    }
    return Given(text, name, options, trained, facts)


def program(given: Given) -> Callable[[Array], Float[Array, "B *S"]]:
    """Build the function from 8-bit images `[B, H, W, c]` to the model's output.

    The output is logits `[B, K]` or features `[B, C]`, logits of each pixel `[B, H, W, K]`, or
    images `[B, H, W, c]` in 0 to 1.
    """
    trained, gives = given.trained, given.gives
    if gives == "image":  # such models see 0 to 1
        zeros, ones = (0.0,) * given.channels, (1.0,) * given.channels
        trained = trained._replace(mean=zeros, std=ones)
    align = bool(getattr(trained.model, "align_corners", False))

    def run(images: Array) -> Array:
        found = forward(trained, trained.variables, images)
        if gives == "map":
            return resize(found, given.size, align)
        return jnp.clip(found, 0, 1) if gives == "image" else found

    return run


def preprocessing(given: Given) -> dict[str, Any]:
    """Describe how an image becomes the model's input.

    Segmentation reads the whole image, whatever its proportions; restoration keeps each pixel.
    """
    t = given.trained
    crop = {"map": 0.0, "image": None}.get(given.gives, t.crop)
    return {
        "size": list(given.size),
        "crop": crop,
        "interpolation": None if crop is None else t.interpolation,
        "mean": list(t.mean),
        "std": list(t.std),
    }


def description(given: Given, output: str) -> dict[str, Any]:
    """Describe an artefact, for its metadata.

    Args:
      output: name of the result.
    """
    height, width = given.size
    return {
        "model": given.name,
        "input": {"dtype": "uint8", "shape": ["batch", height, width, given.channels]},
        "output": {"name": output, "dtype": "float32", "gives": given.gives},
        "preprocessing": {**preprocessing(given), "normalisation": "inside the model"},
        "classes": list(given.classes),
        "trained": given.facts,
        "vitjax": __version__,
    }


def refuse_dense(given: Given, to: str) -> None:
    """Refuse a model that does not classify.

    Raises:
      ValueError: so it is.
    """
    if given.gives in ("map", "image"):
        raise ValueError(
            f"{given.name!r} gives {'a class' if given.gives == 'map' else 'a colour'} for each "
            f"pixel, and --to {to} has classifiers alone; give --to stablehlo or onnx."
        )
