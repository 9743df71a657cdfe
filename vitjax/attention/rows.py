"""Attention of any mixer as rows: which places of the map each query attends to, and how much.

A mixer that attends has a method `attention_rows(sown, *places)`, which makes `Rows` of what it
sowed into `intermediates`. It stands beside the mixer's function, and is the only place that knows
where the mixer's keys lie. `vitjax.analysis` calls it; training does not.

Keys lie in boxes. A pixel of the map is a box of 1×1, a key that was reduced from r×r pixels is a
box of r×r, and a bilinear sample at a point between pixels is a box of 1×1 around that point: the
shares of such a box in the four pixels below it are the sample's weights. What of a box lies
outside of the map, as padding does, is no part of the image.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Place(NamedTuple):
    """Where a sequence lies: tokens without a place, which come first, then a map row by row.

    Attributes:
      tokens: number of class tokens, registers and the like.
      height, width: rows and columns of the map; 0 if there is none.
    """

    tokens: int = 0
    height: int = 0
    width: int = 0

    @property
    def length(self) -> int:
        """Number of positions of the sequence."""
        return self.tokens + self.height * self.width


@runtime_checkable
class GivesRows(Protocol):
    """Module that attends, and says where."""

    def attention_rows(self, sown: Mapping[str, Any], *places: Place) -> "Rows":
        """Make rows of what a call has sown.

        Args:
          sown: what the module and its parts sowed into `intermediates`.
          places: of each array that was given to the call, in their order.
        """
        ...


@flax.struct.dataclass
class Rows:
    """Attention of one layer: weights of each query's keys, and the boxes where the keys lie.

    A row sums to 1 where weights are a softmax's. It does not where the mechanism has no such
    weights: outlook attention (one for each window over the query), talking heads, two of the
    non-local functions, routes with `mul_weight`.

    Attributes:
      weights: `[B, h, Q, K]`, as they multiply the values.
      boxes: (top, left, bottom, right) of the keys after the tokens, `[b, g, q, k, 4]`, in pixels
        of the map from its top left corner; pixel (i, j) is the box (i, j, i+1, j+1). The axes b
        and q are 1 where all images or queries share their keys, g is the number of groups of heads
        with keys of their own. None if the keys are the pixels of the map, row by row.
      queries, keys: places of the queries and of the map where boxes lie.
      agents: rows of the keys' own attention, if what they stand for was itself attended to
        (DeBiFormer): queries attend to agents, agents to the map. `dense` then is the product of
        both, and `boxes` says where agents were sampled.
      whole: each box is one pixel of the map, or lies outside of it: sums then need no products.
    """

    weights: Float[Array, "B h Q K"]
    boxes: Float[Array, "b g q k 4"] | None
    queries: Place = flax.struct.field(pytree_node=False)
    keys: Place = flax.struct.field(pytree_node=False)
    agents: "Rows | None" = None
    whole: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def where(self) -> Float[Array, "b g q k 4"]:
        """Boxes of the keys after the tokens; those of the map's pixels if `boxes` is None."""
        if self.boxes is None:
            return shared_boxes(cell_boxes(self.keys.height, self.keys.width))
        return self.boxes

    def of(self, query: int | Int[Array, ""]) -> "Rows":
        """Return the row of one query, counted from 0 with the tokens first."""

        def pick(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, query, 1, axis=2)

        boxes = self.boxes
        if boxes is not None and boxes.shape[2] > 1:
            # Tokens have no boxes of their own: rows with boxes for each query are of maps alone.
            boxes = pick(boxes)
        return dataclasses.replace(self, weights=pick(self.weights), boxes=boxes)

    def dense(self) -> Float[Array, "B h Q M"]:
        """Compute the weight of every query and position: tokens first, then the map row by row.

        The sum of a row is less than that of `weights` by what lies outside of the map.
        """
        if self.agents is not None:
            return self.weights @ self.agents.dense()
        if self.boxes is None:
            return self.weights
        tokens, rest = jnp.split(self.weights, [self.keys.tokens], axis=-1)
        rest = self._grouped(rest)  # [B, g, e, Q, k]
        if self.whole:
            found = _sum_at(rest, self._cells()[:, :, None], self.keys)
            return jnp.concatenate([tokens, found.reshape(*tokens.shape[:-1], -1)], axis=-1)
        y, x = self._coverage()
        if self.boxes.shape[2] == 1:
            found = rest @ (y[..., None] * x[..., None, :]).reshape(*y.shape[:-1], -1)
        else:
            found = jnp.swapaxes(rest[..., None] * y[:, :, None], -1, -2) @ x[:, :, None]
        return jnp.concatenate([tokens, found.reshape(*tokens.shape[:-1], -1)], axis=-1)

    def reach(self) -> Bool[Array, "B g Q M"]:
        """Return which positions have a key of each query, for each group of heads.

        Of routed regions these are their pixels. Keys that a mask hides are among them.
        """
        own = dataclasses.replace(self, weights=jnp.ones_like(self.weights), agents=None)
        groups = self.where.shape[1]
        return own.dense()[:, :: self.weights.shape[1] // groups] > 0

    def pull(self, start: Float[Array, "B Q"]) -> Float[Array, "B M"]:
        """Compute the sum of the rows, weighted by `start`, as a mean over heads: startᵀ A.

        It does not build A: it is cheap for large maps too.
        """
        return self._pull(start[:, None]) / self.weights.shape[1]

    def normalized(self) -> "Rows":
        """Return rows of absolute weights that sum to 1, with what lies outside of the map."""
        weights = jnp.abs(self.weights)
        weights /= jnp.maximum(weights.sum(axis=-1, keepdims=True), jnp.finfo(weights.dtype).tiny)
        agents = None if self.agents is None else self.agents.normalized()
        return dataclasses.replace(self, weights=weights, agents=agents)

    def _pull(self, start: Float[Array, "B n Q"]) -> Float[Array, "B M"]:
        weights = start[..., None] * self.weights
        if self.agents is not None:
            return self.agents._pull(weights.sum(axis=2))
        if self.boxes is None:
            return weights.sum(axis=(1, 2))
        tokens, rest = jnp.split(weights, [self.keys.tokens], axis=-1)
        rest = self._grouped(rest).sum(axis=2)  # [B, g, Q, k]
        if self.boxes.shape[2] == 1:
            rest = rest.sum(axis=2)
        rest = rest.reshape(*rest.shape[:2], -1, 1)
        if self.whole:
            cells = self._cells().reshape(*self.boxes.shape[:2], -1)
            found = _sum_at(rest[..., 0], cells, self.keys).sum(axis=1)
            return jnp.concatenate([tokens.sum(axis=(1, 2)), found], axis=-1)
        y, x = (t.reshape(*t.shape[:2], -1, t.shape[-1]) for t in self._coverage())
        found = (jnp.swapaxes(rest * y, -1, -2) @ x).sum(axis=1)
        found = found.reshape(found.shape[0], -1)
        return jnp.concatenate([tokens.sum(axis=(1, 2)), found], axis=-1)

    def _grouped(self, weights: Float[Array, "B h Q k"]) -> Float[Array, "B g e Q k"]:
        batch, heads, *rest = weights.shape
        groups = self.where.shape[1]
        return weights.reshape(batch, groups, heads // groups, *rest)

    def _cells(self) -> Int[Array, "b g q k"]:
        """Return the number of the pixel that each box is; that of the pixels for those outside."""
        height, width = self.keys[1:]
        y, x = (self.where[..., i].astype(jnp.int32) for i in (0, 1))
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        return jnp.where(inside, y * width + x, height * width)

    def _coverage(self) -> tuple[Float[Array, "b g q k H"], Float[Array, "b g q k W"]]:
        """Compute the share of each box in each row and in each column of the map."""
        boxes = self.where

        def share(axis: int, side: int) -> Array:
            low, high = boxes[..., axis, None], boxes[..., axis + 2, None]
            cell = jnp.arange(side)
            inside = jnp.minimum(high, cell + 1) - jnp.maximum(low, cell)
            return jnp.maximum(inside, 0) / (high - low)

        return share(0, self.keys.height), share(1, self.keys.width)


def _sum_at(
    weights: Float[Array, "*S k"], cells: Int[Array, "..."], place: Place
) -> Float[Array, "*S M"]:
    """Sum weights by the pixels of a map that they belong to; those of one more are left out."""
    count = place.height * place.width
    cells = jnp.broadcast_to(cells, weights.shape).reshape(-1, weights.shape[-1])
    row = jnp.arange(cells.shape[0])[:, None]
    found = jnp.zeros((cells.shape[0], count + 1), weights.dtype)
    found = found.at[row, cells].add(weights.reshape(cells.shape))
    return found[:, :count].reshape(*weights.shape[:-1], count)


def rows_of_cells(weights: Float[Array, "B h Q K"], queries: Place, keys: Place) -> Rows:
    """Make rows of weights whose keys are the positions of a sequence or map, in order."""
    return Rows(weights, None, queries, keys)


def rows_of_map(
    weights: Float[Array, "B H W h K"],
    boxes: Float[Array, "b y x K 4"],
    keys: Place,
    whole: bool = True,
) -> Rows:
    """Make rows of weights laid out as the map of the queries; y = x = 1 if boxes are shared."""
    place = Place(0, *weights.shape[1:3])
    weights = weights.reshape(weights.shape[0], -1, *weights.shape[3:])
    boxes = boxes.reshape(boxes.shape[0], 1, -1, *boxes.shape[3:])
    return Rows(jnp.moveaxis(weights, 2, 1), boxes, place, keys, whole=whole)


def grid_boxes(
    rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, "h w 4"]:
    """Build the boxes of a grid from where its rows and columns begin and end, in pixels."""
    (top, bottom), (left, right) = rows, columns
    top, left = np.meshgrid(top, left, indexing="ij")
    bottom, right = np.meshgrid(bottom, right, indexing="ij")
    return np.stack([top, left, bottom, right], axis=-1).astype(np.float32)


def cell_boxes(height: int, width: int, size: int = 1) -> Float[np.ndarray, "h w 4"]:
    """Build the boxes of a map's pixels, or of its patches of `size` × `size` pixels.

    Pixels that are left over at the right and bottom belong to no patch. Where a side is shorter
    than a patch, there is one patch, as long as the side.
    """

    def cuts(length: int) -> tuple[np.ndarray, np.ndarray]:
        step = min(size, length)
        begin = step * np.arange(length // step)
        return begin, begin + step

    return grid_boxes(cuts(height), cuts(width))


def shared_boxes(boxes: Float[np.ndarray, "h w 4"]) -> Float[Array, "1 1 1 k 4"]:
    """Return the boxes of a grid as those of keys that all images, heads and queries share."""
    return jnp.asarray(boxes).reshape(1, 1, 1, -1, 4)


def point_boxes(pixels: Float[Array, "*B 2"]) -> Float[Array, "*B 4"]:
    """Build the boxes of bilinear samples at points (y, x), where pixel (i, j) is at (i, j)."""
    return jnp.concatenate([pixels, pixels + 1], axis=-1)


def sown_weights(sown: Mapping[str, Any], name: str = "attend") -> Array:
    """Return the weights that a `DotProductAttention` of this name has sown."""
    return jax.tree.leaves(sown[name]["weights"])[0]
