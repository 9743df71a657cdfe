"""The MLPs of the blocks: features to features of the same shape."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vitjax.kernels import cpu
from vitjax.layers.activations import gelu
from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init


def activated_product(act: Callable[[Array], Array]) -> Callable[..., Array]:
    """`dot_general(act(x), kernel)` that keeps x and computes act(x) again in the backward pass.

    Of an MLP's two hidden arrays one is then kept; both gradients read it where they need it.
    """

    def dot_general(x: Array, kernel: Array, dims: Any, precision: Any = None) -> Array:
        def plain(hidden: Array, kernel: Array) -> Array:
            return jax.lax.dot_general(hidden, kernel, dims, precision=precision)

        @jax.custom_vjp
        def product(x: Array, kernel: Array) -> Array:
            return plain(act(x), kernel)

        def backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
            hidden, pull_act = jax.vjp(act, jax.lax.optimization_barrier(kept[0]))
            d_hidden, d_kernel = jax.vjp(plain, hidden, kept[1])[1](grad)
            return pull_act(d_hidden)[0], d_kernel

        product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), backward)
        return product(x, kernel)

    return dot_general


def hidden_width(width: int, mlp_ratio: float) -> int:
    """The product, its fraction dropped as published code does; 0.999999 is no fraction."""
    return int(width * mlp_ratio + 1e-6)


class Mlp(nn.Module):
    """Dense, activation, Dense (ViT, arXiv:2010.11929, eq. 3).

    Attributes:
      mlp_ratio: hidden width over width.
      drop_rate: dropout after the activation and at the output.
    """

    mlp_ratio: float = 4.0
    act: Callable[[Array], Array] = gelu
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        def dense(width: int, name: str, **kwargs: Any) -> nn.Dense:
            init = self.param_init.of_mlp(x.shape[-1], width)
            kwargs = {"dot_general": cpu.dot_general, **kwargs}
            return nn.Dense(width, **init, dtype=self.dtype, name=name, **kwargs)

        def drop(x: Array) -> Array:
            return nn.Dropout(self.drop_rate, deterministic=not train)(x)

        width = x.shape[-1]
        x = dense(hidden_width(width, self.mlp_ratio), "fc1")(x)
        if x.dtype.itemsize == 2 and not (train and self.drop_rate):
            return drop(dense(width, "fc2", dot_general=activated_product(self.act))(x))
        return drop(dense(width, "fc2")(drop(self.act(x))))


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
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        def dense(width: int, name: str) -> nn.Dense:
            init = self.param_init.of_mlp(x.shape[-1], width)
            options = dict(dtype=self.dtype, dot_general=cpu.dot_general)
            return nn.Dense(width, **init, **options, name=name)

        def drop(x: Array) -> Array:
            return nn.Dropout(self.drop_rate, deterministic=not train)(x)

        width = x.shape[-1]
        x = dense(hidden_width(width, self.mlp_ratio), "fc1")(x)
        x = self.pre_act(x) if self.pre_act is not None else x
        y = depthwise_conv(3, "dwconv", self.param_init, self.dtype)(x)
        x = drop(self.act(x + y if self.residual else y))
        return drop(dense(width, "fc2")(x))
