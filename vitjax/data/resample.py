"""Resizing as Pillow does it: every output pixel is a weighted mean of all input pixels it covers.

OpenCV's cubic and linear kernels look at four or two pixels a side however much the image shrinks;
recipes that say "bicubic" mean this one. Both passes round to 8 bits, as Pillow's do, so that
results differ by 1/255 at most.
"""

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

_BLOCK = 16  # output rows that share one product with the input rows that they need


def _cubic(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Keys' kernel with a = -1/2."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.maximum(1 - x, 0.0)


KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bicubic": (_cubic, 2.0),
    "antialias": (_triangle, 1.0),  # what Pillow calls bilinear
}
"""Name → the kernel as a function of the distance, and its radius, in pixels when enlarging."""


@functools.lru_cache(maxsize=1024)
def resize_weights(
    kernel: str, old: int, new: int
) -> tuple[tuple[int, int, int, Float32[np.ndarray, "r k"]], ...]:
    """The matrix [new, old] of a resize, as blocks (first row, first and end column, weights)."""
    function, radius = KERNELS[kernel]
    stretch = max(old / new, 1.0)
    centre = (np.arange(new) + 0.5) * (old / new)
    low = np.maximum(centre - radius * stretch + 0.5, 0).astype(int)
    high = np.minimum(centre + radius * stretch + 0.5, old).astype(int)
    column = np.arange(old)
    weight = function(np.abs(column + 0.5 - centre[:, None]) / stretch)
    weight = np.where((column >= low[:, None]) & (column < high[:, None]), weight, 0.0)
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    blocks = []
    for row in range(0, new, _BLOCK):
        first, end = low[row], high[min(row + _BLOCK, new) - 1]
        block = np.ascontiguousarray(weight[row : row + _BLOCK, first:end])
        blocks.append((row, int(first), int(end), block))
    return tuple(blocks)


def resize_like_pillow(
    image: UInt8[np.ndarray, "H W 3"], size: int, kernel: str
) -> UInt8[np.ndarray, "S S 3"]:
    """Resizes to a square of side `size` with a kernel of KERNELS."""
    height, width = image.shape[:2]
    turned = _rows(_turned(image).reshape(width, -1), size, kernel)  # columns first
    image = _turned(turned.reshape(size, height, 3))
    return _rows(image.reshape(height, -1), size, kernel).reshape(size, size, 3)


def _turned(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "W H 3"]:
    # Pixels of four bytes move at once, those of three byte by byte: twice as fast, there and back.
    turned = cv2.transpose(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA))
    return cv2.cvtColor(turned, cv2.COLOR_RGBA2RGB)


def _rows(x: UInt8[np.ndarray, "n c"], size: int, kernel: str) -> UInt8[np.ndarray, "m c"]:
    source, out = x.astype(np.float32), np.empty((size, x.shape[1]), np.float32)
    for row, first, end, weight in resize_weights(kernel, len(x), size):
        np.matmul(weight, source[first:end], out=out[row : row + len(weight)])
    nothing: Any = 0.0  # a number is no array to OpenCV's annotations
    return cv2.add(out, nothing, dtype=cv2.CV_8U)  # rounds, and clips at 0 and 255
