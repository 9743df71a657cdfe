"""Maps: what takes no sequence says so, and the depthwise convolution of position encodings, local
terms and convolutional MLPs.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.kernels.depthwise import depthwise_conv_general_dilated
from vitjax.layers.init import NORMAL, Init


def require_map(x: Array) -> None:
    """Raises ValueError unless x is `[B, H, W, C]`.

    A convolution would take a sequence `[B, N, C]` for one map, and mix the batch.
    """
    if x.ndim != 4:
        raise ValueError(
            f"A map [B, H, W, C] is needed here, and this is a sequence of shape {x.shape}; choose "
            "a token mixer that takes sequences ('full'), or a model whose blocks see maps; a "
            "ViT's do without class token and registers (pool='gap')."
        )


def depthwise_conv(
    kernel_size: int, name: str, param_init: Init = NORMAL, dtype: Any = None, stride: int = 1
) -> Callable[[Array], Array]:
    """A depthwise convolution with bias, zero-padded to keep the side (at stride 1)."""

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
            conv_general_dilated=depthwise_conv_general_dilated,
            **param_init.conv(k * k, k * k),
            dtype=dtype,
            name=name,
        )(x)

    return conv
