"""Scaled dot-product attention, shared by all mixers.

Scale, bias, mask and the dtype of the softmax are handled in this file alone.
"""

from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vitjax.kernels import cpu
from vitjax.kernels.attention import attention_half


def attention_weights(
    q: Float[Array, "*B N h d"],
    k: Float[Array, "*B M h d"],
    *,
    bias: Float[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    scale: float | None = None,
) -> Float[Array, "*B h N M"]:
    """Compute softmax(scale · q kᵀ + bias) over the keys (Vaswani et al., arXiv:1706.03762, eq. 1).

    Products accumulate and the softmax runs in float32 at least; the weights come back in q's
    dtype.

    Args:
      bias: added to the logits, broadcast to `[*B, h, N, M]`.
      mask: True where a query sees a key, broadcast likewise. A query that sees none gets uniform
        weights.
      scale: 1/√d if None.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    q, k = cpu.heads_first(q * jnp.asarray(scale, q.dtype)), cpu.heads_first(k)
    logits = jnp.einsum("...nhd,...mhd->...hnm", q, k, preferred_element_type=dtype)
    if bias is not None:
        logits += bias.astype(dtype)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(dtype).min)
    return jax.nn.softmax(logits, axis=-1).astype(q.dtype)


def weighted_sum(
    weights: Float[Array, "*B h N M"], v: Float[Array, "*B M h e"]
) -> Float[Array, "*B N h e"]:
    """Compute the weighted sum of the values for each query."""
    return cpu.heads_first(jnp.einsum("...hnm,...mhe->...nhe", weights, cpu.heads_first(v)))


def dot_product_attention(
    q: Float[Array, "*B N h d"],
    k: Float[Array, "*B M h d"],
    v: Float[Array, "*B M h e"],
    *,
    bias: Float[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    scale: float | None = None,
) -> Float[Array, "*B N h e"]:
    """Compute attention of N queries to M keys; see `attention_weights` for bias, mask, scale.

    In 16 bits `attention_half` computes it, in less memory.
    """
    if q.dtype == k.dtype == v.dtype and q.dtype.itemsize == 2:
        q *= jnp.asarray(q.shape[-1] ** -0.5 if scale is None else scale, q.dtype)
        bias = None if bias is None else jnp.atleast_2d(bias)
        mask = None if mask is None else jnp.atleast_2d(mask)
        return attention_half(q, k, v, bias, mask)
    return weighted_sum(attention_weights(q, k, bias=bias, mask=mask, scale=scale), v)


def expose(module: nn.Module, weights: Array) -> Array:
    """Sow a mixer's weights as `intermediates/…/weights`, and return them.

    A caller that wants their gradient gives zeros in the collection `offsets`, by the same path,
    which are added. Without either nothing is computed.
    """
    module.sow("intermediates", "weights", weights)
    if module.has_variable("offsets", "weights"):
        weights += module.get_variable("offsets", "weights").astype(weights.dtype)
    return weights


@runtime_checkable
class Attend(Protocol):
    """Protocol of an attention function: `dot_product_attention` or `DotProductAttention(…)`.

    The pure functions of mixers take it as the argument `attend`.
    """

    def __call__(
        self, q: Array, k: Array, v: Array, *, bias: Any = None, mask: Any = None, scale: Any = None
    ) -> Array: ...


class DotProductAttention(nn.Module):
    """Dot-product attention with dropout of the weights.

    The weights are sown as `intermediates/…/weights`, see `expose`.

    A mixer hands it to its pure function as `attend=`; it owns no parameters.
    """

    attn_drop_rate: float = 0.0
    train: bool = False

    @nn.compact
    def __call__(
        self,
        q: Float[Array, "*B N h d"],
        k: Float[Array, "*B M h d"],
        v: Float[Array, "*B M h e"],
        *,
        bias: Float[Array, "..."] | None = None,
        mask: Bool[Array, "..."] | None = None,
        scale: float | None = None,
    ) -> Float[Array, "*B N h e"]:
        dropped = self.train and self.attn_drop_rate > 0
        if not dropped and not self.is_mutable_collection("intermediates"):
            return dot_product_attention(q, k, v, bias=bias, mask=mask, scale=scale)
        weights = expose(self, attention_weights(q, k, bias=bias, mask=mask, scale=scale))
        weights = nn.Dropout(self.attn_drop_rate, deterministic=not self.train)(weights)
        return weighted_sum(weights, v)
