"""The MLPs of the blocks: features to features of the same shape."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vitjax.layers.conv import depthwise_conv

trunc_normal = nn.initializers.truncated_normal(0.02)


def gelu(x: Array) -> Array:
    """The exact GELU (with erf): the tanh form moves logits by up to 7e-3."""
    return jax.nn.gelu(x, approximate=False)


class Mlp(nn.Module):
    """Dense, activation, Dense (ViT, arXiv:2010.11929, eq. 3).

    Attributes:
      mlp_ratio: hidden width over width.
      drop_rate: dropout after the activation and at the output.
    """

    mlp_ratio: float = 4.0
    act: Callable[[Array], Array] = gelu
    drop_rate: float = 0.0
    kernel_init: Any = trunc_normal
    bias_init: Any = nn.initializers.zeros
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(
                width,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
                dtype=self.dtype,
                name=name,
            )

        def drop(x: Array) -> Array:
            return nn.Dropout(self.drop_rate, deterministic=not train)(x)

        width = x.shape[-1]
        x = drop(self.act(dense(round(width * self.mlp_ratio), "fc1")(x)))
        return drop(dense(width, "fc2")(x))


class ConvMlp(nn.Module):
    """Dense, depthwise 3×3 convolution, activation, Dense: an MLP that sees its neighbours.

    PVT v2 (arXiv:2106.13797, section 3.3) convolves the hidden map; DAT++ and DeBiFormer add the
    convolution to it (`residual`).

    Attributes:
      mlp_ratio: hidden width over width.
      pre_act: an activation between `fc1` and the convolution (PVT v2 with linear attention: ReLU).
    """

    mlp_ratio: float = 4.0
    residual: bool = False
    act: Callable[[Array], Array] = gelu
    pre_act: Callable[[Array], Array] | None = None
    drop_rate: float = 0.0
    kernel_init: Any = trunc_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, kernel_init=self.kernel_init, dtype=self.dtype, name=name)

        def drop(x: Array) -> Array:
            return nn.Dropout(self.drop_rate, deterministic=not train)(x)

        width = x.shape[-1]
        x = dense(round(width * self.mlp_ratio), "fc1")(x)
        x = self.pre_act(x) if self.pre_act is not None else x
        y = depthwise_conv(3, "dwconv", self.dtype)(x)
        x = drop(self.act(x + y if self.residual else y))
        return drop(dense(width, "fc2")(x))
