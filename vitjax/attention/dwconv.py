"""Depthwise convolution as a token mixer: one window for all positions, without softmax (Han et
al., arXiv:2106.04263, section 3.2).
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init


class DepthwiseConvMixer(nn.Module):
    """Pointwise, depthwise, pointwise: the projections of attention around a K×K convolution.

    Attributes:
      kernel_size: K, odd.
      drop_rate: dropout of the output.
    """

    kernel_size: int = 7
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        def dense(name: str) -> nn.Dense:
            width = x.shape[-1]
            init = self.param_init.dense(width, width)
            return nn.Dense(width, **init, dtype=self.dtype, name=name)

        conv = depthwise_conv(self.kernel_size, "dwconv", self.param_init, self.dtype)
        y = conv(dense("v")(x))
        return nn.Dropout(self.drop_rate, deterministic=not train)(dense("proj")(y))
