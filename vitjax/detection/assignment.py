"""Assignment of objects to predictions one to one, at the least total cost (DETR, arXiv:2005.12872,
eq. 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NONE = -1
FORBIDDEN = 1e6
"""Instead of costs that are not finite."""


class _State(NamedTuple):
    """Search for a shortest augmenting path, or the walk back along one.

    Attributes:
      query_of, object_of: the partners so far.
      pending: objects that have none yet.
      price: of each query; costs less prices are no smaller than an object's own.
      start, row: the object that is being assigned; the one from which the search goes on.
      distance: of each query from the start; `before`: the object before it on the way.
      settled: queries whose distance is the shortest.
      reached: query without a partner at the path's end, from which the walk goes back.
    """

    query_of: Int[Array, "L"]
    object_of: Int[Array, "Q"]
    pending: Bool[Array, "L"]
    price: Float[Array, "Q"]
    start: Int[Array, ""]
    row: Int[Array, ""]
    distance: Float[Array, "Q"]
    before: Int[Array, "Q"]
    settled: Bool[Array, "Q"]
    reached: Int[Array, ""]


def assign(cost: Float[Array, "L Q"], wanted: Bool[Array, "L"]) -> Int[Array, "L"]:
    """Assign each wanted object to a query of its own, such that the sum of costs is least.

    Shortest augmenting paths (Jonker and Volgenant 1987): objects that are first at their cheapest
    query keep it, each other one is added by the shortest path that changes partners. Search and
    walk are steps of one loop, so that a batch of problems, by `vmap`, takes as many steps as its
    longest. It is exact, up to the rounding of sums of costs.

    On two CPU cores 24 problems (4 images, 6 layers) of 8 objects and 100 queries take 2.0 ms, and
    scipy's, called back on the host, 0.9 ms; 96 of 40 objects 9.8 and 4.7 ms. A callback stops an
    accelerator in each step, and a program with one is of this machine alone.

    Args:
      cost: what is not finite is as dear as FORBIDDEN, so that a diverged model ends the loop too.
      wanted: the others take no part.

    Returns:
      The query of each object, NONE for those that are not wanted.

    Raises:
      ValueError: there are more objects than queries.
    """
    objects, queries = cost.shape
    if objects > queries:
        raise ValueError(
            f"There is room for {objects} objects of an image, and the model finds {queries} at "
            f"most; choose as many queries, or a smaller config.detection.limit."
        )
    cost = jnp.nan_to_num(cost, nan=FORBIDDEN, posinf=FORBIDDEN, neginf=FORBIDDEN)
    cheapest = cost.argmin(axis=1)
    claims = wanted[:, None] & (cheapest[:, None] == jnp.arange(queries))
    object_of = jnp.where(claims.any(axis=0), claims.argmax(axis=0), NONE)
    first = wanted & (object_of[cheapest] == jnp.arange(objects))
    none = jnp.int32(NONE)
    state = _State(
        jnp.where(first, cheapest, NONE).astype(jnp.int32), object_of.astype(jnp.int32),
        wanted & ~first, jnp.zeros(queries, cost.dtype), none, none,
        jnp.zeros(queries, cost.dtype), jnp.full(queries, NONE, jnp.int32),
        jnp.zeros(queries, bool), none,
    )  # fmt: skip

    def step(s: _State) -> _State:
        s = jax.lax.cond(s.start == NONE, _begin, lambda s: s, s)
        return jax.lax.cond(s.reached == NONE, lambda s: _search(s, cost), _walk, s)

    def unfinished(s: _State) -> Array:
        return s.pending.any() | (s.start != NONE)

    return jax.lax.while_loop(unfinished, step, state).query_of


def _begin(s: _State) -> _State:
    """Begin the search for the next object."""
    start = s.pending.argmax().astype(jnp.int32)
    return s._replace(
        start=start,
        row=start,
        pending=s.pending.at[start].set(False),
        distance=jnp.full_like(s.distance, jnp.inf),
        settled=jnp.zeros_like(s.settled),
    )


def _search(s: _State, cost: Float[Array, "L Q"]) -> _State:
    """Go on from an object to all queries, and settle the nearest; at a free one the path ends."""
    own = s.query_of[s.row]  # through which the object was reached, without a cost of its own
    reduced = cost[s.row] - s.price
    passed = jnp.where(own == NONE, 0, s.distance[own] - reduced[own])
    further = passed + reduced
    nearer = ~s.settled & (further < s.distance)
    distance = jnp.where(nearer, further, s.distance)
    before = jnp.where(nearer, s.row, s.before)
    nearest = jnp.where(s.settled, jnp.inf, distance).argmin().astype(jnp.int32)
    partner = s.object_of[nearest]
    ended = partner == NONE
    rise = jnp.where(ended & s.settled, distance - distance[nearest], 0)
    return s._replace(
        row=jnp.where(ended, s.row, partner),
        distance=distance,
        before=before,
        settled=s.settled.at[nearest].set(True),
        price=s.price + rise,
        reached=jnp.where(ended, nearest, NONE),
    )


def _walk(s: _State) -> _State:
    """Give the reached query to the object before it, whose own becomes the reached one."""
    row = s.before[s.reached]
    left = s.query_of[row]
    return s._replace(
        query_of=s.query_of.at[row].set(s.reached),
        object_of=s.object_of.at[s.reached].set(row),
        reached=left,
        start=jnp.where(row == s.start, NONE, s.start),
    )
