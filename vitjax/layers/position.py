"""Absolute position embeddings, and their interpolation to another grid."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vitjax.layers.maps import by_sides


def sincos_2d(
    height: int, width: int, channels: int, temperature: float = 10_000.0
) -> Float[Array, "N C"]:
    """Compute fixed 2-D sine-cosine positions: channels are quarters of sin x, cos x, sin y, cos y.

    The frequencies are geometric from 1 to 1/temperature (MoCo v3, arXiv:2104.02057; the plain ViT
    baseline, arXiv:2205.01580).

    Raises:
      ValueError: channels is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"Sine-cosine positions need a width divisible by 4; got {channels}.")
    quarter = channels // 4
    frequency = temperature ** -(jnp.arange(quarter) / max(quarter - 1, 1))
    y, x = jnp.mgrid[:height, :width]
    y, x = y.reshape(-1, 1) * frequency, x.reshape(-1, 1) * frequency
    return jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)], axis=1)


def sine_features(
    x: Float[Array, "*B"], channels: int, temperature: float = 10_000.0
) -> Float[Array, "*B C"]:
    """Compute sin and cos of x · T^(-2k / C), in turn for k = 0, 1, … (arXiv:1706.03762, 3.5)."""
    frequency = temperature ** (-2 * jnp.arange(channels // 2, dtype=x.dtype) / channels)
    angle = x[..., None] * frequency
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*x.shape, -1)


def sine_positions(
    inside: Bool[Array, "B H W"], channels: int, shift: float = 0.0
) -> Float[Array, "B H W C"]:
    """Compute fixed positions of padded images' maps: sines of y, then of x (DETR, appendix A.4).

    Both are from 0 to 2π over what is no padding (arXiv:2005.12872).

    Args:
      inside: which positions are no padding.
      shift: what rows and columns, counted from 1, are less by: 0 in DETR, 0.5 in Deformable DETR.
    """
    parts = []
    for axis in (1, 2):
        count = inside.cumsum(axis=axis).astype(jnp.result_type(float))
        last = jax.lax.index_in_dim(count, -1, axis)
        turn = (count - shift) / (last + 1e-6) * (2 * math.pi)
        parts.append(sine_features(turn, channels // 2))
    return jnp.concatenate(parts, axis=-1)


def resize_grid(
    table: Float[Array, "*S C"],
    shape: tuple[int, ...],
    method: str = "bicubic",
    antialias: bool = True,
) -> Float[Array, "*s C"]:
    """Interpolate a map of embeddings along its axes (ViT, arXiv:2010.11929, section 3.2).

    Args:
      method: "bicubic" or "bilinear".
      antialias: smooth where the map shrinks.
    """
    if table.shape[:-1] == tuple(shape):
        return table
    return jax.image.resize(table, (*shape, table.shape[-1]), method, antialias=antialias)


def resize_positions(
    table: Float[Array, "1 N C"],
    grid: tuple[int, ...],
    *,
    num_prefix: int,
    source_grid: tuple[int, ...] | None = None,
    method: str = "bicubic",
    antialias: bool = True,
) -> Float[Array, "1 M C"]:
    """Resize a position table to `grid`, except its first `num_prefix` rows (class token …).

    Args:
      grid: rows and columns; before them the places along time of clips.
      source_grid: those of the table; None means square.

    Raises:
      ValueError: the table is no such grid.
    """
    prefix, body = table[0, :num_prefix], table[0, num_prefix:]
    side = math.isqrt(body.shape[0])
    source_grid = source_grid or (side, side)
    if math.prod(source_grid) != body.shape[0]:
        raise ValueError(
            f"A position table of {body.shape[0]} patches is no {by_sides(source_grid)} "
            f"grid; "
            "name the grid that it was trained on (rows, columns)."
        )
    body = resize_grid(body.reshape(*source_grid, -1), grid, method, antialias)
    body = body.reshape(math.prod(grid), -1)
    return jnp.concatenate([prefix, body.astype(table.dtype)])[None]


def place_tokens(
    patches: Float[Array, "B N C"], tokens: list[Any], table: Float[Array, "1 M C"]
) -> Float[Array, "B P C"]:
    """Add positions to the patches and prepend extra tokens `[1, T, C]` (class token, registers).

    The last N rows of the table are for the patches, those before them for the first tokens. An
    empty table means no positions.
    """
    split = max(0, table.shape[1] - patches.shape[1])
    patches = patches + table[:, split:] if table.shape[1] else patches
    if not tokens:
        return patches
    extra = jnp.concatenate([jnp.asarray(t) for t in tokens], axis=1)
    extra += jnp.pad(table[:, :split], ((0, 0), (0, extra.shape[1] - split), (0, 0)))
    extra = jnp.broadcast_to(extra.astype(patches.dtype), (patches.shape[0], *extra.shape[1:]))
    return jnp.concatenate([extra, patches], axis=1)
