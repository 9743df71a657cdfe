"""What models see: the page, the papers' pictures, and the check of what maps are worth."""

import collections
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from vitjax.analysis.attention import Capture, capture
from vitjax.analysis.attribution import gradcam, gradient_rollout, integrated_gradients
from vitjax.analysis.check import RANDOM, Method, Worth, check_methods
from vitjax.analysis.page import Page, make_view
from vitjax.analysis.rollout import rollout_on_image
from vitjax.data.codecs.image import Picture, read_file
from vitjax.data.kinds import Image, encode
from vitjax.data.transforms.augment import evaluation
from vitjax.layers.pixels import normalize_pixels
from vitjax.models import MODELS
from vitjax.runs import Trained, open_run, open_trained, open_untrained, published_weights
from vitjax.tools.image_files import find_images

Size = int | tuple[int, int]


class Subject(NamedTuple):
    """A model that is looked at.

    Attributes:
      name: as it was given.
      trained: the model with its weights and preprocessing.
      note: where the weights come from, in a sentence.
      multi_label: an image may have several classes.
    """

    name: str
    trained: Trained
    note: str
    multi_label: bool = False

    def read(self, path: pathlib.Path) -> UInt8[np.ndarray, "H W c"]:
        """Read an image file as evaluation shows it to the model.

        Raises:
          ValueError: the file cannot be read.
          OSError: likewise.
        """
        t = self.trained
        kinds: Any = {"image": Image(t.image_size, channels=len(t.mean))}
        view = evaluation(t.crop, t.interpolation)
        picture = Picture(read_file(str(path)), str(path), len(t.mean))
        return encode(view({"image": picture}, kinds, None), kinds)["image"]

    def normalized(self, pixels: UInt8[np.ndarray, "B H W c"]) -> Array:
        """Return images as the model reads them."""
        return normalize_pixels(jnp.asarray(pixels), self.trained.mean, self.trained.std)

    def capture(self, pixels: UInt8[np.ndarray, "B H W c"]) -> Capture:
        """Capture the attention to images.

        Raises:
          ValueError: the model has no attention.
        """
        return capture(self.trained.model, self.trained.variables, self.normalized(pixels))


def open_subject(text: str, image_size: Size = 0) -> Subject:
    """Open a model to look at.

    Args:
      text: a run's folder or published weights, as in `open_trained`; or the name of a model, which
        then has random weights.
      image_size: of the images; 0 for the model's own. Trained models keep theirs.

    Raises:
      ValueError: there is no such model.
    """
    folder = pathlib.Path(text)
    if text in MODELS or not (published_weights(text) or folder.exists() or "/" in text):
        trained = open_untrained(text, image_size)
        return Subject(text, trained, "Random weights: nothing was learnt.")
    if image_size:
        raise ValueError(
            f"--image-size is for models named without weights, and {text!r} looks at images of "
            f"the size that it was trained with."
        )
    if published_weights(text):
        trained = open_trained(text)
        return Subject(text, trained, f"Published weights of {trained.name}.")
    run, trained = open_run(folder), open_trained(text)
    note = f"A run of {trained.name}, step {run.checkpoints.read(None)[0]:,}."
    return Subject(text, trained, note, run.info.multi_label)


def make_page(
    subjects: Sequence[Subject], images: Sequence[str], megabytes: float
) -> tuple[Page, list[str]]:
    """Make the page of some models and images; also return the names of the images.

    Raises:
      ValueError: a file cannot be read, or a model has no attention.
    """
    files = find_images(images)
    counts = collections.Counter(path.name for path in files)
    names = [path.name if counts[path.name] == 1 else str(path) for path in files]
    views = []
    for path, name in zip(files, names):
        for subject in subjects:
            pixels = subject.read(path)
            views.append(make_view(
                subject.capture(pixels[None]), pixels, model=subject.name, image=name,
                classes=subject.trained.classes, multi_label=subject.multi_label,
                note=subject.note, megabytes=megabytes,
            ))  # fmt: skip
    return Page(views), names


METHODS: dict[str, Method] = {
    "rollout": lambda model, variables, x: rollout_on_image(capture(model, variables, x)),
    "gradient rollout": gradient_rollout,
    "Grad-CAM": gradcam,
    "LayerCAM": lambda model, variables, x: gradcam(model, variables, x, kind="layercam"),
    "integrated gradients": integrated_gradients,
}
"""Methods that are checked."""


def check(subject: Subject, images: Sequence[str], say: Callable[[str], None]) -> list[Worth]:
    """Measure what the methods' maps are worth for a model.

    Args:
      say: called with a sentence for each method that the model has not.

    Raises:
      ValueError: fewer than two images, a file cannot be read, or the model gives no classes.
    """
    files = find_images(images)
    if len(files) < 2:
        raise ValueError("1 image: an interval over images needs at least 2, better some dozens.")
    pixels = np.stack([subject.read(path) for path in files])
    x, (model, variables) = subject.normalized(pixels), subject.trained[:2]
    found: dict[str, Method] = {}
    for name, method in METHODS.items():
        try:
            found[name] = _once(method, model, variables, x)
        except ValueError as error:
            say(f"{name} is left out: {error}")
    return check_methods(found, model, variables, x)


def _once(method: Method, model: Any, variables: Any, images: Array) -> Method:
    """Apply a method now; the result gives these maps again for the same variables."""
    maps = method(model, variables, images)
    return lambda m, v, x: maps if v is variables else method(m, v, x)


def check_report(found: Sequence[Worth]) -> tuple[list[dict[str, Any]], str]:
    """Return the check's numbers, and a table that marks methods no better than random maps."""
    rows = [("method", "deletion ↓", "insertion ↑", "same by random weights", "")]
    for worth in found:
        same = "" if worth.random_weights is None else _interval(worth.random_weights)
        mark = "" if worth.beats_random or worth.name == RANDOM else "NO BETTER THAN RANDOM"
        rows.append((worth.name, _interval(worth.deletion), _interval(worth.insertion), same, mark))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
    lines.append(
        "Mean [95 % interval] over images. Attention is not an explanation: trust a map "
        "no further than it beats a random one."
    )
    numbers = [
        {
            "method": w.name,
            "deletion": w.deletion._asdict(),
            "insertion": w.insertion._asdict(),
            "random_weights": w.random_weights and w.random_weights._asdict(),
            "beats_random": w.beats_random,
        }
        for w in found
    ]
    return numbers, "\n".join(lines)


def _interval(value: Any) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"
