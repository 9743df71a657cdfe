"""Depthwise convolution: position encodings, local terms, and the middle of convolutional MLPs."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float


def depthwise_conv(
    kernel_size: int, name: str, dtype: Any = None, stride: int = 1
) -> Callable[[Array], Array]:
    """A depthwise convolution with bias, zero-padded by half its kernel on each side."""

    def conv(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        k, width = kernel_size, x.shape[-1]
        pad = ((k // 2, k // 2),) * 2
        return nn.Conv(
            width, (k, k), (stride,) * 2, pad, feature_group_count=width, dtype=dtype, name=name
        )(x)

    return conv
