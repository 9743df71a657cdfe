"""The papers' pictures of a model, by name."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from vitjax.analysis import plots
from vitjax.analysis.attention import Capture, Layer, Query, paint
from vitjax.analysis.attribution import gradcam, gradient_rollout, integrated_gradients
from vitjax.analysis.distance import attention_distances
from vitjax.analysis.filters import filter_components, position_similarity
from vitjax.analysis.layers import compare, logit_lens
from vitjax.analysis.page.pack import kind_of
from vitjax.analysis.receptive_field import effective_receptive_field
from vitjax.analysis.rollout import rollout_on_image
from vitjax.names import unknown
from vitjax.tools.image_files import find_images
from vitjax.tools.look import Subject


class Asked(NamedTuple):
    """What a picture is of.

    Attributes:
      subjects: one model, or two to compare.
      pixels: images as the first model is shown them.
      layer: name of a layer; empty for the picture's own choice.
      query: None for the picture's own choice.
      head: None for all.
      label: name or number of a class; empty for the most probable one.
    """

    subjects: Sequence[Subject]
    pixels: Any
    layer: str
    query: Query | None
    head: int | None
    label: str

    @property
    def subject(self) -> Subject:
        """The model, or the first of two."""
        return self.subjects[0]

    @property
    def image(self) -> Float[np.ndarray, "H W c"]:
        """The only image, with pixels from 0 to 1."""
        if len(self.images()) != 1:
            raise ValueError(f"This picture is of one image, and {len(self.pixels)} are given.")
        return self.pixels[0].astype(np.float32) / 255

    def capture(self) -> Capture:
        """Capture the attention of the model to the images."""
        return self.subject.capture(self.images())

    def images(self) -> Any:
        """Return the images.

        Raises:
          ValueError: there are none.
        """
        if not len(self.pixels):
            raise ValueError("This picture needs an image: name its file.")
        return self.pixels

    def layer_of(self, seen: Capture, kind: str = "") -> Layer:
        """Return the layer that was named, or the last whose keys are of this kind."""
        if self.layer:
            return seen[self.layer]
        found = [layer for layer in seen.layers if not kind or kind_of(layer.rows) == kind]
        if not found:
            raise ValueError(
                f"No layer of {self.subject.name!r} attends to {kind}; name a --layer, or choose "
                f"another picture."
            )
        return found[-1]

    def chosen(self) -> int | None:
        """Return the number of the class that was named; None for the most probable.

        Raises:
          ValueError: there is no such class.
        """
        if not self.label:
            return None
        own: Any = self.subject.trained
        numbers = [str(i) for i in range(getattr(own.model, "num_classes", 0))]
        names = list(own.classes or numbers)
        if self.label not in (*names, *numbers):
            raise ValueError(unknown("class", self.label, names))
        return (names if self.label in names else numbers).index(self.label)

    def of_class(self) -> str:
        """Return words for the class."""
        return f"class {self.label}" if self.label else "the most probable class"

    def place(self) -> Query:
        """Return the query, the middle of the image if none was given."""
        height, width = self.pixels.shape[1:3]
        return (height // 2, width // 2) if self.query is None else self.query


def _rollout(asked: Asked) -> Any:
    heat = rollout_on_image(asked.capture(), asked.query)[0]
    return plots.plot_rollout(asked.image, heat)


def _heads(asked: Asked) -> Any:
    return plots.plot_heads(asked.image, asked.layer_of(asked.capture()), asked.place())


def _depth(asked: Asked) -> Any:
    return plots.plot_depth(asked.image, asked.capture(), asked.place())


def _points(asked: Asked) -> Any:
    layer = asked.layer_of(asked.capture(), "points")
    return plots.plot_points(asked.image, layer, asked.place(), head=asked.head)


def _regions(asked: Asked) -> Any:
    seen = asked.capture()
    third = [
        layer
        for layer in seen.layers
        if layer.name.startswith("stage_2/") and kind_of(layer.rows) == "regions"
    ]
    layer = third[-1] if third and not asked.layer else asked.layer_of(seen, "regions")
    return plots.plot_routes(asked.image, layer, asked.place())


def _agents(asked: Asked) -> Any:
    layer = asked.layer_of(asked.capture(), "agents")
    return plots.plot_agents(asked.image, layer, asked.place())


def _near(asked: Asked) -> Any:
    layer = asked.layer_of(asked.capture(), "regions")
    return plots.plot_near(layer, asked.place())


def _filters(asked: Asked) -> Any:
    return plots.plot_filters(filter_components(asked.subject.trained.variables))


def _positions(asked: Asked) -> Any:
    return plots.plot_positions(
        position_similarity(asked.subject.trained.model, asked.subject.trained.variables)
    )


def _field(asked: Asked) -> Any:
    t, images = asked.subject.trained, asked.subject.normalized(asked.images())
    return plots.plot_field(effective_receptive_field(t.model, t.variables, images))


def _similarity(asked: Asked) -> Any:
    first, second = asked.subjects[0], asked.subjects[-1]
    pair = [(s.trained.model, s.trained.variables) for s in (first, second)]
    images = first.normalized(asked.images())
    return plots.plot_similarity(compare(pair[0], pair[1], [images]))


def _attribution(method: Callable[..., Any], title: str, **options: str) -> Callable[[Asked], Any]:
    def picture(asked: Asked) -> Any:
        t, images = asked.subject.trained, asked.subject.normalized(asked.images())
        number, layer = asked.chosen(), {"layer": asked.layer} if asked.layer else {}
        classes = None if number is None else np.full(len(images), number)
        heat = method(t.model, t.variables, images, classes, **options, **layer)[0]
        name = f"{title}, {asked.layer}" if asked.layer else title
        return plots.plot_heat(asked.image, [heat], [name], label=f"for {asked.of_class()}")

    return picture


def _lens(asked: Asked) -> Any:
    t, image = asked.subject.trained, asked.image
    images = asked.subject.normalized(asked.images())
    found, number = logit_lens(t.model, t.variables, images), asked.chosen()
    if number is None:
        number = int(np.argmax(t.model.apply(t.variables, images)[0]))
    odds = [np.asarray(jax.nn.softmax(lens.patches[0]))[..., number] for lens in found]
    maps = [paint(m, lens.stride, image.shape[:2]) for m, lens in zip(odds, found)]
    label = f"probability of {asked.of_class()}"
    return plots.plot_heat(image, maps, [lens.name for lens in found], label=label)


PICTURES: dict[str, Callable[[Asked], Any]] = {
    "rollout": _rollout,
    "heads": _heads,
    "depth": _depth,
    "distances": lambda asked: plots.plot_distances(attention_distances(asked.capture())),
    "points": _points,
    "regions": _regions,
    "agents": _agents,
    "outlook": _near,
    "filters": _filters,
    "positions": _positions,
    "field": _field,
    "similarity": _similarity,
    "lens": _lens,
    "gradcam": _attribution(gradcam, "Grad-CAM"),
    "layercam": _attribution(gradcam, "LayerCAM", kind="layercam"),
    "gradient-rollout": _attribution(gradient_rollout, "gradient-weighted rollout"),
    "integrated-gradients": _attribution(integrated_gradients, "integrated gradients"),
}
TAKES_QUERY = ("rollout", "heads", "depth", "points", "regions", "agents", "outlook")
TAKES_LAYER = ("heads", "points", "regions", "agents", "outlook", "gradcam", "layercam")
TAKES_CLASS = ("lens", "gradcam", "layercam", "gradient-rollout", "integrated-gradients")
TAKES_NO_IMAGE = ("filters", "positions")


def draw(
    name: str,
    subjects: Sequence[Subject],
    images: Sequence[str],
    *,
    layer: str = "",
    query: Query | None = None,
    head: int | None = None,
    label: str = "",
) -> Any:
    """Draw one of PICTURES; the result is a figure.

    Raises:
      ValueError: the picture is of something else than what is given, or a file cannot be read.
    """
    for flag, given, names in (
        ("--query", query is not None, TAKES_QUERY),
        ("--layer", bool(layer), TAKES_LAYER),
        ("--head", head is not None, ("points",)),
        ("--class", bool(label), TAKES_CLASS),
        ("An image", bool(images), [n for n in PICTURES if n not in TAKES_NO_IMAGE]),
    ):
        if given and name not in names:
            raise ValueError(
                f"{flag} does not go with --picture {name}; it is for {', '.join(names)}."
            )
    pixels = [subjects[0].read(path) for path in find_images(images)] if images else []
    return PICTURES[name](Asked(subjects, np.array(pixels), layer, query, head, label))
