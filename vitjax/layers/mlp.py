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
from vitjax.layers.norm import batch_norm, normalize
from vitjax.layers.spec import Spec


def activated_product(act: Callable[[Array], Array]) -> Callable[..., Array]:
    """Build a `dot_general(act(x), kernel)` that recomputes act(x) in the backward pass.

    Only x is kept: one of an MLP's two hidden arrays; both gradients read it where they need it.
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
    """Compute the hidden width, rounded down as in published code (0.999999 counts as 1)."""
    return int(width * mlp_ratio + 1e-6)


def dense(
    mlp: Any, x: Array, width: int, name: str, dot_general: Callable[..., Array] = cpu.dot_general
) -> Array:
    """Apply a Dense layer of an MLP, with its initialisation and dtype."""
    init = mlp.param_init.of_mlp(x.shape[-1], width)
    return nn.Dense(width, **init, dtype=mlp.dtype, name=name, dot_general=dot_general)(x)


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
        def drop(x: Array) -> Array:
            return nn.Dropout(self.drop_rate, deterministic=not train)(x)

        width = x.shape[-1]
        x = dense(self, x, hidden_width(width, self.mlp_ratio), "fc1")
        if x.dtype.itemsize == 2 and not (train and self.drop_rate):
            return drop(dense(self, x, width, "fc2", activated_product(self.act)))
        return drop(dense(self, drop(self.act(x)), width, "fc2"))


class NormMlp(nn.Module):
    """Dense, norm, activation, Dense, norm: 1×1 convolutions with BatchNorm (EfficientFormer,
    arXiv:2206.01191, section 4.1).

    Attributes:
      mlp_ratio: hidden width over width.
      drop_rate: dropout after the activation and at the output.
    """

    mlp_ratio: float = 4.0
    norm: Spec = batch_norm()
    act: Callable[[Array], Array] = gelu
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        width = x.shape[-1]
        for i, out in enumerate((hidden_width(width, self.mlp_ratio), width), 1):
            x = dense(self, x, out, f"fc{i}")
            x = normalize(self.norm.default(dtype=self.dtype).build(name=f"norm{i}"), x, train)
            x = self.act(x) if i == 1 else x
            x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
        return x


class GatedMlp(nn.Module):
    """SwiGLU: (SiLU(x W) ∘ x V) W₂ with biases (Shazeer, arXiv:2002.05202, eq. 6).

    `fc1` holds W and V side by side.

    Attributes:
      mlp_ratio: width between them over width.
      drop_rate: dropout after the product and at the output.
    """

    mlp_ratio: float = 4.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        def drop(x: Array) -> Array:
            return nn.Dropout(self.drop_rate, deterministic=not train)(x)

        width, hidden = x.shape[-1], hidden_width(x.shape[-1], self.mlp_ratio)
        gate, value = jax.numpy.split(dense(self, x, 2 * hidden, "fc1"), 2, axis=-1)
        return drop(dense(self, drop(nn.silu(gate) * value), width, "fc2"))


class ConvMlp(nn.Module):
    """Dense, depthwise 3×3 convolution, activation, Dense: an MLP that sees its neighbours.

    PVT v2 (arXiv:2106.13797, section 3.3) convolves the hidden map; DAT++ and DeBiFormer add the
    convolution to it (`residual`).

    Attributes:
      mlp_ratio: hidden width over width.
      kernel_size_t: frames of the convolution of clips `[B, T, H, W, C]`; 0 for maps.
      pre_act: an activation between `fc1` and the convolution (PVT v2 with linear attention: ReLU).
    """

    mlp_ratio: float = 4.0
    residual: bool = False
    act: Callable[[Array], Array] = gelu
    pre_act: Callable[[Array], Array] | None = None
    drop_rate: float = 0.0
    kernel_size_t: int = 0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        def drop(x: Array) -> Array:
            return nn.Dropout(self.drop_rate, deterministic=not train)(x)

        width = x.shape[-1]
        x = dense(self, x, hidden_width(width, self.mlp_ratio), "fc1")
        x = self.pre_act(x) if self.pre_act is not None else x
        kernel = (self.kernel_size_t, 3, 3) if self.kernel_size_t else 3
        y = depthwise_conv(kernel, "dwconv", self.param_init, self.dtype)(x)
        x = drop(self.act(x + y if self.residual else y))
        return drop(dense(self, x, width, "fc2"))
