"""Anchors: reference boxes of several sizes and shapes at each position of each map.

Those of a map are computed where they are used, in float32. As constants of a program hundreds of
thousands of them would take a TPU hundreds of megabytes, because rows of four are padded to 128.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Size = tuple[int, int]


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Float[np.ndarray, "a 4"]:
    """Compute the anchors about the origin, by ratio, then size.

    Args:
      sizes: square roots of areas; `ratios`: height / width.

    Returns:
      Boxes whose half sides are whole pixels (half to even), as torchvision's.
    """
    heights = np.sqrt(np.asarray(ratios, np.float32))
    size = np.asarray(sizes, np.float32)
    w = ((1 / heights)[:, None] * size).ravel()
    h = (heights[:, None] * size).ravel()
    return np.round(np.stack([-w, -h, w, h], axis=1) / 2)


def level_anchors(
    image: Size, grid: Size, sizes: Sequence[float], ratios: Sequence[float]
) -> Float[Array, "A 4"]:
    """Compute the anchors of one map, by row, then column, then as `cell_anchors`.

    They stand at the top left corners of cells, which are ⌊image / grid⌋ pixels large.

    Args:
      image, grid: height and width of the image and of the map.
    """
    shapes = cell_anchors(sizes, ratios)
    index = jnp.arange(grid[0] * grid[1] * len(shapes))
    cell, kind = index // len(shapes), index % len(shapes)
    y, x = (cell // grid[1]) * (image[0] // grid[0]), (cell % grid[1]) * (image[1] // grid[1])
    chosen = [kind == i for i in range(len(shapes))]
    sides = [jnp.select(chosen, list(jnp.asarray(side))) for side in shapes.T]
    return jnp.stack([at + side for at, side in zip((x, y, x, y), sides, strict=True)], axis=-1)


def octaves(size: float, count: int) -> tuple[int, ...]:
    """Compute the sizes s · 2^(k / count), rounded down (RetinaNet, section 4)."""
    return tuple(int(size * 2 ** (k / count)) for k in range(count))
