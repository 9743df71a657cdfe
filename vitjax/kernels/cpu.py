"""Memory layout hints for XLA's CPU backend, which do nothing on other platforms.

Each is linear and changes no number. The reason for each was found with `benchmarks/cpu.py
--profile`; the gains are in docs/performance.md.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier
from jaxtyping import Array, Float

from vitjax.kernels.platform import linear_on_cpu


def keep(x: Array) -> Array:
    """Return x and make CPUs write it, and its gradient, to memory once.

    XLA's CPU backend fuses a value into each of its readers. Where those are sums, of which a
    fusion holds one, the value is computed again for each, and so is what it was computed from: in
    the gradient of a residual network, the whole chain of additions behind it.
    """
    return _keep(x)[0]


def heads_first(x: Float[Array, "*B N h d"]) -> Float[Array, "*B N h d"]:
    """Return x in the memory layout `[*B, h, N, d]` on CPUs, which batched matrix products read.

    Otherwise the product over heads that are not leading is computed without blocks, at a fourth of
    the speed.
    """
    return _heads_first(x)[0]


def cut(x: Float[Array, "*B n h d"]) -> tuple[Float[Array, "*B h d"], ...]:
    """Return the n parts along the third last axis.

    The gradient of indexing is a sum of padded arrays, which CPUs compute literally; here it is a
    concatenation.
    """
    return _cut(x)


def dot_general(x: Array, kernel: Array, dims: Any, precision: Any = None) -> Array:
    """Compute `jax.lax.dot_general` between kept values, for `nn.Dense(dot_general=…)`.

    The kernel's gradient reads its operands transposed; XLA's CPU backend would compute what they
    depend on in that order, element by element with strides.
    """
    return keep(jax.lax.dot_general(keep(x), kernel, dims, precision=precision))


def _same(x: Array) -> tuple[Array]:
    return (x,)


def _barrier(x: Array) -> tuple[Array]:
    return (optimization_barrier(x),)


def _swapped_barrier(x: Array) -> tuple[Array]:
    return (jnp.swapaxes(optimization_barrier(jnp.swapaxes(x, -3, -2)), -3, -2),)


def _index(x: Array) -> tuple[Array, ...]:
    return tuple(x[..., i, :, :] for i in range(x.shape[-3]))


def _padded_sum(*parts: Array) -> tuple[Array]:
    shape = (*parts[0].shape[:-2], len(parts), *parts[0].shape[-2:])
    return jax.linear_transpose(_index, jax.ShapeDtypeStruct(shape, parts[0].dtype))(parts)


def _stack(*parts: Array) -> tuple[Array]:
    return (jnp.stack(parts, axis=-3),)


_keep = linear_on_cpu(_same, _barrier, lambda grad: _keep(grad))
_heads_first = linear_on_cpu(_same, _swapped_barrier, lambda grad: _heads_first(grad))
_cut = linear_on_cpu(_index, _index, lambda *grads: _join(*grads))
_join = linear_on_cpu(_padded_sum, _stack, lambda grad: _cut(grad))
