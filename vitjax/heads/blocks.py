"""Parts of dense heads: a normalised convolution, a classifier, mmsegmentation's initialisation."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init, fan_out_normal, normal, zeros
from vitjax.layers.norm import batch_norm

DECODERS = ("authors", "mmsegmentation")
"""Whose form a decoder has, where mmsegmentation's is another function than its authors'."""


def normal_001(fan_in: int, fan_out: int) -> dict[str, Any]:
    """Initialise the kernel by normal(0.01) and the bias by zeros."""
    return dict(kernel_init=normal(0.01), bias_init=zeros)


MMSEG_INIT = Init(conv=fan_out_normal, head=normal_001)
"""As mmsegmentation draws its heads' (mmseg/models/decode_heads, mmcv's ConvModule)."""


def conv_norm_relu(
    width: int, kernel_size: int, name: str, *, use_bias: bool = False, param_init: Init, dtype: Any
) -> ConvNorm:
    """Build a convolution, BatchNorm (epsilon 1e-5) and ReLU; the map keeps its size.

    Args:
      kernel_size: odd.
    """
    return ConvNorm(
        width, kernel_size, 1, kernel_size // 2, use_bias=use_bias, norm=batch_norm(), act=nn.relu,
        param_init=param_init, dtype=dtype, name=name,
    )  # fmt: skip


class PixelClassifier(nn.Module):
    """Classify each pixel of a map: dropout of whole channels, then a 1×1 convolution (`conv`).

    Attributes:
      drop_rate: share of a sample's channels that training sets to zero.
    """

    num_classes: int
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W K"]:
        x = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2), deterministic=not train)(x)
        init = self.param_init.of_head(x.shape[-1], self.num_classes)
        return nn.Conv(self.num_classes, (1, 1), **init, dtype=self.dtype, name="conv")(x)


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Convert 16-bit predictions to float32, for losses and selections."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
