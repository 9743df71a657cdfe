"""Geometry of windows: partition, cyclic shift and its mask, relative positions (Swin,
arXiv:2103.14030, section 3.2), of maps and, with a size for each axis, of clips.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vitjax.attention.core import Attend, DotProductAttention
from vitjax.kernels.platform import target_platform
from vitjax.kernels.scopes import share_of
from vitjax.layers.maps import PerAxis, by_sides, cut, join, per_axis


def window_partition(x: Float[Array, "B *S"], window_size: PerAxis) -> Float[Array, "B R N *s"]:
    """Split a map into R windows of N positions, both row by row; a clip frame by frame.

    Any number of axes may follow the map's: channels, or heads and their width.

    Raises:
      ValueError: a side is no multiple of the window; `pad_to_multiple` makes it one.
    """
    size = per_axis(window_size)
    batch, *shape = x.shape
    sides, rest = shape[: len(size)], shape[len(size) :]
    if any(side % m for side, m in zip(sides, size)):
        raise ValueError(
            f"A map of {by_sides(sides)} cannot be cut into windows of {by_sides(size)}: "
            f"each side must be a multiple; pad the map first (vitjax.layers.maps."
            f"pad_to_multiple) or choose another window_size."
        )
    counts = [side // m for side, m in zip(sides, size)]
    return cut(x, counts).reshape(batch, math.prod(counts), math.prod(size), *rest)


def window_merge(
    windows: Float[Array, "B R N *S"], window_size: PerAxis, *sides: int
) -> Float[Array, "B *s"]:
    """Merge windows into a map `[B, *sides, …]`; the inverse of `window_partition`."""
    size = per_axis(window_size)
    batch, _, _, *rest = windows.shape
    counts = [side // m for side, m in zip(sides, size, strict=True)]
    return join(windows.reshape(batch, *counts, *size, *rest), len(size))


def shift_map(x: Float[Array, "B *S"], shift: PerAxis) -> Float[Array, "B *S"]:
    """Roll the map up and left by `shift` pixels; a negative shift undoes it."""
    shift = per_axis(shift)
    axes = tuple(range(1, 1 + len(shift)))
    return jnp.roll(x, tuple(-s for s in shift), axes) if any(shift) else x


def unshift_map(x: Float[Array, "B *S"], shift: PerAxis) -> Float[Array, "B *S"]:
    """Undo `shift_map`."""
    return shift_map(x, tuple(-s for s in per_axis(shift)))


def shift_mask(
    sides: tuple[int, ...], window_size: PerAxis, shift: PerAxis
) -> Bool[Array, "R N N"]:
    """Compute the mask: True where two positions of a window were neighbours before the roll.

    The last window of each axis holds `shift` pixels that came from the other border (figure 4).

    Args:
      sides: of the map that is partitioned (after padding), in pixels.
      shift: 0 ≤ shift < window_size.
    """
    region = np.zeros((), int)
    for length, size, move in zip(sides, per_axis(window_size), per_axis(shift), strict=True):
        position = np.arange(length)
        side = (position >= length - size).astype(int) + (position >= length - move)
        region = 3 * region[..., None] + side
    region = window_partition(jnp.asarray(region, jnp.float32)[None], window_size)[0]
    return region[:, :, None] == region[:, None, :]


def in_windows(
    mix: Callable[..., Array],
    *maps: Float[Array, "B *S"],
    window_size: PerAxis,
    shift: PerAxis = 0,
    attend: Attend,
    bias: Float[Array, "h N N"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B *s"]:
    """Apply `mix` to the windows of maps: shift, partition, mix, merge, undo the shift.

    On TPUs several small windows are mixed as one, in which none sees the others: arrays are padded
    to 128 lanes there, and two windows of 49 positions take the memory of one.

    Args:
      mix: from windows `[B, R, N, …]`, one argument for each map, and the keyword `attend`, to
        windows `[B, R, N, …]`. It works on each position by itself, except for calls of
        `attend(q, k, v)`.
      maps: their sides are multiples of the window.
      attend, bias, scale: attention inside a window; `attend` is what `mix` gets, with bias, scale
        and the shift's mask.
    """
    axes = len(per_axis(window_size))
    sides = maps[0].shape[1 : 1 + axes]
    windows = [window_partition(shift_map(x, shift), window_size) for x in maps]
    number, length = windows[0].shape[1:3]
    seen = isinstance(attend, DotProductAttention) and attend.is_mutable_collection("intermediates")
    joined = 1 if seen or target_platform() != "tpu" else windows_to_join(number, length)
    mask = shift_mask(sides, window_size, shift)[:, None] if any(per_axis(shift)) else None
    if joined > 1:
        windows = [join_windows(x, joined) for x in windows]
        mask = joined_mask(mask, joined, length)
        bias = None if bias is None else jnp.tile(bias, (1, joined, joined))

    def attend_inside(q: Array, k: Array, v: Array) -> Array:
        with share_of(1, joined):
            return attend(q, k, v, bias=bias, mask=mask, scale=scale)

    out = mix(*windows, attend=attend_inside)
    out = out.reshape(out.shape[0], number, length, *out.shape[3:])
    return unshift_map(window_merge(out, window_size, *sides), shift)


def windows_to_join(number: int, length: int) -> int:
    """Compute how many of `number` windows of `length` positions fit into 128 lanes."""
    return max(
        n for n in range(1, number + 1) if number % n == 0 and n * length <= max(128, length)
    )


def join_windows(x: Float[Array, "B R N *S"], joined: int) -> Float[Array, "B r n *S"]:
    """Join `joined` windows after one another."""
    batch, number, length, *rest = x.shape
    return x.reshape(batch, number // joined, joined * length, *rest)


def joined_mask(
    mask: Bool[Array, "R 1 N N"] | None, joined: int, length: int
) -> Bool[Array, "r 1 n n"]:
    """Build the mask of joined windows, which do not see each other; r is 1 if all are alike."""
    own = jnp.eye(joined, dtype=bool)[:, None, :, None]
    if mask is None:
        mask = jnp.ones((joined, 1, length, length), bool)
    inside = mask.reshape(-1, joined, length, 1, length)
    return (own & inside).reshape(-1, 1, joined * length, joined * length)


def relative_position_index(window_size: PerAxis) -> Int[np.ndarray, "N N"]:
    """Compute the row of the position table for each query (first axis) and key.

    A table of M×M windows has (2M-1)² rows. Row (y + M - 1)(2M - 1) + x + M - 1 is for a query that
    lies y below and x right of the key.
    """
    index = np.zeros((1, 1), int)
    for length in per_axis(window_size):
        side = np.arange(length)
        offset = side[:, None] - side + length - 1  # [M, M]
        index = index[:, None, :, None] * (2 * length - 1) + offset[None, :, None, :]
        index = index.reshape(index.shape[0] * length, -1)
    return index


def relative_bias(table: Float[Array, "T h"]) -> Float[Array, "h N N"]:
    """Compute `table[relative_position_index(M)]` with heads first, for T = (2M-1)²."""
    length = round(table.shape[0] ** 0.5)
    return relative_bias_of_map(table.reshape(length, length, -1))


def relative_bias_of_map(table: Float[Array, "*U h"]) -> Float[Array, "h N N"]:
    """Compute the bias of each query (first axis) and key of an H×W map or T×H×W clip.

    The table has 2H-1 entries along an axis of H. There is no gather: query i and key j of one axis
    read entry i - j + H - 1, a Toeplitz matrix, which is a repeated row cut at one entry less than
    its length. Its gradient is a sum, where a gather's is a scatter.
    """

    def toeplitz(t: Array) -> Array:
        length = t.shape[0]
        size = (length + 1) // 2
        if size == 1:
            return t[None]
        repeated = jnp.tile(t[::-1], (size,) + (1,) * (t.ndim - 1))
        flat = repeated[size - 1 :][: size * (length - 1)]
        return flat.reshape(size, length - 1, *t.shape[1:])[:, :size]

    axes, bias = table.ndim - 1, table
    for axis in range(axes):  # [yq, yk, V, h], then [xq, xk, yq, yk, h]
        bias = toeplitz(jnp.moveaxis(bias, 2 * axis, 0))
    queries = range(2 * axes - 2, -1, -2)
    positions = math.prod(bias.shape[i] for i in queries)
    bias = bias.transpose(2 * axes, *queries, *(i + 1 for i in queries))
    return bias.reshape(-1, positions, positions)
