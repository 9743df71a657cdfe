"""Average pooling to a fixed number of cells."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def adaptive_average_pool(x: Float[Array, "B H W C"], side: int) -> Float[Array, "B s s C"]:
    """Average maps over `side` × `side` cells that cover them, as two matrix products.

    Where `side` does not divide a side of the map, neighbours share a row, and a map smaller than
    `side` is repeated; see `adaptive_cells`.
    """

    def cells(length: int) -> Array:
        start, stop = adaptive_cells(length, side)
        position = np.arange(length)
        inside = (position >= start[:, None]) & (position < stop[:, None])
        return jnp.asarray(inside / inside.sum(axis=1, keepdims=True), x.dtype)

    return jnp.einsum("sh,tw,bhwc->bstc", cells(x.shape[1]), cells(x.shape[2]), x)


def adaptive_cells(length: int, side: int) -> tuple[Int[np.ndarray, "s"], Int[np.ndarray, "s"]]:
    """Compute where `side` cells of an axis of this length begin and end.

    Cell i spans ⌊i·length/side⌋ to ⌈(i+1)·length/side⌉.
    """
    i = np.arange(side)
    return i * length // side, -(-(i + 1) * length // side)
