"""Bilinear sampling at learned points, without gathers: the geometry of deformable attention.

Of maps; of clips the same in three axes, trilinear.

A bilinear sample is the product of two tents: maps[b, y, x] · max(0, 1 - |y - p_y|) · max(0, 1 -
|x - p_x|), summed over the map. As matrix products these run on the systolic array, need no
scatter in the backward pass, and see zeros outside of the map for free. The `_gather` forms read
the four neighbours; they are the reference, and cheaper on CPUs for large maps.

Points are (y, x) in [-1, 1], those of clips (t, y, x). With `align_corners` ±1 are the centres of
the first and last position, without it the outer edges of their cells. What is computed in the
scope "lookup" costs products, but is an indexing in the papers' counts of multiply-adds
(vitjax.analysis.cost).
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.kernels.scopes import lookup


def reference_points(*sides: int, shift: float = 0.5, inset: int = 0) -> Float[Array, "*S axes"]:
    """Build a grid of points (y, x): (i + shift) / (side - inset) · 2 - 1 along each axis.

    `shift=0.5, inset=0` are cell centres (`align_corners=False`); `shift=0, inset=1` spans [-1, 1]
    (`align_corners=True`); DAT++ has `shift=0.5, inset=1`, half a cell beyond. A side of 1 with an
    inset is its centre, 0. Three sides give points (t, y, x).
    """

    def axis(side: int) -> Array:
        if side == inset:
            return jnp.zeros(1)
        return (jnp.arange(side) + shift) / (side - inset) * 2 - 1

    return jnp.stack(jnp.meshgrid(*map(axis, sides), indexing="ij"), axis=-1)


def to_pixels(coordinate: Float[Array, "*B"], side: int, align_corners: bool) -> Float[Array, "*B"]:
    """Convert coordinates in [-1, 1] to indices into `side` positions; in float32 at least."""
    coordinate = coordinate.astype(jnp.promote_types(coordinate.dtype, jnp.float32))
    if align_corners:
        return (coordinate + 1) * ((side - 1) / 2)
    return ((coordinate + 1) * side - 1) / 2


def tent_weights(
    coordinate: Float[Array, "*B"], side: int, *, align_corners: bool = True
) -> Float[Array, "*B {side}"]:
    """Compute the linear interpolation weights of `side` positions; at most two are nonzero.

    Written by cases, so that at the kinks the derivative is that from the right, as where
    neighbours are found with floor.
    """
    distance = to_pixels(coordinate, side, align_corners)[..., None] - jnp.arange(side)
    tent = jnp.where(distance < 0, 1 + distance, 1 - distance)
    return jnp.where((distance >= -1) & (distance < 1), tent, 0)


@lookup()
def sample_bilinear(
    maps: Float[Array, "B *S C"], points: Float[Array, "B P axes"], *, align_corners: bool = True
) -> Float[Array, "B P C"]:
    """Sample each map at P points, with zeros outside, by one matrix product per axis.

    Args:
      points: (y, x) in [-1, 1]; keep them in float32.
    """
    first, *others = (
        tent_weights(points[..., axis], side, align_corners=align_corners)
        for axis, side in enumerate(maps.shape[1:-1])
    )
    found = jnp.einsum("bph,bh...->bp...", first.astype(maps.dtype), maps)  # lines [b, p, w, c]
    for tents in others:
        found = jnp.einsum("bpw,bpw...->bp...", tents.astype(maps.dtype), found)
    return found


def sample_bilinear_gather(
    maps: Float[Array, "B *S C"], points: Float[Array, "B P axes"], *, align_corners: bool = True
) -> Float[Array, "B P C"]:
    """Compute `sample_bilinear` by reading the neighbours, four of a map: the reference form."""
    neighbours = []  # of each axis: (index, weight) of the two
    for axis, side in enumerate(maps.shape[1:-1]):
        at = to_pixels(points[..., axis], side, align_corners)
        low = jnp.floor(at)
        pair = ((low, low + 1 - at), (low + 1, at - low))
        neighbours.append(
            [
                (jnp.clip(i, 0, side - 1).astype(jnp.int32), jnp.where((i >= 0) & (i < side), w, 0))
                for i, w in pair
            ]
        )
    batch = jnp.arange(maps.shape[0])[:, None]
    out = jnp.zeros((*points.shape[:2], maps.shape[-1]), maps.dtype)
    for corner in itertools.product(*neighbours):
        weight = math.prod(w for _, w in corner).astype(maps.dtype)  # type: ignore[union-attr]
        out += weight[..., None] * maps[(batch, *(i for i, _ in corner))]
    return out


@lookup()
def sample_position_bias(
    table: Float[Array, "h *U"], points: Float[Array, "B G M axes"], grid: tuple[int, ...]
) -> Float[Array, "B h N M"]:
    """Compute the relative position bias of a query grid to displaced keys (DAT, eq. 10).

    See arXiv:2201.00520.

    The table is sampled at half the displacement, (q - k) / 2, where `align_corners` maps [-1, 1]
    to its first and last entry. As the queries form a grid, the tents of a displacement need only
    (row, key) and (column, key): rows are interpolated for every query row, columns for every
    query column, and nothing has an axis of N · M but the result.

    Args:
      table: bias of each head over displacements, `[h, 2H-1, 2W-1]` for the map it was made for.
        Head i belongs to group i // (h / G).
      points: keys of each group.
      grid: rows and columns of the queries, N = rows · columns; before them frames of clips, whose
        tables have an axis more.
    """
    queries = reference_points(*grid, shift=0.0, inset=1).astype(points.dtype)
    axes, groups, dtype = len(grid), points.shape[1], table.dtype

    def displacement(axis: int) -> Float[Array, "B G side M"]:
        line = queries[(*(slice(None) if i == axis else 0 for i in range(axes)), axis)]
        return 0.5 * (line[:, None] - points[..., None, :, axis])

    displacements = [displacement(axis) for axis in range(axes)]
    table = table.reshape(groups, -1, *table.shape[1:])
    first, *others = (
        tent_weights(d, side).astype(dtype)
        for d, side in zip(displacements, table.shape[2:], strict=True)
    )
    bias = jnp.einsum("bgimu,gcu...->bgcim...", first, table)
    for axis, tents in enumerate(others, 1):
        keys_and_rest = bias.shape[axis - axes - 1 :]  # before them are the queries so far
        bias = bias.reshape(*bias.shape[:3], -1, *keys_and_rest)
        bias = jnp.einsum("bgcimv...,bgjmv->bgcijm...", bias, tents)
    return bias.reshape(bias.shape[0], -1, math.prod(grid), points.shape[2])


def sample_position_bias_gather(
    table: Float[Array, "h *U"], points: Float[Array, "B G M axes"], grid: tuple[int, ...]
) -> Float[Array, "B h N M"]:
    """Compute `sample_position_bias` by table reads for each query and key: the reference form."""
    batch, groups, keys, axes = points.shape
    queries = reference_points(*grid, shift=0.0, inset=1).astype(points.dtype).reshape(-1, 1, axes)
    displacement = 0.5 * (queries - points[:, :, None])  # [B, G, N, M, axes]
    maps = jnp.moveaxis(table.reshape(groups, -1, *table.shape[1:]), 1, -1)
    maps = jnp.broadcast_to(maps, (batch, *maps.shape)).reshape(batch * groups, *maps.shape[1:])
    bias = sample_bilinear_gather(maps, displacement.reshape(batch * groups, -1, axes))
    bias = bias.reshape(batch, groups, -1, keys, maps.shape[-1])
    return jnp.moveaxis(bias, -1, 2).reshape(batch, -1, math.prod(grid), keys)


def sample_groups(
    x: Float[Array, "B *S C"], points: Float[Array, "B G P axes"], *, align_corners: bool = True
) -> Float[Array, "B P C"]:
    """Sample each of G groups of channels at its own points."""
    groups = points.shape[1]
    maps = x.reshape(*x.shape[:-1], groups, -1)
    sample = functools.partial(sample_bilinear, align_corners=align_corners)
    return jax.vmap(sample, in_axes=(x.ndim - 1, 1), out_axes=2)(maps, points).reshape(
        x.shape[0], -1, x.shape[-1]
    )
