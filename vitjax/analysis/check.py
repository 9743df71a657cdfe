"""Whether maps of importance say anything of a model: deletion, insertion, random weights.

Attention and gradients are no explanations by themselves. Three measures tell what a map is worth,
each beside a random map and beside an edge detector, which knows the image and not the model:

- Deletion and insertion (Petsiuk et al., arXiv:1806.07421, section 4.2): the class's probability
  while pixels are removed, or brought back, the most important first. The area under the curve of
  deletion is the smaller, and that of insertion the larger, the more the map is worth.
- Random weights (Adebayo et al., arXiv:1810.03292): the rank correlation of the map with that of
  the same model with other, random weights. A map that hardly changes does not show what was
  learnt; an edge detector's is 1.

Intervals are 95 % bootstrap intervals over images.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vitjax.models.protocols import check_output

Method = Callable[[nn.Module, Any, Array], Float[np.ndarray, "B H W"]]
"""A method: from a model, its variables and images to a map of each image."""
RANDOM, EDGES = "random map", "edge detector"


class Interval(NamedTuple):
    """A mean over images, and its 95 % interval."""

    mean: float
    low: float
    high: float


class Worth(NamedTuple):
    """What a method's maps are worth for a model.

    Attributes:
      name: of the method.
      deletion, insertion: areas under the curves, from 0 to 1.
      deletion_curve, insertion_curve: mean probability after each step.
      random_weights: rank correlation with the maps of random weights; None for the random map.
      beats_random: better than the random map in deletion and in insertion, beyond chance.
    """

    name: str
    deletion: Interval
    insertion: Interval
    deletion_curve: Float[np.ndarray, "s"]
    insertion_curve: Float[np.ndarray, "s"]
    random_weights: Interval | None
    beats_random: bool


def check_methods(
    methods: Mapping[str, Method],
    model: nn.Module,
    variables: Any,
    images: Array | np.ndarray,
    *,
    steps: int = 16,
    baseline: float = 0.0,
    seed: int = 0,
) -> list[Worth]:
    """Measure methods, and a random map and an edge detector beside them.

    Args:
      images: as the model reads them; some dozens, so that intervals are narrow.
      steps: parts into which the pixels are divided.
      baseline: what stands where a pixel was removed; 0 is the mean colour of normalised images.
      seed: of the random maps, the random weights and the bootstrap.

    Raises:
      ValueError: the model gives no classes, or there are fewer than two images.
    """
    check_output(type(model).__name__, model, "the check", "classes", "a classifier")
    images = jnp.asarray(images)
    if len(images) < 2:
        raise ValueError(f"{len(images)} image: an interval over images needs at least 2.")
    rng = np.random.default_rng(seed)
    other = jax.jit(model.init)(jax.random.key(seed), images[:1])
    noise = rng.random((2, *images.shape[:3]), np.float32)
    edges = edge_map(np.asarray(images))
    maps = {name: method(model, variables, images) for name, method in methods.items()}
    pairs = {name: (m, methods[name](model, other, images)) for name, m in maps.items()}
    pairs |= {RANDOM: (noise[0], noise[1]), EDGES: (edges, edges)}
    classes = jnp.argmax(jax.jit(model.apply)(variables, images), axis=-1)
    pick = rng.integers(len(images), size=(1000, len(images)))
    curves = {
        name: [
            _curve(model, variables, images, classes, heat, steps, baseline, back)
            for back in (False, True)
        ]
        for name, (heat, _) in pairs.items()
    }
    areas = {name: [_area(curve) for curve in both] for name, both in curves.items()}
    found = []
    for name, (deletion, insertion) in areas.items():
        gain = [areas[RANDOM][0] - deletion, insertion - areas[RANDOM][1]]
        same = None if name == RANDOM else _interval(rank_correlation(*pairs[name]), pick)
        beats = name != RANDOM and all(_interval(g, pick).low > 0 for g in gain)
        removed, back = (curve.mean(axis=0) for curve in curves[name])
        areas_of = _interval(deletion, pick), _interval(insertion, pick)
        found.append(Worth(name, *areas_of, removed, back, same, beats))
    return found


def edge_map(images: Float[np.ndarray, "B H W c"]) -> Float[np.ndarray, "B H W"]:
    """Compute the length of each pixel's gradient of brightness, by central differences."""
    gray = np.pad(images.mean(axis=-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = (gray[:, 2:, 1:-1] - gray[:, :-2, 1:-1]) / 2
    right = (gray[:, 1:-1, 2:] - gray[:, 1:-1, :-2]) / 2
    return np.hypot(down, right).astype(np.float32)


def rank_correlation(
    first: Float[np.ndarray, "B H W"], second: Float[np.ndarray, "B H W"]
) -> Float[np.ndarray, "B"]:
    """Compute Spearman's rank correlation of two maps of each image; 0 if one is constant."""

    def ranks(maps: np.ndarray) -> np.ndarray:
        out = np.empty((len(maps), maps[0].size))
        for row, values in zip(out, maps.reshape(len(maps), -1)):
            _, place, count = np.unique(values, return_inverse=True, return_counts=True)
            row[:] = (np.cumsum(count) - (count - 1) / 2)[place]  # ties have their mean rank
        return out - out.mean(axis=1, keepdims=True)

    a, b = ranks(first), ranks(second)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)


def _interval(values: Float[np.ndarray, "B"], pick: Int[np.ndarray, "n B"]) -> Interval:
    low, high = np.quantile(values[pick].mean(axis=1), (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))


def _area(curves: Float[np.ndarray, "B s"]) -> Float[np.ndarray, "B"]:
    """Compute the area under each curve over [0, 1], by trapezoids."""
    return (curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2


def _curve(
    model: nn.Module,
    variables: Any,
    images: Array,
    classes: Array,
    heat: Float[np.ndarray, "B H W"],
    steps: int,
    baseline: float,
    back: bool,
) -> Float[np.ndarray, "B s"]:
    """Compute the probability of each image's class after each step, the first of them 0 pixels."""
    order = np.argsort(-heat.reshape(len(heat), -1), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable").reshape(heat.shape)
    shares = jnp.linspace(0, 1, steps + 1)
    limits = shares * rank[0].size
    empty = jnp.asarray(baseline, images.dtype)
    curve = _probabilities(model, variables, images, classes, rank, limits, empty, back)
    return np.asarray(curve, np.float64)


@functools.partial(jax.jit, static_argnums=(0, 7))
def _probabilities(
    model: nn.Module,
    variables: Any,
    images: Array,
    classes: Array,
    rank: Array,
    limits: Array,
    baseline: Array,
    back: bool,
) -> Float[Array, "B s"]:
    def one(limit: Array) -> Array:
        first = (rank < limit)[..., None]
        x = jnp.where(first == back, images, baseline)
        logits: Any = model.apply(variables, x)
        return jnp.take_along_axis(jax.nn.softmax(logits), classes[:, None], axis=1)[:, 0]

    return jax.lax.map(one, limits).T
