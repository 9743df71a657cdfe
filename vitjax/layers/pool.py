"""Average pooling to a fixed number of cells."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def adaptive_average_pool(x: Float[Array, "B H W C"], side: int) -> Float[Array, "B s s C"]:
    """Average maps over `side` × `side` cells that cover them, as two matrix products.

    Cell i of an axis of length L spans ⌊i·L/side⌋ to ⌈(i+1)·L/side⌉: neighbours share a row where
    `side` does not divide L, and a map smaller than `side` is repeated.
    """

    def cells(length: int) -> Array:
        i = np.arange(side)
        start, stop = i * length // side, -(-(i + 1) * length // side)
        position = np.arange(length)
        inside = (position >= start[:, None]) & (position < stop[:, None])
        return jnp.asarray(inside / inside.sum(axis=1, keepdims=True), x.dtype)

    return jnp.einsum("sh,tw,bhwc->bstc", cells(x.shape[1]), cells(x.shape[2]), x)
