"""Resizing by weights: every output pixel is a weighted mean of the input pixels that it covers.

OpenCV's cubic and linear kernels read four or two pixels a side however much the image shrinks;
recipes that say "bicubic" mean Pillow's, which widens. Both passes round to 8 bits, as Pillow's do,
so that results differ by 1/255 at most. The input may be a window between pixels: its edges are
then those of a larger image that is resized and cropped.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from vitjax.data.channels import RGB

_BLOCK = 16  # output rows that share one product with the input rows that they need

_Numbers = Float[np.ndarray, "..."]


def _cubic(x: _Numbers) -> _Numbers:
    """Compute Keys' kernel with a = -1/2."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: _Numbers) -> _Numbers:
    return np.maximum(1 - x, 0.0)


class Kernel(NamedTuple):
    """Weight of an input pixel for an output pixel; both arguments are in input pixels.

    Attributes:
      weight: (distance of the two centres, input pixels per output pixel) → weight, not normalised.
      radius: input pixels per output pixel → the distance from which the weight is 0.
    """

    weight: Callable[[_Numbers, float], _Numbers]
    radius: Callable[[float], float]


KERNELS = {
    # The length that both pixels share, or the two nearest pixels when enlarging.
    "area": Kernel(
        lambda x, s: np.clip((s + 1) / 2 - x, 0.0, 1.0) if s > 1 else _triangle(x),
        lambda s: (s + 1) / 2 if s > 1 else 1.0,
    ),
    "bilinear": Kernel(lambda x, s: _triangle(x), lambda s: 1.0),
    "bicubic": Kernel(lambda x, s: _cubic(x / max(s, 1.0)), lambda s: 2.0 * max(s, 1.0)),
    # Pillow calls this bilinear.
    "antialias": Kernel(lambda x, s: _triangle(x / max(s, 1.0)), lambda s: max(s, 1.0)),
}
"""Name → kernel, for every interpolation."""
PILLOW = ("bicubic", "antialias")
"""Those that Pillow has."""


class Weights(NamedTuple):
    """The matrix of a resize along one axis, in blocks of rows.

    Attributes:
      first, end: the input pixels that count, `end` not included.
      size: output pixels.
      blocks: (first row, first and end column, weights); columns count from `first`.
    """

    first: int
    end: int
    size: int
    blocks: tuple[tuple[int, int, int, Float32[np.ndarray, "r k"]], ...]


@functools.lru_cache(maxsize=1024)
def resize_weights(
    kernel: str, old: int, new: int, start: float = 0.0, length: float | None = None
) -> Weights:
    """Compute the weights that resize a part of an axis.

    Args:
      kernel: a name of KERNELS.
      old: pixels of the whole axis; those beside the part count where the kernel reaches them.
      new: pixels of the result.
      start, length: the part, in pixels; all of the axis at the defaults. Output pixels whose
        centre lies outside of the axis have no weights, and become 0.
    """
    scale = (old if length is None else length) / new
    weight_of, radius = KERNELS[kernel].weight, KERNELS[kernel].radius(scale)
    centre = start + (np.arange(new) + 0.5) * scale
    low = np.clip(centre - radius + 0.5, 0, old).astype(int)
    high = np.clip(centre + radius + 0.5, 0, old).astype(int)
    first, end = int(low.min()), int(high.max())
    column = np.arange(first, end)
    weight = weight_of(np.abs(column + 0.5 - centre[:, None]), scale)
    counts = (column >= low[:, None]) & (column < high[:, None])
    weight = np.where(counts & ((centre >= 0) & (centre < old))[:, None], weight, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    weight = (weight / np.where(total == 0, 1.0, total)).astype(np.float32)
    blocks = []
    for row in range(0, new, _BLOCK):
        left, right = low[row] - first, high[min(row + _BLOCK, new) - 1] - first
        block = np.ascontiguousarray(weight[row : row + _BLOCK, left:right])
        blocks.append((row, int(left), int(right), block))
    return Weights(first, end, new, tuple(blocks))


def resize_like_pillow(
    image: UInt8[np.ndarray, "H W c"], size: tuple[int, int], kernel: str
) -> UInt8[np.ndarray, "h w c"]:
    """Resize an image to a height and width with a kernel of PILLOW."""
    rows, columns = (resize_weights(kernel, a, b) for a, b in zip(image.shape, size))
    return apply_weights(image, rows, columns)


def apply_weights(
    part: UInt8[np.ndarray, "h w c"], rows: Weights, columns: Weights
) -> UInt8[np.ndarray, "H W c"]:
    """Resize the part of an image that its weights count from `first` to `end`."""
    height, width, channels = part.shape
    turned = _rows(_turned(part).reshape(width, -1), columns)  # columns first
    part = _turned(turned.reshape(columns.size, height, channels))
    return _rows(part.reshape(height, -1), rows).reshape(rows.size, columns.size, channels)


def _turned(image: UInt8[np.ndarray, "H W c"]) -> UInt8[np.ndarray, "W H c"]:
    if image.shape[2] != RGB:
        return np.ascontiguousarray(image.swapaxes(0, 1))
    # Pixels of four bytes move at once, those of three byte by byte: twice as fast, there and back.
    turned = cv2.transpose(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA))
    return cv2.cvtColor(turned, cv2.COLOR_RGBA2RGB)


def _rows(x: UInt8[np.ndarray, "n c"], weights: Weights) -> UInt8[np.ndarray, "m c"]:
    source, out = x.astype(np.float32), np.empty((weights.size, x.shape[1]), np.float32)
    for row, first, end, weight in weights.blocks:
        np.matmul(weight, source[first:end], out=out[row : row + len(weight)])
    nothing: Any = 0.0  # a number is no array to OpenCV's annotations
    return cv2.add(out, nothing, dtype=cv2.CV_8U)  # rounds, and clips at 0 and 255
