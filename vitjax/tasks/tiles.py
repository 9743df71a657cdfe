"""Tiling: apply a function of one image size to images of any size, and blend the tiles."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int


def tiled(
    function: Callable[[Any], Any],
    image: Float[np.ndarray, "H W c"],
    tile: int,
    overlap: int,
    batch: int = 4,
) -> Float[np.ndarray, "H W c"]:
    """Apply a function to overlapping tiles of one image, and blend the results.

    In each overlap, the quarter next to a tile's border is dropped, because the tile has no context
    beyond its border. In between, the weight of one tile falls linearly while that of the other
    rises. So a function with a reach of at most overlap / 4 pixels gives the same result as on the
    whole image. An image smaller than a tile is mirrored at the right and bottom.

    The device holds one batch of tiles, for images of any size.

    Args:
      function: jitted, `[batch, tile, tile, c]` to the same shape. It is called with this shape
        alone, so that it compiles once.
      image: floats.
      tile: side of a tile in pixels; for a `Uformer` a multiple of 128.
      overlap: least overlap of neighbouring tiles in pixels; it is larger where tiles would end
        outside of the image.
      batch: tiles per call.

    Returns:
      The result as 32-bit floats.

    Raises:
      ValueError: the overlap is not smaller than a tile, or the batch is empty.
    """
    if not 0 <= overlap < tile or batch < 1:
        raise ValueError(
            f"tile={tile}, overlap={overlap}, batch={batch}: an overlap is at least 0 and smaller "
            f"than a tile, and a batch has at least 1 tile."
        )
    height, width, channels = image.shape
    missing = [(0, max(tile - side, 0)) for side in (height, width)]
    padded = np.pad(image.astype(np.float32), (*missing, (0, 0)), mode="reflect")
    rows, columns = (placement(side, tile, overlap) for side in padded.shape[:2])
    places = [(y, x) for y in zip(*rows, strict=True) for x in zip(*columns, strict=True)]
    out = np.zeros_like(padded)
    for begin in range(0, len(places), batch):
        group = places[begin : begin + batch]
        tiles = np.zeros((batch, tile, tile, channels), np.float32)
        for i, ((top, _), (left, _)) in enumerate(group):
            tiles[i] = padded[top : top + tile, left : left + tile]
        results = np.asarray(function(tiles), np.float32)
        for result, ((top, down), (left, across)) in zip(results, group, strict=False):
            weights = (down[:, None] * across)[..., None]
            out[top : top + tile, left : left + tile] += weights * result
    return out[:height, :width]


def placement(
    length: int, tile: int, overlap: int
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n tile"]]:
    """Place tiles evenly along one side, and compute the weights of their pixels.

    Args:
      length: length of the side, at least a tile.

    Returns:
      The first pixel of each tile, and the weights of its pixels, which sum to 1 over the tiles at
      each position.
    """
    count = 1 - (tile - length) // (tile - overlap)  # rounded up
    begins = np.arange(count) * (length - tile) // max(count - 1, 1)
    weights = np.ones((count, tile), np.float32)
    for left in range(count - 1):
        shared = begins[left] + tile - begins[left + 1]
        if shared:
            rise = np.clip(2 * (np.arange(shared) + 0.5) / shared - 0.5, 0, 1)
            weights[left + 1, :shared] *= rise
            weights[left, tile - shared :] *= rise[::-1]
    total = np.zeros(length, np.float32)
    for begin, own in zip(begins, weights, strict=True):
        total[begin : begin + tile] += own
    for begin, own in zip(begins, weights, strict=True):
        own /= total[begin : begin + tile]
    return begins, weights
