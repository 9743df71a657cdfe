"""Neighbourhood attention: each position attends to the K×K positions nearest to it (NAT,
arXiv:2204.07143, eq. 1-3), the local companion of deformable attention in DAT++ (arXiv:2309.01430).

With a dilation d, they are the nearest at distances that are multiples of d (DiNAT,
arXiv:2209.15001, section 3). That is neighbourhood attention on each of d² phases of the map:
phase (i, j) has the rows i, i + d, i + 2d … and the columns j, j + d …, and borders of its own. A
side that is no multiple of d gives phases of two lengths.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, rows_of_map, sown_weights
from vitjax.attention.windows import window_merge, window_partition
from vitjax.kernels.scopes import lookup, share_of
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import pad_to_multiple, require_map


def neighborhood_attention(
    q: Float[Array, "B H W h d"],
    k: Float[Array, "B H W h d"],
    v: Float[Array, "B H W h e"],
    *,
    size: int,
    dilation: int = 1,
    table: Float[Array, "h T T"] | None = None,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B H W h e"]:
    """Attend from each query to its size × size neighbourhood, moved inside the map at borders.

    Queries are taken in tiles of size², each with the (2·size - 1)² keys that hold all of its
    neighbourhoods and a mask: matrix products instead of a gather of size² keys for every query.
    Smaller tiles would mask fewer products, and are slower: tiles of 1 × size take 2.4 times as
    long by the TPU compiler's estimate, twice on a CPU. Phases are more maps of the batch; where
    their lengths differ, each has its own mask.

    Args:
      size: K. Of K = H = W it is full attention.
      dilation: d, in pixels; K·d ≤ H, W.
      table: bias of each head for the key's position in the phase relative to the query's,
        T = 2K - 1; entry (K - 1, K - 1) is the query itself.

    Raises:
      ValueError: the map is smaller than K·d.
    """
    height, width = q.shape[1:3]
    (top, y, sees_y), (left, x, sees_x) = (
        neighborhood_tiles(side, size, dilation) for side in (height, width)
    )
    q, k, v = (split_phases(t, dilation) for t in (q, k, v))
    rows, columns = q.shape[1:3]

    def windows(t: Array) -> Array:
        rows = jnp.stack([t[:, i : i + y.shape[2]] for i in top], axis=1)
        tiles = jnp.stack([rows[:, :, :, j : j + x.shape[2]] for j in left], axis=2)
        return tiles.reshape(t.shape[0], len(top) * len(left), -1, *t.shape[3:])

    # Of phases, tiles, queries and keys: those along rows, then those along columns.
    mask = jnp.asarray(sees_y)[:, None, :, None, :, None, :, None]
    mask &= jnp.asarray(sees_x)[:, None, :, None, :, None, :]
    count = (len(top) * len(left), 1, size**2, y.shape[2] * x.shape[2])
    mask = mask.reshape(*mask.shape[:2], *count)
    bias = None
    if table is not None:
        entry = np.arange(2 * size - 1)
        by_row, by_column = (jnp.asarray(t[..., None] == entry, table.dtype) for t in (y, x))
        with lookup():
            bias = jnp.einsum("huv,yqku,xrsv->yxhqrks", table, by_row, by_column)
        bias = bias.reshape(count[0], -1, *count[2:])
    queries = pad_to_multiple(q.reshape(*q.shape[:3], -1), size)
    padded = queries.shape[1:3]
    queries = window_partition(queries.reshape(*queries.shape[:3], *q.shape[3:]), size)
    parts = (
        t.reshape(-1, dilation, dilation, *t.shape[1:]) for t in (queries, windows(k), windows(v))
    )
    # A count of neighbours' products: size² for each position of the map.
    with share_of(height * width, dilation**2 * count[0] * count[3]):
        out = attend(*parts, bias=bias, mask=mask)
    out = window_merge(out.reshape(-1, *out.shape[3:]), size, *padded)[:, :rows, :columns]
    return merge_phases(out, dilation)[:, :height, :width]


def split_phases(x: Float[Array, "B H W *S"], dilation: int) -> Float[Array, "BP h w *S"]:
    """Split a map into its P = dilation² phases, of one size by zeros at their right and bottom."""
    flat = pad_to_multiple(x.reshape(*x.shape[:3], -1), dilation)
    rows, columns = (side // dilation for side in flat.shape[1:3])
    phases = jnp.swapaxes(window_partition(flat, dilation), 1, 2)
    return phases.reshape(-1, rows, columns, *x.shape[3:])


def merge_phases(x: Float[Array, "BP h w *S"], dilation: int) -> Float[Array, "B H W *S"]:
    """Merge phases into their map, with its zeros; the inverse of `split_phases`."""
    rows, columns = x.shape[1:3]
    phases = x.reshape(-1, dilation**2, rows * columns, *x.shape[3:])
    return window_merge(jnp.swapaxes(phases, 1, 2), dilation, rows * dilation, columns * dilation)


def neighborhood_tiles(
    length: int, size: int, dilation: int = 1
) -> tuple[Int[np.ndarray, "t"], Int[np.ndarray, "t q k"], Bool[np.ndarray, "p t q k"]]:
    """Compute tiles of `size` queries along one axis of a phase.

    Returns:
      The first key of each tile; the table index of each query and key, key - query + size - 1;
      whether the query sees the key, for each phase, or once if all are of one length.

    Raises:
      ValueError: the shortest phase has fewer positions than `size`.
    """
    if length < size * dilation:
        raise ValueError(
            f"A neighbourhood of {size} pixels with dilation {dilation} needs {size * dilation} "
            f"pixels along each side of its map, and one has {length}; pad the map, or choose a "
            f"smaller neighborhood_size or dilation."
        )
    rest = length % dilation
    longest = length // dilation + (rest > 0)
    lengths = np.where(np.arange(dilation) < rest, longest, length // dilation)
    width = min(longest, 2 * size - 1)
    begin = np.arange(0, longest, size)
    first = np.clip(begin - size // 2, 0, longest - width)
    query = begin[:, None, None] + np.arange(size)[:, None]
    key = first[:, None, None] + np.arange(width)
    last = lengths[: dilation if rest else 1, None, None, None] - size
    start = np.clip(query - size // 2, 0, last)
    return first, key - query + size - 1, (key >= start) & (key < start + size)


def neighborhood_attention_gather(
    q: Float[Array, "B H W h d"],
    k: Float[Array, "B H W h d"],
    v: Float[Array, "B H W h e"],
    *,
    size: int,
    dilation: int = 1,
    table: Float[Array, "h T T"] | None = None,
) -> Float[Array, "B H W h e"]:
    """Compute `neighborhood_attention` by gathering the keys of each query: the reference form."""

    def axis(length: int) -> tuple[np.ndarray, np.ndarray]:
        position = np.arange(length)[:, None]
        phase, query = position % dilation, position // dilation
        count = -(-(length - phase) // dilation)
        key = np.clip(query - size // 2, 0, count - size) + np.arange(size)
        return phase + dilation * key, key - query + size - 1

    (i, u), (j, v_) = axis(q.shape[1]), axis(q.shape[2])
    at = (slice(None), i[:, None, :, None], j[None, :, None, :])
    k, v = (t[at].reshape(*t.shape[:3], size**2, *t.shape[3:]) for t in (k, v))
    bias = None
    if table is not None:
        bias = table[:, u[:, None, :, None], v_[None, :, None, :]]  # [h, H, W, K, K]
        bias = jnp.moveaxis(bias, 0, 2).reshape(*q.shape[1:4], 1, size**2)
    return dot_product_attention(q[:, :, :, None], k, v, bias=bias)[:, :, :, 0]


def neighborhood_rows(
    weights: Float[Array, "B P P T h n M"], place: Place, size: int, dilation: int = 1
) -> Rows:
    """Make rows of the weights of `neighborhood_attention`: K² keys for each query."""
    axes = [neighborhood_tiles(max(side, size * dilation), size, dilation) for side in place[1:]]
    # Of the keys of a tile a query sees K that follow each other.
    begin = [np.argmax(sees, axis=-1) for _, _, sees in axes]  # [P or 1, t, q]
    tiles = [len(first) for first, _, _ in axes]
    keys = [sees.shape[3] for _, _, sees in axes]
    batch, heads = weights.shape[0], weights.shape[4]
    weights = weights.reshape(batch, dilation, dilation, *tiles, heads, size, size, *keys)
    (y, x) = (b[..., None] + np.arange(size) for b in begin)  # [P or 1, t, q, K]
    weights = jnp.take_along_axis(weights, y[None, :, None, :, None, None, :, None, :, None], 8)
    weights = jnp.take_along_axis(weights, x[None, None, :, None, :, None, None, :, None, :], 9)
    weights = weights.transpose(0, 3, 6, 1, 4, 7, 2, 5, 8, 9)
    sides = [count * size * dilation for count in tiles]
    weights = weights.reshape(batch, *sides, heads, size**2)
    y, x = (
        _pixels(first[:, None, None] + seen, dilation).reshape(-1, size)[:side]
        for (first, _, _), seen, side in zip(axes, (y, x), place[1:])
    )
    corner = np.stack(np.broadcast_arrays(y[:, None, :, None], x[None, :, None, :]), axis=-1)
    boxes = np.concatenate([corner, corner + 1], axis=-1, dtype=np.float32)
    boxes = jnp.asarray(boxes.reshape(1, *boxes.shape[:2], size**2, 4))
    return rows_of_map(weights[:, : place.height, : place.width], boxes, place)


def _pixels(keys: Int[np.ndarray, "P t q K"], dilation: int) -> Int[np.ndarray, "t q d K"]:
    """Compute the pixels of phases' positions; one phase stands for all that are alike."""
    phases = np.arange(dilation)[:, None, None, None]
    return np.moveaxis(keys * dilation + phases, 0, 2)


class NeighborhoodAttention(nn.Module):
    """`neighborhood_attention` with a learned relative position bias.

    A map smaller than the neighbourhood, K·d pixels, is zero-padded at its right and bottom before
    the projections, as the authors' models were published: padding carries the projections' biases
    and is attended to. Versions of their library since refuse such maps.

    Attributes:
      neighborhood_size: K, in pixels of the map.
      dilation: d, the distance of neighbours, in pixels of the map.

    The bias is drawn from normal(0.02) in every family, as the authors' library (NATTEN) does.
    """

    num_heads: int
    neighborhood_size: int = 7
    dilation: int = 1
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        require_map(x)
        height, width = x.shape[1:3]
        size, dilation = self.neighborhood_size, self.dilation
        if size < 1:
            raise ValueError(f"neighborhood_size={size}: a neighbourhood has at least 1 pixel.")
        if dilation < 1:
            raise ValueError(f"dilation={dilation}: neighbours are at least 1 pixel apart.")
        bottom, right = (max(size * dilation - side, 0) for side in (height, width))
        if bottom or right:
            x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
        entries = 2 * size - 1
        table = self.param("rpb", nn.initializers.normal(0.02), (self.num_heads, entries, entries))
        q, k, v = project_heads(self, x, 3, "qkv")
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = neighborhood_attention(
            q, k, v, size=size, dilation=dilation, table=table.astype(q.dtype), attend=attend
        )
        return merge_heads(self, out[:, :height, :width], train)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights; see `neighborhood_rows`."""
        return neighborhood_rows(sown_weights(sown), place, self.neighborhood_size, self.dilation)
