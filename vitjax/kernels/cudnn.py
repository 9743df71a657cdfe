"""Attention by cuDNN, for programs that are lowered for NVIDIA's GPUs.

XLA writes the logits and the weights of a GPU's attention to memory; cuDNN's kernel holds a block
of them on the chip (FlashAttention-2, arXiv:2307.08691). Which shapes take it is decided in
`serves` alone.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST = 16_384
"""Logits of a head from which the kernel is taken: with fewer (windows of 7×7 pixels), most of its
blocks of 64 or 128 rows would be padding."""
LARGEST = 128
"""Channels of a head; it takes multiples of 8."""
CAPABILITY = (8, 0)
"""Least compute capability: Ampere's. T4 and V100 have less."""

planned: tuple[int, int] | None = None
"""Compute capability of the GPUs that `vitjax plan` describes; None: those of this machine."""


def serves(queries: int, keys: int, channels: int, values: int) -> bool:
    """Return whether the kernel takes these numbers of positions and channels, and is worth it.

    Args:
      channels: of a head's queries and keys; `values`: of its values.
    """
    return (
        queries * keys >= LEAST
        and channels % 8 == 0
        and channels <= LARGEST
        and values == channels
        and _capability() >= CAPABILITY
    )


def attend(
    q: Float[Array, "*B N h d"],
    k: Float[Array, "*B M h d"],
    v: Float[Array, "*B M h d"],
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "*B N h d"]:
    """Compute softmax(q kᵀ) v; q is scaled already.

    Older versions of the kernel have no gradient for odd numbers of queries or keys: these are
    padded by one, which is masked.

    Args:
      implementation: of `jax.nn.dot_product_attention`; tests on CPUs take "xla".
    """
    lead, n, m = q.shape[:-3], q.shape[-3], k.shape[-3]
    q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
    lengths: dict[str, Any] = {}
    if n % 2 or m % 2:
        q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
        lengths["query_seq_lengths"] = jnp.full(len(q), n, jnp.int32)
        lengths["key_value_seq_lengths"] = jnp.full(len(q), m, jnp.int32)
    out = jax.nn.dot_product_attention(
        q, k, v, scale=1.0, implementation=implementation, **lengths
    )[:, :n]
    return out.reshape(*lead, *out.shape[1:])


def _capability() -> tuple[int, ...]:
    """Return the compute capability of the GPUs that a program is lowered for."""
    if planned is not None:
        return planned
    try:
        device = jax.local_devices(backend="cuda")[0]
    except RuntimeError:  # a program for GPUs is exported from a machine without one
        return (0, 0)
    return tuple(map(int, device.compute_capability.split(".")))
