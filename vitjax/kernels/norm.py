"""LayerNorm on CPUs, with a gradient of its own; see `layer_norm`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "*B C"], scale: Float[Array, "C"], bias: Float[Array, "C"], epsilon: float
) -> Float[Array, "*B C"]:
    """Normalise over channels (Ba et al., arXiv:1607.06450, eq. 4), for XLA's CPU backend.

    The plain form is flax's LayerNorm. XLA computes the gradients of scale and bias, sums over
    rows, in one fusion each with all that their terms depend on. Here every sum has its own pass,
    and of the forward pass mean and reciprocal deviation of each row are kept, and no array.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Any]:
    mean = optimization_barrier(jnp.mean(x, axis=-1, keepdims=True))
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    factor = optimization_barrier(jax.lax.rsqrt(variance + epsilon))
    y = optimization_barrier((x - mean) * (factor * scale) + bias)
    return y, (x, scale, mean, factor)


def _backward(epsilon: float, kept: Any, grad: Array) -> tuple[Array, Array, Array]:
    x, scale, mean, factor = kept
    grad = optimization_barrier(grad)
    normal, scaled = (x - mean) * factor, grad * scale
    rows = tuple(range(x.ndim - 1))
    along = jnp.mean(scaled, axis=-1, keepdims=True)
    across = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    along, across = optimization_barrier((along, across))
    dx = optimization_barrier(factor * (scaled - along - normal * across))
    return dx, jnp.sum(grad * normal, axis=rows), jnp.sum(grad, axis=rows)


layer_norm.defvjp(_forward, _backward)
