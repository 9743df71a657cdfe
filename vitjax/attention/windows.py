"""Geometry of windows: partition, cyclic shift and its mask, relative positions (Swin,
arXiv:2103.14030, section 3.2).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def window_partition(x: Float[Array, "B H W *S"], window_size: int) -> Float[Array, "B R N *S"]:
    """Split a map into R windows of N = window_size² positions, both row by row.

    Any number of axes may follow the map's: channels, or heads and their width.

    Raises:
      ValueError: a side is no multiple of the window; `pad_to_multiple` makes it one.
    """
    batch, height, width, *rest = x.shape
    if height % window_size or width % window_size:
        raise ValueError(
            f"A map of {height}×{width} cannot be cut into windows of {window_size}×{window_size}: "
            f"each side must be a multiple; pad the map first (vitjax.layers.maps."
            f"pad_to_multiple) or choose another window_size."
        )
    rows, columns = height // window_size, width // window_size
    x = x.reshape(batch, rows, window_size, columns, window_size, *rest)
    return jnp.swapaxes(x, 2, 3).reshape(batch, rows * columns, window_size**2, *rest)


def window_merge(
    windows: Float[Array, "B R N *S"], window_size: int, height: int, width: int
) -> Float[Array, "B H W *S"]:
    """Merge windows into a map `[B, height, width, …]`; the inverse of `window_partition`."""
    batch, _, _, *rest = windows.shape
    rows, columns = height // window_size, width // window_size
    x = windows.reshape(batch, rows, columns, window_size, window_size, *rest)
    return jnp.swapaxes(x, 2, 3).reshape(batch, height, width, *rest)


def shift_map(x: Float[Array, "B H W *S"], shift: int) -> Float[Array, "B H W *S"]:
    """Roll the map up and left by `shift` pixels; a negative shift undoes it."""
    return jnp.roll(x, (-shift, -shift), (1, 2)) if shift else x


def shift_mask(height: int, width: int, window_size: int, shift: int) -> Bool[Array, "R N N"]:
    """Compute the mask: True where two positions of a window were neighbours before the roll.

    The last window of each axis holds `shift` pixels that came from the other border (figure 4).

    Args:
      height, width: of the map that is partitioned (after padding), in pixels.
      shift: 0 < shift < window_size.
    """

    def side(length: int) -> np.ndarray:
        position = np.arange(length)
        return (position >= length - window_size).astype(int) + (position >= length - shift)

    region = jnp.asarray(3 * side(height)[:, None] + side(width), jnp.float32)[None]
    region = window_partition(region, window_size)[0]
    return region[:, :, None] == region[:, None, :]


def relative_position_index(window_size: int) -> Int[np.ndarray, "N N"]:
    """Compute the row of the (2M-1)² position table for each query (first axis) and key.

    Row (y + M - 1)(2M - 1) + x + M - 1 is for a query that lies y below and x right of the key.
    """
    side = np.arange(window_size)
    offset = side[:, None] - side + window_size - 1  # [M, M]
    index = offset[:, None, :, None] * (2 * window_size - 1) + offset[None, :, None, :]
    return index.reshape(window_size**2, window_size**2)


def relative_bias(table: Float[Array, "T h"]) -> Float[Array, "h N N"]:
    """Compute `table[relative_position_index(M)]` with heads first, for T = (2M-1)²."""
    length = round(table.shape[0] ** 0.5)
    return relative_bias_of_map(table.reshape(length, length, -1))


def relative_bias_of_map(table: Float[Array, "U V h"]) -> Float[Array, "h N N"]:
    """Compute the bias of each query (first axis) and key of an H×W map; U = 2H-1, V = 2W-1.

    There is no gather: query i and key j of one axis read entry i - j + H - 1, a Toeplitz matrix,
    which is a repeated row cut at one entry less than its length. Its gradient is a sum, where a
    gather's is a scatter.
    """

    def toeplitz(t: Array) -> Array:
        length = t.shape[0]
        size = (length + 1) // 2
        if size == 1:
            return t[None]
        repeated = jnp.tile(t[::-1], (size,) + (1,) * (t.ndim - 1))
        flat = repeated[size - 1 :][: size * (length - 1)]
        return flat.reshape(size, length - 1, *t.shape[1:])[:, :size]

    by_row = toeplitz(table)  # [yq, yk, V, h]
    bias = toeplitz(by_row.transpose(2, 0, 1, 3))  # [xq, xk, yq, yk, h]
    positions = bias.shape[0] * bias.shape[2]
    return bias.transpose(4, 2, 0, 3, 1).reshape(-1, positions, positions)
