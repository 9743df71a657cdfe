"""The depthwise convolution of position encodings, local terms and convolutional MLPs."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.kernels.depthwise import depthwise_conv_general_dilated
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import PerAxis, per_axis, require_map


def depthwise_conv(
    kernel_size: PerAxis,
    name: str,
    param_init: Init = NORMAL,
    dtype: Any = None,
    stride: PerAxis = 1,
    use_bias: bool = True,
) -> Callable[[Array], Array]:
    """Build a depthwise convolution, zero-padded to keep the side (at stride 1).

    Of clips kernel and stride have a number for each axis, (t, y, x).
    """
    kernel = per_axis(kernel_size)
    strides = (stride,) * len(kernel) if isinstance(stride, int) else stride

    def conv(x: Float[Array, "B *S C"]) -> Float[Array, "B *s C"]:
        require_map(x, len(kernel))
        width, taps = x.shape[-1], math.prod(kernel)
        return nn.Conv(
            width,
            kernel,
            strides,
            tuple(((k - 1) // 2, k // 2) for k in kernel),
            feature_group_count=width,
            use_bias=use_bias,
            conv_general_dilated=depthwise_conv_general_dilated,
            **param_init.conv(taps, taps),
            dtype=dtype,
            name=name,
        )(x)

    return conv
