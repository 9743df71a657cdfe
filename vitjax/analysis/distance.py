"""Mean attention distance: how far each head looks, in pixels of the image (ViT, arXiv:2010.11929,
figures 7 and 11).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.analysis.attention import Capture, Layer
from vitjax.attention.rows import Rows, rows_of_cells


class Distances(NamedTuple):
    """Mean attention distance of a model's heads.

    Attributes:
      names: of the layers, first to last.
      pixels: for each layer one value for each head, in pixels of the image.
    """

    names: list[str]
    pixels: list[Float[np.ndarray, "h"]]


def attention_distances(capture: Capture) -> Distances:
    """Compute the mean attention distance of each head of each layer with queries on a map.

    Raises:
      ValueError: no queries have a place on the image.
    """
    layers = [layer for layer in capture.layers if layer.rows.queries.height]
    if not layers:
        raise ValueError(
            "No layer has queries on the image, so there are no distances; look at its rows."
        )
    return Distances([layer.name for layer in layers], [distance(layer) for layer in layers])


def distance(layer: Layer) -> Float[np.ndarray, "h"]:
    """Compute the mean distance from a query to where it looks, for each head.

    It is the mean over images and queries of Σ weight · distance / Σ weight, over keys on the map;
    a distance is that between the centres of query and key, which may stand for several pixels of
    the map. Weights count by their absolute value, and by the share of a key that is on the map.
    """
    return layer.stride * np.asarray(_in_map_pixels(layer.rows))


@jax.jit
def _in_map_pixels(rows: Rows) -> Float[Array, "h"]:
    tokens, height, width = rows.queries
    if rows.agents is not None:
        rows = rows_of_cells(rows.dense(), rows.queries, rows.keys)
    low, high = jnp.split(rows.where, 2, axis=-1)  # [b, g, q, k, 2]
    y, x = jnp.mgrid[:height, :width].reshape(2, -1) + 0.5
    query = jnp.stack([y, x], axis=-1)[:, None]
    away = jnp.linalg.norm((low + high) / 2 - query, axis=-1)  # [b, g, Q, k]
    inside = jnp.minimum(high, jnp.asarray(rows.keys[1:])) - jnp.maximum(low, 0)
    share = jnp.prod(jnp.maximum(inside, 0) / (high - low), axis=-1)
    weights = jnp.abs(rows.weights[:, :, tokens:, rows.keys.tokens :])
    batch, heads, *rest = weights.shape
    groups = share.shape[1]
    weights = weights.reshape(batch, groups, heads // groups, *rest) * share[:, :, None]
    total = jnp.maximum(weights.sum(axis=-1), jnp.finfo(weights.dtype).tiny)
    mean = (weights * away[:, :, None]).sum(axis=-1) / total
    return jnp.mean(mean, axis=(0, 3)).reshape(heads)
