"""Attention in 16 bits, written so that XLA fuses it: a step moves a third of the bytes.

The plain form is `vitjax.attention.core.attention_weights` and `weighted_sum`, which a test
compares. What is different, and what each difference is for (TPU compiler, ViT-B/16):

- Queries are the minor axis of all arrays, as the matrix products write them: no copies between.
- The largest logit is found by a product of its own, whose result is that row of maxima; then the
  exponentials follow from a second product. Neither writes the float32 logits to memory.
- The weights are divided by their sum after they have mixed the values: one pass less over them.
- The backward pass computes the weights again from q and k instead of keeping them, and takes the
  sum over keys of weight times its gradient as the output times its gradient
  (FlashAttention, arXiv:2205.14135, section 3.1 and appendix B.2).

On GPUs cuDNN's kernel computes it where it takes the shapes and is worth it (cudnn.py).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier
from jaxtyping import Array, Bool, Float

from vitjax.kernels import cudnn
from vitjax.kernels.platform import on_gpu
from vitjax.kernels.scopes import recomputed


@jax.custom_vjp
def attention_half(
    q: Float[Array, "*B N h d"],
    k: Float[Array, "*B M h d"],
    v: Float[Array, "*B M h e"],
    bias: Float[Array, "..."] | None,
    mask: Bool[Array, "..."] | None,
) -> Float[Array, "*B N h e"]:
    """Compute softmax(q kᵀ + bias) v with the softmax in float32; q is scaled already.

    Differentiable once, in reverse mode.

    Args:
      bias, mask: broadcast to `[*B, h, N, M]`, of at least two axes.
    """
    return _forward(q, k, v, bias, mask)[0]


def _forward(q: Array, k: Array, v: Array, bias: Any, mask: Any) -> tuple[Array, Any]:
    q, k, v = (jnp.moveaxis(x, -3, -1) for x in (q, k, v))
    out, *sums = _attend(q, k, v, *_given(bias, mask), **_which(bias, mask))
    return jnp.moveaxis(out, -1, -3), (q, k, v, bias, mask, *sums, out)


def _backward(kept: tuple[Any, ...], grad: Array) -> tuple[Any, ...]:
    q, k, v, bias, mask, top, total, out = kept
    arrays = (jnp.moveaxis(grad, -3, -1), q, k, v, top, total, out, *_given(bias, mask))
    dq, dk, dv, *d_bias = _gradients(*arrays, **_which(bias, mask))
    dq, dk, dv = (jnp.moveaxis(x, -1, -3) for x in (dq, dk, dv))
    return dq, dk, dv, d_bias[0] if d_bias else None, None


attention_half.defvjp(_forward, _backward)


def _given(bias: Any, mask: Any) -> list[Array]:
    return [x for x in (bias, mask) if x is not None]


def _which(bias: Any, mask: Any) -> dict[str, bool]:
    return {"has_bias": bias is not None, "has_mask": mask is not None}


def _split(given: tuple[Array, ...], has_bias: bool, has_mask: bool) -> tuple[Any, Any]:
    return given[0] if has_bias else None, given[-1] if has_mask else None


def _plain_attend(
    q: Float[Array, "*B h d N"],
    k: Float[Array, "*B h d M"],
    v: Float[Array, "*B h e M"],
    *given: Array,
    **which: bool,
) -> tuple[Float[Array, "*B h e N"], Float[Array, "*B h 1 N"], Float[Array, "*B h 1 N"]]:
    """Compute the output, and for each query its largest logit and the sum of its exponentials."""
    bias, mask = _split(given, **which)
    with recomputed():
        top = jnp.max(_logits(q, k, bias, mask, 0.5), axis=-2, keepdims=True)
    weights = jnp.exp(_logits(q, k, bias, mask, 1.0) - top)
    total = jnp.sum(weights, axis=-2, keepdims=True)
    out = jnp.einsum(
        "...hmn,...hem->...hen", weights.astype(q.dtype), v, preferred_element_type=jnp.float32
    )
    # Without the barrier XLA keeps the float32 value, twice the bytes, for the backward pass.
    return optimization_barrier((out / total).astype(q.dtype)), top, total


def _plain_gradients(
    grad: Float[Array, "*B h e N"],
    q: Float[Array, "*B h d N"],
    k: Float[Array, "*B h d M"],
    v: Float[Array, "*B h e M"],
    top: Float[Array, "*B h 1 N"],
    total: Float[Array, "*B h 1 N"],
    out: Float[Array, "*B h e N"],
    *given: Array,
    **which: bool,
) -> tuple[Array, ...]:
    """Compute the gradients of q, k, v, and of the bias if there is one."""
    bias, mask = _split(given, **which)
    # The weights hang on the gradient, so that they are not computed in the forward pass and kept.
    grad, top = optimization_barrier((grad, top))
    delta = grad.astype(jnp.float32) * out.astype(jnp.float32)
    delta = jnp.sum(delta, axis=-2, keepdims=True)
    weights = (jnp.exp(_logits(q, k, bias, mask, 2.0) - top) / total).astype(q.dtype)
    dv = jnp.einsum("...hmn,...hen->...hem", weights, grad)
    inner = jnp.einsum("...hem,...hen->...hmn", v, grad, preferred_element_type=jnp.float32)
    d_logits = weights.astype(jnp.float32) * (inner - delta)
    if mask is not None:
        d_logits = jnp.where(jnp.swapaxes(mask, -1, -2), d_logits, 0.0)
    d_bias = [] if bias is None else [_sum_to(jnp.swapaxes(d_logits, -1, -2), bias)]
    d_logits = d_logits.astype(q.dtype)
    dq = jnp.einsum("...hmn,...hdm->...hdn", d_logits, k)
    dk = jnp.einsum("...hmn,...hdn->...hdm", d_logits, q)
    return dq, dk, dv, *d_bias


def _served(q: Array, k: Array, v: Array) -> bool:
    return cudnn.serves(q.shape[-1], k.shape[-1], q.shape[-2], v.shape[-2])


def _cudnn(q: Array, k: Array, v: Array) -> Array:
    """Compute cuDNN's output, in the layout of `_plain_attend`."""
    q, k, v = (jnp.moveaxis(x, -1, -3) for x in (q, k, v))
    return jnp.moveaxis(cudnn.attend(q, k, v), -3, -1)


def _cudnn_attend(q: Array, k: Array, v: Array, *given: Array, **which: bool) -> tuple[Array, ...]:
    if given or not _served(q, k, v):
        return _plain_attend(q, k, v, *given, **which)
    unused = jnp.zeros((*q.shape[:-2], 1, q.shape[-1]), jnp.float32)
    return _cudnn(q, k, v), unused, unused


def _cudnn_gradients(
    grad: Array, q: Array, k: Array, v: Array, top: Array, total: Array, out: Array,
    *given: Array, **which: bool,
) -> tuple[Array, ...]:  # fmt: skip
    if given or not _served(q, k, v):
        return _plain_gradients(grad, q, k, v, top, total, out, *given, **which)
    # JAX has no name for the backward kernel alone: the forward one runs again, for its row sums.
    return jax.vjp(_cudnn, q, k, v)[1](grad)


_attend = on_gpu(_plain_attend, _cudnn_attend)
_gradients = on_gpu(_plain_gradients, _cudnn_gradients)


def _logits(q: Array, k: Array, bias: Any, mask: Any, factor: float) -> Float[Array, "*B h M N"]:
    """Compute the logits of the queries times a power of two, divided by it again.

    The numbers are equal, but are no common subexpression whose result XLA would keep.
    """
    logits = jnp.einsum("...hdm,...hdn->...hmn", k, q * factor, preferred_element_type=jnp.float32)
    logits /= factor
    if bias is not None:
        logits += jnp.swapaxes(bias, -1, -2).astype(jnp.float32)
    if mask is not None:
        logits = jnp.where(jnp.swapaxes(mask, -1, -2), logits, jnp.finfo(jnp.float32).min)
    return logits


def _sum_to(x: Array, like: Array) -> Array:
    """Sum x to the shape of `like`: the transpose of broadcasting."""
    lead = x.ndim - like.ndim
    axes = [*range(lead), *(lead + i for i, size in enumerate(like.shape) if size == 1)]
    return jnp.sum(x, axis=axes).reshape(like.shape).astype(like.dtype)
