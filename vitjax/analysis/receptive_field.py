"""Effective receptive field: how much each pixel of the image moves a feature (Luo et al.,
arXiv:1701.04128, section 2).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.models.protocols import Backbone


def effective_receptive_field(
    model: nn.Module, variables: Any, images: Array | np.ndarray, *, level: int = -1
) -> Float[np.ndarray, "H W"]:
    """Compute the mean size of the gradient of the central feature for each pixel, of sum 1.

    The feature is the sum over channels at the middle of a map of `features`; sizes are absolute
    values, summed over colours, meant over images.

    Args:
      level: number of the map, finest first; -1 is the coarsest.

    Raises:
      ValueError: the model gives no maps, not as many, or a feature that no pixel moves.
    """
    if not isinstance(model, Backbone):
        raise ValueError(
            f"A {type(model).__name__} gives no maps of features, and a receptive field is of one; "
            f"choose a backbone."
        )
    count = len(model.strides)
    if not -count <= level < count:
        raise ValueError(f"level={level}: the model has {count} maps, 0 to {count - 1}.")
    field = np.asarray(_slopes(model, variables, jnp.asarray(images), level), np.float64)
    if not field.sum():
        raise ValueError("No pixel moves the central feature; its gradient is zero everywhere.")
    return (field / field.sum()).astype(np.float32)


def side_of_share(field: Float[np.ndarray, "H W"], share: float = 0.5) -> int:
    """Find the shortest side, in pixels, of a square in the middle that holds a share of a field.

    Raises:
      ValueError: the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: give a part of the whole, between 0 and 1.")
    distance = [np.abs(np.arange(side) - (side - 1) / 2) for side in field.shape]
    away = np.maximum(distance[0][:, None], distance[1])  # half the side of the square around
    held = [(float(field[away <= reach].sum()), reach) for reach in np.unique(away)]
    reach = next(reach for sum_, reach in held if sum_ >= share * field.sum() * (1 - 1e-6))
    return int(2 * reach + 1)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _slopes(model: nn.Module, variables: Any, images: Array, level: int) -> Float[Array, "H W"]:
    def middle(x: Array) -> Array:
        features: Any = model.apply(variables, x, method="features")
        height, width = features[level].shape[1:3]
        return features[level][:, height // 2, width // 2].sum()

    return jnp.abs(jax.grad(middle)(images)).sum(axis=-1).mean(axis=0)
