"""The depthwise convolution of position encodings, local terms and convolutional MLPs."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.kernels.depthwise import depthwise_conv_general_dilated
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import require_map


def depthwise_conv(
    kernel_size: int,
    name: str,
    param_init: Init = NORMAL,
    dtype: Any = None,
    stride: int = 1,
    use_bias: bool = True,
) -> Callable[[Array], Array]:
    """Build a depthwise convolution, zero-padded to keep the side (at stride 1)."""

    def conv(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        require_map(x)
        k, width = kernel_size, x.shape[-1]
        pad = (((k - 1) // 2, k // 2),) * 2
        return nn.Conv(
            width,
            (k, k),
            (stride,) * 2,
            pad,
            feature_group_count=width,
            use_bias=use_bias,
            conv_general_dilated=depthwise_conv_general_dilated,
            **param_init.conv(k * k, k * k),
            dtype=dtype,
            name=name,
        )(x)

    return conv
