"""Dense predictions in canvases: sliding windows, and resizing to each image's own size."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vitjax.layers.resize import resize

ROWS = 16
"""Rows of a full-size map that are computed at a time, which bounds what they take."""


def sliding_logits(
    forward: Callable[[Array], Array],
    images: Float[Array, "B H W c"],
    extent: Int[Array, "B 2"],
    window: tuple[int, int],
    stride: tuple[int, int],
    align_corners: bool = False,
) -> Float[Array, "B H W K"]:
    """Average the logits of overlapping windows that lie inside each image.

    The last window of a row or column ends at the image's border. Pixels outside of `extent` get 0.

    Args:
      forward: windows `[B, h, w, c]` → logits of any resolution.
      images: canvases, whose first rows and columns are the image.
      extent: height and width of each.
      window: h, w; cut to the canvas.
      stride: rows and columns from one window to the next.
    """
    height, width = images.shape[1:3]
    h, w = min(window[0], height), min(window[1], width)
    counts = [
        max(math.ceil((n - m) / s), 0) + 1 for n, m, s in zip((height, width), (h, w), stride)
    ]
    if counts == [1, 1]:
        return resize(forward(images), (height, width), align_corners)
    room = jnp.maximum(extent - jnp.array([h, w]), 0)  # places of a window, less one
    needed = -(-room // jnp.array(stride)) + 1
    cut = jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (*at, 0), (h, w, x.shape[-1])))
    paste = jax.vmap(lambda x, part, at: jax.lax.dynamic_update_slice(x, part, (*at, 0)))

    def step(total: Array, place: Array) -> tuple[Array, None]:
        at = jnp.minimum(place * jnp.array(stride), room)
        logits = resize(forward(cut(images, at)), (h, w), align_corners)
        one = jnp.ones((*logits.shape[:-1], 1), logits.dtype)
        counted = (place < needed).all(axis=1)[:, None, None, None]
        part = jnp.concatenate([logits, one], axis=-1) * counted
        return paste(total, cut(total, at) + part, at), None

    classes = jax.eval_shape(forward, images[:, :h, :w]).shape[-1]
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, counts), indexing="ij"), -1).reshape(-1, 2)
    total = jnp.zeros((images.shape[0], height, width, classes + 1), jnp.float32)
    total, _ = jax.lax.scan(step, total, places)
    return total[..., :-1] / jnp.maximum(total[..., -1:], 1)


def own_size_rows(
    values: Float[Array, "B h w K"],
    extent: Int[Array, "B 2"],
    rows: Int[Array, "R"],
    width: int,
    own: Int[Array, "B 2"],
    align_corners: bool = False,
) -> Float[Array, "B R W K"]:
    """Resize each image's part of its canvas to the image's own size, and return some rows.

    The result is exactly bilinear, as in `layers.resize`, although images differ in size.

    Args:
      values: values of the canvases.
      extent: height and width of each image in its canvas.
      rows: rows of the result to compute.
      width: columns of the result.
      own: height and width of each result.
    """
    down = _weights(rows, extent[:, 0], own[:, 0], values.shape[1], align_corners)
    across = _weights(jnp.arange(width), extent[:, 1], own[:, 1], values.shape[2], align_corners)
    part = jnp.einsum("brh,bhwk->brwk", down.astype(values.dtype), values)
    return jnp.einsum("bcw,brwk->brck", across.astype(values.dtype), part)


def _weights(
    at: Int[Array, "R"], n: Int[Array, "B"], m: Int[Array, "B"], size: int, align_corners: bool
) -> Float[Array, "B R N"]:
    """Compute weights of the first n of `size` inputs for outputs `at` of m; see `resize`."""
    n, m = n[:, None], m[:, None]
    corners = at * ((n - 1) / jnp.maximum(m - 1, 1))
    source = jnp.clip(corners if align_corners else (at + 0.5) * (n / m) - 0.5, 0, n - 1)
    return jnp.maximum(1 - jnp.abs(source[..., None] - jnp.arange(size)), 0)
