"""Stochastic depth, per sample (Huang et al., arXiv:1603.09382), and its linear schedule over
depth.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32


def drop_path(
    x: Float[Array, "B *S"], rate: float | Float[Array, ""], key: PRNGKeyArray | UInt32[Array, "2"]
) -> Float[Array, "B *S"]:
    """Drop a residual branch for a share `rate` of the samples.

    The others are scaled by 1 / (1 - rate).
    """
    keep = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros_like(x))


def drop_path_schedule(rate: float, depth: int) -> tuple[float, ...]:
    """Compute the rates of `depth` blocks, linear from 0 in the first to `rate` in the last."""
    return tuple(float(r) for r in np.linspace(0.0, rate, depth))
