"""The normalisations as specs; their variance is two-pass, as E[x²] - E[x]² loses digits."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.kernels import cpu
from vitjax.layers.spec import Spec, spec


def layer_norm(epsilon: float = 1e-6) -> Spec:
    """LayerNorm over channels; epsilon is each paper's own: 1e-6 in ViT, 1e-5 in Swin."""
    return spec(_layer_norm, epsilon=epsilon)


class LayerNorm(nn.LayerNorm):
    """Flax's LayerNorm between kept values: its gradient is three sums, and XLA's CPU backend would
    compute what stands behind it for each (`vitjax.kernels.cpu.keep`).
    """

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:  # type: ignore[override]
        return cpu.keep(super().__call__(cpu.keep(x)))


def _layer_norm(epsilon: float, dtype: Any = None, **options: Any) -> nn.LayerNorm:
    """Of 16-bit numbers the one-pass variance, in float32, loses nothing that they have."""
    one_pass = dtype is not None and jnp.dtype(dtype).itemsize == 2
    return LayerNorm(epsilon, dtype=dtype, use_fast_variance=one_pass, **options)


def batch_norm(epsilon: float = 1e-5) -> Spec:
    """BatchNorm over all axes but channels, running statistics with momentum 0.9.

    Under `jit` the batch is the global one, however it is sharded.
    """
    return spec(nn.BatchNorm, epsilon=epsilon, momentum=0.9, use_fast_variance=False)


def normalize(norm: Any, x: Array, train: bool) -> Array:
    """Applies a norm module: a BatchNorm with the batch's statistics in training, the running ones
    otherwise.
    """
    return norm(x, use_running_average=not train) if isinstance(norm, nn.BatchNorm) else norm(x)
