"""Neighbourhood attention: each position attends to the K×K positions nearest to it (NAT,
arXiv:2204.07143, eq. 1-3), the local companion of deformable attention in DAT++ (arXiv:2309.01430).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

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
    table: Float[Array, "h T T"] | None = None,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B H W h e"]:
    """Attend from each query to its size × size neighbourhood, moved inside the map at borders.

    Queries are taken in tiles of size², each with the (2·size - 1)² keys that hold all of its
    neighbourhoods and a mask: matrix products instead of a gather of size² keys for every query.
    Smaller tiles would mask fewer products, and are slower: tiles of 1 × size take 2.4 times as
    long by the TPU compiler's estimate, twice on a CPU.

    Args:
      size: K ≤ H, W. Of K = H = W it is full attention.
      table: bias of each head for the key's position relative to the query's, T = 2K - 1; entry
        (K - 1, K - 1) is the query itself.
    """
    height, width = q.shape[1:3]
    (top, y), (left, x) = neighborhood_tiles(height, size), neighborhood_tiles(width, size)

    def windows(t: Array) -> Array:
        rows = jnp.stack([t[:, i : i + y.shape[2]] for i in top], axis=1)
        tiles = jnp.stack([rows[:, :, :, j : j + x.shape[2]] for j in left], axis=2)
        return tiles.reshape(t.shape[0], len(top) * len(left), -1, *t.shape[3:])

    inside = (y >= 0)[:, None, :, None, :, None] & (x >= 0)[None, :, None, :, None, :]
    count = (len(top) * len(left), 1, size**2, y.shape[2] * x.shape[2])
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
    mask = jnp.asarray(inside.reshape(count))
    with share_of(size**2, count[3]):  # what a count of neighbours' products takes
        out = attend(queries, windows(k), windows(v), bias=bias, mask=mask)
    return window_merge(out, size, *padded)[:, :height, :width]


def neighborhood_tiles(
    length: int, size: int
) -> tuple[Int[np.ndarray, "t"], Int[np.ndarray, "t q k"]]:
    """Compute the first key and the table indices of tiles of `size` queries along one axis.

    The index of a query and key is key - query + size - 1, or -1 where the query does not see the
    key.
    """
    width = min(length, 2 * size - 1)
    begin = np.arange(0, length, size)
    first = np.clip(begin - size // 2, 0, length - width)
    query = begin[:, None, None] + np.arange(size)[:, None]
    key = first[:, None, None] + np.arange(width)
    start = np.clip(query - size // 2, 0, length - size)
    inside = (key >= start) & (key < start + size)
    return first, np.where(inside, key - query + size - 1, -1)


def neighborhood_attention_gather(
    q: Float[Array, "B H W h d"],
    k: Float[Array, "B H W h d"],
    v: Float[Array, "B H W h e"],
    *,
    size: int,
    table: Float[Array, "h T T"] | None = None,
) -> Float[Array, "B H W h e"]:
    """Compute `neighborhood_attention` by gathering the keys of each query: the reference form."""

    def axis(length: int) -> tuple[np.ndarray, np.ndarray]:
        query = np.arange(length)[:, None]
        key = np.clip(query - size // 2, 0, length - size) + np.arange(size)
        return key, key - query + size - 1

    (i, u), (j, v_) = axis(q.shape[1]), axis(q.shape[2])
    at = (slice(None), i[:, None, :, None], j[None, :, None, :])
    k, v = (t[at].reshape(*t.shape[:3], size**2, *t.shape[3:]) for t in (k, v))
    bias = None
    if table is not None:
        bias = table[:, u[:, None, :, None], v_[None, :, None, :]]  # [h, H, W, K, K]
        bias = jnp.moveaxis(bias, 0, 2).reshape(*q.shape[1:4], 1, size**2)
    return dot_product_attention(q[:, :, :, None], k, v, bias=bias)[:, :, :, 0]


def neighborhood_rows(weights: Float[Array, "B T h n M"], place: Place, size: int) -> Rows:
    """Make rows of the weights of `neighborhood_attention`: K² keys for each query."""
    axes = [neighborhood_tiles(max(side, size), size) for side in place[1:]]
    # Of the keys of a tile a query sees K that follow each other.
    begin = [np.argmax(index >= 0, axis=-1) for _, index in axes]  # [t, q]
    tiles = [len(first) for first, _ in axes]
    keys = [index.shape[2] for _, index in axes]
    batch, _, heads, *_ = weights.shape
    weights = weights.reshape(batch, *tiles, heads, size, size, *keys)
    (y, x) = (b[..., None] + np.arange(size) for b in begin)  # [t, q, K]
    weights = jnp.take_along_axis(weights, y[None, :, None, None, :, None, :, None], axis=6)
    weights = jnp.take_along_axis(weights, x[None, None, :, None, None, :, None, :], axis=7)
    weights = weights.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    weights = weights.reshape(batch, tiles[0] * size, tiles[1] * size, heads, size**2)
    y, x = (
        (first[:, None, None] + seen).reshape(-1, size)[:side]
        for (first, _), seen, side in zip(axes, (y, x), place[1:])
    )
    corner = np.stack(np.broadcast_arrays(y[:, None, :, None], x[None, :, None, :]), axis=-1)
    boxes = np.concatenate([corner, corner + 1], axis=-1, dtype=np.float32)
    boxes = jnp.asarray(boxes.reshape(1, *boxes.shape[:2], size**2, 4))
    return rows_of_map(weights[:, : place.height, : place.width], boxes, place)


class NeighborhoodAttention(nn.Module):
    """`neighborhood_attention` with a learned relative position bias.

    A map smaller than the neighbourhood is zero-padded at its right and bottom before the
    projections, as officially: padding carries their biases and is attended to.

    Attributes:
      neighborhood_size: K, in pixels of the map.

    The bias is drawn from normal(0.02) in every family, as the authors' library (NATTEN) does.
    """

    num_heads: int
    neighborhood_size: int = 7
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        require_map(x)
        height, width = x.shape[1:3]
        size = self.neighborhood_size
        if size < 1:
            raise ValueError(f"neighborhood_size={size}: a neighbourhood has at least 1 pixel.")
        bottom, right = (max(size - side, 0) for side in (height, width))
        if bottom or right:
            x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
        entries = 2 * size - 1
        table = self.param("rpb", nn.initializers.normal(0.02), (self.num_heads, entries, entries))
        q, k, v = project_heads(self, x, 3, "qkv")
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = neighborhood_attention(q, k, v, size=size, table=table.astype(q.dtype), attend=attend)
        return merge_heads(self, out[:, :height, :width], train)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights; see `neighborhood_rows`."""
        return neighborhood_rows(sown_weights(sown), place, self.neighborhood_size)
