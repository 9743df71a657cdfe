"""Bilinear sampling at learned points, without gathers: the geometry of deformable attention.

A bilinear sample is the product of two tents: maps[b, y, x] · max(0, 1 - |y - p_y|) · max(0, 1 -
|x - p_x|), summed over the map. As matrix products these run on the systolic array, need no
scatter in the backward pass, and see zeros outside of the map for free. The `_gather` forms read
the four neighbours; they are the reference, and cheaper on CPUs for large maps.

Points are (y, x) in [-1, 1]. With `align_corners` ±1 are the centres of the first and last
position, without it the outer edges of their cells. What is computed in the scope "lookup" costs
products, but is an indexing in the papers' counts of multiply-adds (vitjax.analysis.cost).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.kernels.scopes import lookup


def reference_points(
    height: int, width: int, *, shift: float = 0.5, inset: int = 0
) -> Float[Array, "H W 2"]:
    """Build a grid of points (y, x): (i + shift) / (side - inset) · 2 - 1 along each axis.

    `shift=0.5, inset=0` are cell centres (`align_corners=False`); `shift=0, inset=1` spans [-1, 1]
    (`align_corners=True`); DAT++ has `shift=0.5, inset=1`, half a cell beyond. A side of 1 with an
    inset is its centre, 0.
    """

    def axis(side: int) -> Array:
        if side == inset:
            return jnp.zeros(1)
        return (jnp.arange(side) + shift) / (side - inset) * 2 - 1

    return jnp.stack(jnp.meshgrid(axis(height), axis(width), indexing="ij"), axis=-1)


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
    maps: Float[Array, "B H W C"], points: Float[Array, "B P 2"], *, align_corners: bool = True
) -> Float[Array, "B P C"]:
    """Sample each map at P points, with zeros outside, by one matrix product per axis.

    Args:
      points: (y, x) in [-1, 1]; keep them in float32.
    """
    height, width = maps.shape[1:3]
    rows = tent_weights(points[..., 0], height, align_corners=align_corners)
    columns = tent_weights(points[..., 1], width, align_corners=align_corners)
    lines = jnp.einsum("bph,bhwc->bpwc", rows.astype(maps.dtype), maps)
    return jnp.einsum("bpw,bpwc->bpc", columns.astype(maps.dtype), lines)


def sample_bilinear_gather(
    maps: Float[Array, "B H W C"], points: Float[Array, "B P 2"], *, align_corners: bool = True
) -> Float[Array, "B P C"]:
    """Compute `sample_bilinear` by reading the four neighbours: the reference form."""
    height, width = maps.shape[1:3]
    y = to_pixels(points[..., 0], height, align_corners)
    x = to_pixels(points[..., 1], width, align_corners)
    top, left = jnp.floor(y), jnp.floor(x)
    batch = jnp.arange(maps.shape[0])[:, None]
    out = jnp.zeros((*points.shape[:2], maps.shape[-1]), maps.dtype)
    for row, wy in ((top, top + 1 - y), (top + 1, y - top)):
        for column, wx in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            i = jnp.clip(row, 0, height - 1).astype(jnp.int32)
            j = jnp.clip(column, 0, width - 1).astype(jnp.int32)
            weight = jnp.where(inside, wy * wx, 0).astype(maps.dtype)
            out += weight[..., None] * maps[batch, i, j]
    return out


@lookup()
def sample_position_bias(
    table: Float[Array, "h U V"], points: Float[Array, "B G M 2"], grid: tuple[int, int]
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
      grid: rows and columns of the queries, N = rows · columns.
    """
    queries = reference_points(*grid, shift=0.0, inset=1).astype(points.dtype)
    dy = 0.5 * (queries[:, 0, 0][:, None] - points[..., None, :, 0])  # [B, G, rows, M]
    dx = 0.5 * (queries[0, :, 1][:, None] - points[..., None, :, 1])  # [B, G, columns, M]
    groups, dtype = points.shape[1], table.dtype
    table = table.reshape(groups, -1, *table.shape[1:])
    rows = tent_weights(dy, table.shape[2]).astype(dtype)
    columns = tent_weights(dx, table.shape[3]).astype(dtype)
    lines = jnp.einsum("bgimu,gcuv->bgcimv", rows, table)
    bias = jnp.einsum("bgcimv,bgjmv->bgcijm", lines, columns)
    return bias.reshape(bias.shape[0], -1, grid[0] * grid[1], points.shape[2])


def sample_position_bias_gather(
    table: Float[Array, "h U V"], points: Float[Array, "B G M 2"], grid: tuple[int, int]
) -> Float[Array, "B h N M"]:
    """Compute `sample_position_bias` by four table reads per query and key: the reference form."""
    batch, groups, keys, _ = points.shape
    queries = reference_points(*grid, shift=0.0, inset=1).astype(points.dtype).reshape(-1, 1, 2)
    displacement = 0.5 * (queries - points[:, :, None])  # [B, G, N, M, 2]
    maps = table.reshape(groups, -1, *table.shape[1:]).transpose(0, 2, 3, 1)
    maps = jnp.broadcast_to(maps, (batch, *maps.shape)).reshape(batch * groups, *maps.shape[1:])
    bias = sample_bilinear_gather(maps, displacement.reshape(batch * groups, -1, 2))
    bias = bias.reshape(batch, groups, -1, keys, maps.shape[-1])
    return jnp.moveaxis(bias, -1, 2).reshape(batch, -1, grid[0] * grid[1], keys)


def sample_groups(
    x: Float[Array, "B H W C"], points: Float[Array, "B G P 2"], *, align_corners: bool = True
) -> Float[Array, "B P C"]:
    """Sample each of G groups of channels at its own points."""
    groups = points.shape[1]
    maps = x.reshape(*x.shape[:3], groups, -1)
    sample = functools.partial(sample_bilinear, align_corners=align_corners)
    return jax.vmap(sample, in_axes=(3, 1), out_axes=2)(maps, points).reshape(
        x.shape[0], -1, x.shape[-1]
    )
