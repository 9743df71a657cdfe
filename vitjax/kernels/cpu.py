"""Where values lie in memory on CPUs: hints to XLA's CPU backend, which are no operation elsewhere.

Each is linear and the identity, so that values and gradients are those of the plain form, which is
no call at all. What each is for was read off `benchmarks/cpu.py --profile`; its gain is in
docs/performance.md.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier, platform_dependent
from jaxtyping import Array, Float


def keep(x: Array) -> Array:
    """Return x, written to memory once on CPUs, and so is its gradient.

    XLA's CPU backend fuses a value into each of its readers. Where those are sums, of which a
    fusion holds one, the value is computed anew for each, and so is what it was computed from: in
    the gradient of a residual network, the whole chain of additions behind it.
    """
    return platform_dependent(x, cpu=optimization_barrier, default=_same)


def heads_first(x: Float[Array, "*B N h d"]) -> Float[Array, "*B N h d"]:
    """Return x, in memory as `[*B, h, N, d]` on CPUs, as batched matrix products read it there.

    Left to itself, the product over heads that are not leading is computed without blocks, at a
    fourth of the speed.
    """
    return platform_dependent(x, cpu=_heads_first, default=_same)


def cut(x: Float[Array, "*B n h d"]) -> tuple[Float[Array, "*B h d"], ...]:
    """Return the n parts along the third last axis.

    The gradient of indexing is a sum of padded arrays, which CPUs compute as such; that of a split
    is a concatenation.
    """
    return platform_dependent(x, cpu=_split, default=_index)


def dot_general(x: Array, kernel: Array, dims: Any, precision: Any = None) -> Array:
    """Multiply as `jax.lax.dot_general`, for `nn.Dense(dot_general=…)`, between kept values.

    The kernel's gradient reads its operands transposed; XLA's CPU backend would compute what they
    depend on in that order, element by element with strides.
    """
    return keep(jax.lax.dot_general(keep(x), kernel, dims, precision=precision))


def _same(x: Array) -> Array:
    return x


def _heads_first(x: Array) -> Array:
    return jnp.swapaxes(optimization_barrier(jnp.swapaxes(x, -3, -2)), -3, -2)


def _index(x: Array) -> tuple[Array, ...]:
    return tuple(x[..., i, :, :] for i in range(x.shape[-3]))


def _split(x: Array) -> tuple[Any, ...]:
    parts = jax.lax.split(x, (1,) * x.shape[-3], axis=x.ndim - 3)
    return tuple(jnp.squeeze(part, -3) for part in parts)
