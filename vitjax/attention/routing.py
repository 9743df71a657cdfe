"""Region routing: which regions of a map see which (BiFormer, arXiv:2303.08810, eq. 3-6).

A map is cut into `n_win` × `n_win` regions, a clip into those of a number for each axis, (t, y, x).
Regions are compared by their means, each keeps its `topk` best partners, and their keys and values
are gathered.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.kernels.scopes import lookup
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import PerAxis, by_sides, cut, join, per_axis


class Routing(NamedTuple):
    """Routes of the regions, and their scores.

    Attributes:
      routes: for each region the `topk` regions that it sees, best first.
      scores: of each pair of regions, in float32 at least; `routes` picks from its last axis.
    """

    routes: Int[Array, "B R K"]
    scores: Float[Array, "B R S"]


def region_partition(x: Float[Array, "B *S"], n_win: PerAxis) -> Float[Array, "B R *s"]:
    """Split a map into R = n_win² regions of (H / n_win) × (W / n_win) positions, row by row.

    Returns:
      `[B, R, y, x, …]`, of a clip `[B, R, t, y, x, …]`.

    Raises:
      ValueError: a side is no multiple of n_win; `pad_to_multiple` makes it one.
    """
    parts = per_axis(n_win)
    sides = x.shape[1 : 1 + len(parts)]
    if any(side % n for side, n in zip(sides, parts)):
        raise ValueError(
            f"A map of {by_sides(sides)} cannot be cut into {by_sides(parts)} regions: each side "
            f"must be a multiple; pad the map first (vitjax.layers.maps.pad_to_multiple) or "
            f"choose another n_win."
        )
    regions = cut(x, parts)
    return regions.reshape(x.shape[0], math.prod(parts), *regions.shape[1 + len(parts) :])


def region_merge(regions: Float[Array, "B R *S"], n_win: PerAxis) -> Float[Array, "B *s"]:
    """Merge regions into a map; the inverse of `region_partition`."""
    parts = per_axis(n_win)
    return join(regions.reshape(regions.shape[0], *parts, *regions.shape[2:]), len(parts))


def region_means(regions: Float[Array, "B R *S h d"]) -> Float[Array, "B R C"]:
    """Compute the mean of each region, heads concatenated, in float32 at least (eq. 3)."""
    dtype, axes = jnp.promote_types(regions.dtype, jnp.float32), tuple(range(2, regions.ndim - 2))
    return regions.mean(axis=axes, dtype=dtype).reshape(*regions.shape[:2], -1)


def topk_routing(
    q: Float[Array, "B R C"], k: Float[Array, "B S C"], *, topk: int, scale: float
) -> Routing:
    """Select the `topk` keys with the largest scale · q · k for each query (eq. 4 and 5).

    The selection has no gradient; the scores have one.

    Raises:
      ValueError: there are fewer than topk keys.
    """
    if not 1 <= topk <= k.shape[1]:
        raise ValueError(
            f"topk={topk}: a region can be routed to 1 … {k.shape[1]} regions; lower topk, raise "
            f"n_win, or leave topk=None for all."
        )
    scores = jnp.einsum("brc,bsc->brs", q * scale, k)
    return Routing(jax.lax.top_k(jax.lax.stop_gradient(scores), topk)[1], scores)


def route_weights(routing: Routing) -> Float[Array, "B R K"]:
    """Compute the softmax of the scores over the K selected regions; it sums to one."""
    chosen = jax.nn.one_hot(routing.routes, routing.scores.shape[2], dtype=routing.scores.dtype)
    return jax.nn.softmax(jnp.einsum("brks,brs->brk", chosen, routing.scores), axis=-1)


@lookup()
def gather_regions(
    regions: Float[Array, "B S *C"], routes: Int[Array, "B R K"]
) -> Float[Array, "B R K *C"]:
    """Gather routed regions by a product with one-hot rows; its gradient has no scatter."""
    chosen = jax.nn.one_hot(routes, regions.shape[1], dtype=regions.dtype)
    return jnp.einsum("brks,bs...->brk...", chosen, regions)


def take_regions(
    regions: Float[Array, "B S *C"], routes: Int[Array, "B R K"]
) -> Float[Array, "B R K *C"]:
    """Gather routed regions by indexing: the reference form, and cheaper for inference."""
    return jax.vmap(lambda x, i: x[i])(regions, routes)


def routed_positions(
    routes: Int[Array, "B R K"], n_win: PerAxis, queries: Sequence[int], keys: Sequence[int]
) -> Bool[Array, "B 1 N M"]:
    """Build the mask of the positions of routed regions, both maps row by row.

    Args:
      queries, keys: lengths of the axes of their maps, multiples of n_win.
    """
    parts = per_axis(n_win)
    seen = (routes[..., None] == jnp.arange(math.prod(parts))).any(axis=2)
    seen = seen.reshape(routes.shape[0], *parts, *parts)
    for axis, (side, number) in enumerate(zip((*queries, *keys), parts * 2, strict=True), 1):
        seen = jnp.repeat(seen, side // number, axis=axis)
    return seen.reshape(routes.shape[0], 1, math.prod(queries), math.prod(keys))


def pool_regions(
    regions: Float[Array, "B R *S"], mode: str, size: int, axes: int = 2
) -> Float[Array, "B R *s"]:
    """Pool keys and values within each region (the released code's kv_downsample_mode).

    Args:
      axes: of a region: 2 for (y, x), 3 for (t, y, x); `size` is that of each.
      mode: "identity"; "avgpool" or "maxpool" over `size` × `size` positions, a remainder dropped;
        "ada_avgpool" or "ada_maxpool" to `size` × `size` cells, which overlap where they must.

    Raises:
      ValueError: unknown mode, no size, or regions smaller than the pool.
    """
    if mode == "identity":
        return regions
    reduce: dict[str, Callable[..., Array]] = {"avgpool": jnp.mean, "maxpool": jnp.max}
    kind = mode.removeprefix("ada_")
    if kind not in reduce:
        raise ValueError(
            f"kv_downsample={mode!r}: keys and values of a region are reduced by 'identity', "
            f"'avgpool', 'maxpool', 'ada_avgpool' or 'ada_maxpool'."
        )
    for axis in range(2, 2 + axes):
        length = regions.shape[axis]
        if size < 1 or (kind == mode and length < size):
            raise ValueError(
                f"kv_downsample={mode!r} with kv_size={size} for regions of {length} positions a "
                f"side: give a kv_size from 1 to {length}."
            )
        if kind == mode:
            cells = [(i * size, (i + 1) * size) for i in range(length // size)]
        else:
            cells = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        parts = [jax.lax.slice_in_dim(regions, *cell, axis=axis) for cell in cells]
        regions = jnp.stack([reduce[kind](p, axis=axis) for p in parts], axis=axis)
    return regions


class Router(nn.Module):
    """`topk_routing`, whose `Routing` it sows as `intermediates/…/routes` and `…/scores`.

    Attributes:
      learned: both means pass a linear layer first (the released code's param_routing).
      differentiable: gradients reach q and k through the scores (diff_routing).
    """

    learned: bool = False
    differentiable: bool = False
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, q: Float[Array, "B R C"], k: Float[Array, "B S C"], *, topk: int, scale: float
    ) -> Routing:
        if not self.differentiable:
            q, k = jax.lax.stop_gradient((q, k))
        if self.learned:
            width = q.shape[-1]
            init = self.param_init.dense(width, width)
            emb = nn.Dense(width, **init, dtype=self.dtype, name="emb")
            q, k = emb(q), emb(k)
        routing = topk_routing(q, k, topk=topk, scale=scale)
        self.sow("intermediates", "routes", routing.routes)
        self.sow("intermediates", "scores", routing.scores)
        return routing


def sown_routing(sown: Mapping[str, Any]) -> Routing:
    """Return what the `Router` of a mixer has sown."""
    return Routing(sown["router"]["routes"][0], sown["router"]["scores"][0])
