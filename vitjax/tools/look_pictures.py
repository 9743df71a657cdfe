"""The papers' pictures of a model, by name."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vitjax.analysis import plots
from vitjax.analysis.attention import Capture, Layer, Query
from vitjax.analysis.attribution import gradcam, gradient_rollout, integrated_gradients
from vitjax.analysis.distance import attention_distances
from vitjax.analysis.filters import filter_components, position_similarity
from vitjax.analysis.layers import compare
from vitjax.analysis.page.pack import kind_of
from vitjax.analysis.receptive_field import effective_receptive_field
from vitjax.analysis.rollout import rollout_on_image
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
    """

    subjects: Sequence[Subject]
    pixels: Any
    layer: str
    query: Query | None
    head: int | None

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
    third = [layer for layer in seen.layers if layer.name.startswith("stage_2/")
             and kind_of(layer.rows) == "regions"]  # fmt: skip
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


def _attribution(method: Callable[..., Any], label: str) -> Callable[[Asked], Any]:
    def picture(asked: Asked) -> Any:
        t, images = asked.subject.trained, asked.subject.normalized(asked.images())
        heat = method(t.model, t.variables, images)[0]
        return plots.plot_heat(asked.image, [heat], [label], label="for the most probable class")

    return picture


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
    "gradcam": _attribution(gradcam, "Grad-CAM"),
    "gradient-rollout": _attribution(gradient_rollout, "gradient-weighted rollout"),
    "integrated-gradients": _attribution(integrated_gradients, "integrated gradients"),
}
TAKES_QUERY = ("rollout", "heads", "depth", "points", "regions", "agents", "outlook")
TAKES_LAYER = ("heads", "points", "regions", "agents", "outlook")
TAKES_NO_IMAGE = ("filters", "positions")


def draw(
    name: str,
    subjects: Sequence[Subject],
    images: Sequence[str],
    *,
    layer: str = "",
    query: Query | None = None,
    head: int | None = None,
) -> Any:
    """Draw one of PICTURES; the result is a figure.

    Raises:
      ValueError: the picture is of something else than what is given, or a file cannot be read.
    """
    for flag, given, names in (
        ("--query", query is not None, TAKES_QUERY), ("--layer", bool(layer), TAKES_LAYER),
        ("--head", head is not None, ("points",)),
        ("An image", bool(images), [n for n in PICTURES if n not in TAKES_NO_IMAGE]),
    ):  # fmt: skip
        if given and name not in names:
            raise ValueError(f"{flag} does not go with --picture {name}; it is for "
                             f"{', '.join(names)}.")  # fmt: skip
    pixels = [subjects[0].read(path) for path in find_images(images)] if images else []
    return PICTURES[name](Asked(subjects, np.array(pixels), layer, query, head))
