"""Multi-scale deformable attention: each query sums a few samples of several maps, at points and
with weights that it predicts (Deformable DETR, arXiv:2010.04159, eq. 2-3, section 4.1).
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vitjax.attention.core import expose
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, point_boxes
from vitjax.attention.sampling import reference_points, tent_weights, to_pixels
from vitjax.kernels.scopes import lookup
from vitjax.layers.init import NORMAL, Init, all_zeros
from vitjax.layers.maps import require_map

ROOM = 2**26
"""Weights of an image's rows, of all heads, that are in memory at a time."""


def multi_scale_deformable_attention(
    levels: Sequence[Float[Array, "B _ _ h d"]],
    points: Float[Array, "B N h L P 2"],
    weights: Float[Array, "B N h L P"],
    *,
    room: int = ROOM,
) -> Float[Array, "B N h d"]:
    """Sum bilinear samples of L maps, weighted, with zeros outside of the maps (eq. 3).

    Of each map the P samples of a query are one row of weights over its pixels: the sum over points
    of weight · tent of y · tent of x. The row times the map is their sum. So there is no gather,
    and no scatter in the backward pass. Rows that are many are made in chunks of queries, and made
    again in the backward pass.

    Args:
      levels: projected values of each map.
      points: (y, x) in [-1, 1], the outer edges of the maps' cells; keep them in float32.
      weights: they sum to 1 over levels and points.
      room: weights of an image's rows that are in memory at a time.
    """
    sampled = [
        _in_chunks(values, points[:, :, :, i], weights[:, :, :, i], room)
        for i, values in enumerate(levels)
    ]
    return sum(sampled[1:], sampled[0])


def _in_chunks(values: Array, points: Array, weights: Array, room: int) -> Array:
    """Compute `_of_map`, of many queries in chunks."""
    height, width, heads = values.shape[1:4]
    chunk = max(room // (height * width * heads), 1)
    if points.shape[1] <= chunk:
        return _of_map(values, points, weights)
    sample = jax.checkpoint(partial(_of_map, values))

    def one(query: tuple[Array, Array]) -> Array:
        return sample(query[0][:, None], query[1][:, None])[:, 0]

    queries = (jnp.moveaxis(points, 1, 0), jnp.moveaxis(weights, 1, 0))
    return jnp.moveaxis(jax.lax.map(one, queries, batch_size=chunk), 0, 1)


@lookup()
def _of_map(
    values: Float[Array, "B H W h d"],
    points: Float[Array, "B N h P 2"],
    weights: Float[Array, "B N h P"],
) -> Float[Array, "B N h d"]:
    """Sum the weighted samples of one map."""
    y, x = (
        tent_weights(points[..., axis], side, align_corners=False)
        for axis, side in enumerate(values.shape[1:3])
    )
    y = (weights[..., None] * y).astype(values.dtype)
    rows = jnp.einsum("bnhpy,bnhpx->bhnyx", y, x.astype(values.dtype))
    return jnp.einsum("bhnyx,byxhd->bnhd", rows, values)


def cell_centres(height: int, width: int) -> Float[Array, "H W 2"]:
    """Compute the (x, y) of a map's cells, from 0 to 1."""
    return (reference_points(height, width)[..., ::-1] + 1) / 2


def ring(heads: int, levels: int, points: int) -> Float[Array, "h L P 2"]:
    """Compute the first offsets (x, y): point k of a head lies k pixels away, in its direction.

    Directions are evenly spaced, and reach the sides of squares (section 4.1 and appendix A.4).
    """
    angle = jnp.arange(heads) * (2 * math.pi / heads)
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    direction /= jnp.abs(direction).max(axis=-1, keepdims=True)
    pixels = direction[:, None, None] * jnp.arange(1, points + 1)[:, None]
    return jnp.broadcast_to(pixels, (heads, levels, points, 2))


class MultiScaleDeformableAttention(nn.Module):
    """Deformable attention of queries to one map or several. Sows `points` `[B, N, h, L, P, 2]`.

    A token mixer, it samples the map of the queries. Offsets (`offset`) and weights (`weight`) are
    linear in the query; they begin as `ring` and as a mean.

    Attributes:
      num_heads: heads; the width must be a multiple.
      num_points: P, samples of each head in each map.
      qkv_bias: of the values.
      drop_rate: dropout of the output.
    """

    num_heads: int
    num_points: int = 4
    qkv_bias: bool = True
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        require_map(x)
        centres = cell_centres(*x.shape[1:3]).reshape(-1, 1, 2)
        centres = jnp.broadcast_to(centres, (len(x), *centres.shape))
        queries = x.reshape(len(x), -1, x.shape[-1])
        return self.sample(queries, centres, (x,), train=train).reshape(x.shape)

    @nn.compact
    def sample(
        self,
        queries: Float[Array, "B N C"],
        references: Float[Array, "B N L k"],
        levels: Sequence[Float[Array, "B _ _ C"]],
        inside: Sequence[Bool[Array, "B _ _"]] = (),
        train: bool = False,
    ) -> Float[Array, "B N C"]:
        """Compute what queries sample of several maps.

        Args:
          references: (x, y) from 0 to 1 in each map, or boxes (x, y, width, height) with which
            offsets grow.
          inside: which positions of each map are no padding: the others' values are zero.
        """
        heads, count, number = self.num_heads, len(levels), self.num_points
        shape = (*references.shape[:2], heads, count, number)
        offsets, logits = self._predict(queries, count)
        points = _points(offsets.reshape(*shape, 2), references, levels)
        self.sow("intermediates", "points", points)
        weights = expose(self, jax.nn.softmax(logits, axis=-1).astype(queries.dtype))
        flat = jnp.concatenate([v.reshape(v.shape[0], -1, v.shape[-1]) for v in levels], axis=1)
        (values,) = project_heads(self, flat, 1, "v")
        cuts = np.cumsum([v.shape[1] * v.shape[2] for v in levels])[:-1]
        maps = [
            part.reshape(*level.shape[:3], *part.shape[2:])
            for part, level in zip(jnp.split(values, cuts, axis=1), levels)
        ]
        if inside:
            maps = [jnp.where(i[..., None, None], v, 0) for i, v in zip(inside, maps, strict=True)]
        out = multi_scale_deformable_attention(maps, points, weights.reshape(shape))
        return merge_heads(self, out, train)

    def _predict(self, x: Array, levels: int) -> tuple[Array, Array]:
        """Predict offsets in pixels, and logits `[B, N, h, L · P]`, in float32 at least."""
        heads, number = self.num_heads, self.num_points
        outputs = heads * levels * number
        first = ring(heads, levels, number).reshape(-1)
        zeros: dict[str, Any] = all_zeros(x.shape[-1], outputs)
        start: Any = zeros | dict(bias_init=lambda *_: first)
        offsets = nn.Dense(2 * outputs, **start, dtype=self.dtype, name="offset")(x)
        logits = nn.Dense(outputs, **zeros, dtype=self.dtype, name="weight")(x)
        exact = jnp.promote_types(x.dtype, jnp.float32)
        logits = logits.reshape(*x.shape[:2], heads, levels * number)
        return offsets.astype(exact), logits.astype(exact)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights: each query has points of its own for each head."""
        points, sides = sown["points"][0][:, :, :, 0], place[1:]
        pixels = [to_pixels(points[..., i], side, False) for i, side in enumerate(sides)]
        boxes = jnp.moveaxis(point_boxes(jnp.stack(pixels, axis=-1)), 2, 1)
        return Rows(jnp.moveaxis(sown["weights"][0], 2, 1), boxes, place, place)


def _points(
    offsets: Float[Array, "B N h L P 2"],
    references: Float[Array, "B N L k"],
    levels: Sequence[Float[Array, "B _ _ C"]],
) -> Float[Array, "B N h L P 2"]:
    """Compute the points (y, x) in [-1, 1] that lie offsets (x, y) away from references.

    Offsets are in pixels of each map; from a box, in shares: P of them are half a side.
    """
    references = references.astype(offsets.dtype)[:, :, None, :, None]
    if references.shape[-1] == 2:
        sides = jnp.array([level.shape[2:0:-1] for level in levels], offsets.dtype)
        steps = 1 / sides[:, None]
    else:
        steps = references[..., 2:] / (2 * offsets.shape[-2])
    return 2 * (references[..., :2] + offsets * steps)[..., ::-1] - 1
