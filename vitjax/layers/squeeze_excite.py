"""Squeeze-and-excitation: attention over channels (Hu et al., arXiv:1709.01507)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL, Init


class SqueezeExcite(nn.Module):
    """Scale each channel by a factor from 0 to 1 (equations 2 to 4).

    Two layers (parameters `fc1`, `fc2`) compute the factors from the mean of the map.

    Attributes:
      hidden: channels between the two layers.
      act: between the two layers.
      param_init: distributions of first weights; the layers count as 1×1 convolutions.
      dtype: of the computation.
    """

    hidden: int
    act: Callable[[Array], Array] = nn.relu
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Scale the channels of a map; the shape is kept."""

        def dense(y: Array, width: int, name: str) -> Array:
            init = self.param_init.conv(y.shape[-1], width)
            return nn.Dense(width, **init, dtype=self.dtype, name=name)(y)

        y = jnp.mean(x, axis=(1, 2), keepdims=True)
        y = self.act(dense(y, self.hidden, "fc1"))
        return x * nn.sigmoid(dense(y, x.shape[-1], "fc2"))
