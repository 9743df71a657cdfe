"""Which places of an image speak for a class: Grad-CAM, gradient-weighted rollout, integrated
gradients.

Grad-CAM is Selvaraju et al.'s (arXiv:1610.02391, eq. 1 and 2), LayerCAM Jiang et al.'s
(10.1109/TIP.2021.3089943, eq. 5), gradient-weighted rollout Chefer et al.'s (arXiv:2103.15679,
eq. 5 and 6), integrated gradients Sundararajan et al.'s (arXiv:1703.01365, eq. 3).

All take a model's images as it reads them, and a class for each image; None is the class of the
largest logit. Whether such a map says anything of this model, `vitjax.analysis.check` measures.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vitjax.analysis.attention import (
    Calls,
    Capture,
    Places,
    make_layers,
    note_calls,
    paint,
    unrolled,
)
from vitjax.analysis.rollout import pull_back
from vitjax.attention.rows import GivesRows
from vitjax.models.protocols import check_output
from vitjax.names import unknown

Classes = Int[Array | np.ndarray, "B"] | None


class Target(NamedTuple):
    """Where a model's map of features is read.

    Attributes:
      path: of the module.
      of_input: the map is the module's input, and not its result.
    """

    path: tuple[str, ...]
    of_input: bool


def gradcam(
    model: nn.Module,
    variables: Any,
    images: Array | np.ndarray,
    classes: Classes = None,
    *,
    layer: str | None = None,
    kind: str = "gradcam",
) -> Float[np.ndarray, "B H W"]:
    """Compute Grad-CAM: features weighed by the mean gradient of their channel, where positive.

    Args:
      layer: path of the module whose result is read; None for the last map that the logits are
        made of: where the head reads a class token, what the last attention reads.
      kind: "layercam" weighs each position by its own gradient, where positive; it serves early
        layers too.

    Raises:
      ValueError: the model gives no classes, or there is no such layer or kind.
    """
    if kind not in ("gradcam", "layercam"):
        raise ValueError(unknown("kind of map", kind, ("gradcam", "layercam")))
    model, variables, images = _prepared(model, variables, images)
    target = find_target(model, variables, images, layer)
    features, slopes = _features_and_slopes(model, variables, images, classes, target)
    places = Places(model, variables, images)
    place = places.of(features.shape, False)
    features, slopes = (
        x.reshape(x.shape[0], -1, x.shape[-1])[:, place.tokens :] for x in (features, slopes)
    )
    if kind == "layercam":
        heat = jax.nn.relu((jax.nn.relu(slopes) * features).sum(axis=-1))
    else:
        heat = jax.nn.relu((slopes.mean(axis=1, keepdims=True) * features).sum(axis=-1))
    heat = np.asarray(heat.reshape(-1, place.height, place.width))
    return paint(heat, places.stride(place), places.image_size)


def gradient_rollout(
    model: nn.Module, variables: Any, images: Array | np.ndarray, classes: Classes = None
) -> Float[np.ndarray, "B H W"]:
    """Compute rollout of attention times its gradient, where positive, as a mean over heads.

    A layer passes on R + Ā R, with Ā the mean of (∇A ⊙ A)⁺; no row is normalised.

    Raises:
      ValueError: the model gives no classes, has no attention, or is no chain; see `rollout`.
    """
    model, variables, images = _prepared(model, variables, images)
    capture = _weighted_by_gradient(model, variables, images, _given(classes, images))
    first = capture.layers[0]
    heat = pull_back(capture, None, raw=True)
    return paint(heat, first.stride, first.image_size)


def integrated_gradients(
    model: nn.Module,
    variables: Any,
    images: Array | np.ndarray,
    classes: Classes = None,
    *,
    baseline: Array | np.ndarray | float = 0.0,
    steps: int = 32,
) -> Float[np.ndarray, "B H W"]:
    """Compute integrated gradients, summed over channels.

    The sum over the image approaches the difference of the logits of image and baseline, the more
    steps the closer.

    Args:
      baseline: an image without what is looked for; 0 is the mean colour of normalised images.
      steps: of the path, each taken at its middle.

    Raises:
      ValueError: the model gives no classes, or steps is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: the path from the baseline needs at least 1 step.")
    model, variables, images = _prepared(model, variables, images)
    baseline = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    return np.asarray(
        _path_integral(model, variables, images, _given(classes, images), baseline, steps)
    )


def find_target(
    model: nn.Module, variables: Any, images: Array, layer: str | None = None
) -> Target:
    """Find the map that Grad-CAM reads.

    Raises:
      ValueError: there is no such layer, or its result is no map.
    """
    results: dict[tuple[str, ...], tuple[int, ...]] = {}
    attends: list[tuple[str, ...]] = []
    inputs: dict[tuple[str, ...], tuple[int, ...]] = {}
    ranks: list[set[int]] = []

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        found, path = call(*args, **kwargs), context.module.path
        if context.method_name == "__call__" and path:
            ranks.append({x.ndim for x in args if isinstance(x, jax.Array)})
            if isinstance(found, jax.Array):
                results[path] = found.shape
            if isinstance(context.module, GivesRows):
                attends.append(path)
                inputs[path] = args[0].shape
        return found

    with nn.intercept_methods(note):
        jax.eval_shape(model.apply, variables, images)
    places = Places(model, variables, images)
    free = {3, 4} in ranks  # tokens beside a map, and not before its patches

    def is_map(shape: tuple[int, ...]) -> bool:
        return len(shape) in (3, 4) and places.of(shape, free).height > 0

    if layer is not None:
        path = tuple(layer.split("/"))
        names = ["/".join(p) for p, shape in results.items() if is_map(shape)]
        if layer not in names:
            raise ValueError(unknown("layer with a map", layer, names))
        return Target(path, False)
    if attends and is_map(inputs[attends[-1]]):
        place = places.of(inputs[attends[-1]], False)
        if place.tokens and getattr(model, "pool", "") != "gap":
            return Target(attends[-1], True)
    last = [p for p, x in results.items() if is_map(x) and places.of(x, False)[1:] == places.last]
    if not last:
        raise ValueError(
            f"No module of this {type(model).__name__} gives the last map of `features`; name the "
            f"layer to read."
        )
    return Target(last[-1], False)


def _prepared(model: nn.Module, variables: Any, images: Any) -> tuple[nn.Module, Any, Array]:
    check_output(type(model).__name__, model, "an attribution", "classes", "a classifier")
    return *unrolled(model, variables), jnp.asarray(images)


def _given(classes: Any, images: Array) -> Int[Array, "B"]:
    """Return the classes, or -1 for the largest logit of each image."""
    if classes is None:
        return jnp.full(images.shape[0], -1)
    return jnp.asarray(classes)


def class_logits(logits: Float[Array, "B K"], classes: Int[Array, "B"]) -> Float[Array, "B"]:
    """Return each image's logit of its class; of the largest one where the class is -1."""
    chosen = jnp.where(classes < 0, jnp.argmax(logits, axis=-1), classes)
    return jnp.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnums=(0, 4))
def _features_and_slopes(
    model: nn.Module, variables: Any, images: Array, classes: Any, target: Target
) -> tuple[Array, Array]:
    """Return the target's features and the gradient of the classes' logits for them."""
    seen: list[Array] = []

    def score(offset: Any) -> tuple[Array, Array]:
        def shift(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name != "__call__" or context.module.path != target.path:
                return call(*args, **kwargs)
            if target.of_input:
                seen.append(args[0])
                return call(args[0] + offset, *args[1:], **kwargs)
            seen.append(call(*args, **kwargs))
            return seen[-1] + offset

        with nn.intercept_methods(shift):
            logits: Any = model.apply(variables, images)
        return class_logits(logits, _given(classes, images)).sum(), seen[-1]

    shape = jax.eval_shape(lambda: score(0.0)[1])
    slopes, features = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    return features, slopes


@functools.partial(jax.jit, static_argnums=0)
def _weighted_by_gradient(
    model: nn.Module, variables: Any, images: Array, classes: Array
) -> Capture:
    """Capture attention whose weights are (∇A ⊙ A)⁺."""
    calls: Calls = {}

    def score(offsets: Any) -> tuple[Array, Any]:
        with nn.intercept_methods(note_calls(calls)):
            output, sown = model.apply(
                {**variables, "offsets": offsets}, images, mutable=["intermediates"]
            )
        return class_logits(output, classes).sum(), (output, sown.get("intermediates", {}))

    sown = jax.eval_shape(lambda: score({})[1][1])
    zeros = _map_weights(lambda w: jnp.zeros(w[0].shape, w[0].dtype), sown)
    slopes, (output, sown) = jax.grad(score, has_aux=True)(zeros)
    weighted = _map_weights(lambda w, slope: (jax.nn.relu(w[0] * slope),), sown, slopes)
    return make_layers(model, variables, images, output, calls, weighted)


def _map_weights(change: Any, sown: Any, *others: Any) -> Any:
    """Apply a function to all that is sown as "weights", and leave out or keep what else there is.

    Args:
      others: trees that hold such weights alone.
    """
    out = {}
    for key, value in sown.items():
        if key == "weights":
            out[key] = change(value, *(o[key] for o in others))
        elif isinstance(value, dict):
            inner = _map_weights(change, value, *(o.get(key, {}) for o in others))
            if inner or others:
                out[key] = inner
        elif others:
            out[key] = value
    return out


@functools.partial(jax.jit, static_argnums=(0, 5))
def _path_integral(
    model: nn.Module, variables: Any, images: Array, classes: Array, baseline: Array, steps: int
) -> Float[Array, "B H W"]:
    logits: Any = model.apply(variables, images)
    chosen = jnp.where(classes < 0, jnp.argmax(logits, axis=-1), classes)

    def score(x: Array) -> Array:
        found: Any = model.apply(variables, x)
        return class_logits(found, chosen).sum()

    def step(total: Array, share: Array) -> tuple[Array, None]:
        return total + jax.grad(score)(baseline + share * (images - baseline)), None

    shares = (jnp.arange(steps) + 0.5) / steps
    total, _ = jax.lax.scan(step, jnp.zeros_like(images), shares)
    return ((images - baseline) * total / steps).sum(axis=-1)
