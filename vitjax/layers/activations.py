"""Activation functions."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vitjax.kernels.platform import platform_dependent


def gelu(x: Array) -> Array:
    """Compute the exact GELU (with erf); the tanh form changes logits by up to 7e-3.

    It uses one erf, in 32 bits on CPUs too, and keeps only x for the gradient, outside of scans.
    """
    if x.dtype.itemsize == 2:
        return gelu_once(x)
    return platform_dependent(x, cpu=gelu_once, default=partial(jax.nn.gelu, approximate=False))


@jax.custom_vjp
def gelu_once(x: Array) -> Array:
    """Compute the exact GELU with one erf, in 32 bits at least; only x is kept."""
    return (x * _normal_cdf(x)).astype(x.dtype)


def _gelu_backward(x: Array, grad: Array) -> tuple[Array]:
    # The barrier keeps XLA from keeping the forward pass's erf, as large as x.
    x = _widened(jax.lax.optimization_barrier(x))
    density = jnp.exp(-0.5 * x * x) * (2 * math.pi) ** -0.5
    return ((grad * (_normal_cdf(x) + x * density)).astype(grad.dtype),)


def _normal_cdf(x: Array) -> Array:
    return 0.5 + 0.5 * jax.lax.erf(_widened(x) * 0.5**0.5)


def _widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


gelu_once.defvjp(lambda x: (gelu_once(x), x), _gelu_backward)


def gelu_tanh(x: Array) -> Array:
    """Approximate GELU by tanh (arXiv:1606.08415, section 2), flax's default."""
    return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: Array) -> Array:
    """Approximate GELU by x σ(1.702 x), as CLIP does (arXiv:1606.08415, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "silu": jax.nn.silu,
}
