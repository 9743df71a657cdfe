"""Enlarging of maps by learnt weights."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL, Init


class Upsample(nn.Module):
    """Double the sides of a map by a transposed convolution, 2×2 with stride 2.

    The pixels do not overlap, so it is one matrix product. The kernel is `[2, 2, width, channels]`.
    """

    width: int
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        # PyTorch takes the outputs of a transposed convolution for its fan-in.
        init = self.param_init.conv(4 * self.width, 4 * channels)
        kernel = self.param("kernel", init["kernel_init"], (2, 2, self.width, channels))
        bias = self.param("bias", init["bias_init"], (self.width,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = jnp.einsum("bhwc,yxoc->bhywxo", x, kernel)
        return y.reshape(batch, 2 * height, 2 * width, self.width) + bias
