"""Talking-heads attention (Shazeer et al., arXiv:2003.02436; CaiT, arXiv:2103.17239, appendix)."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import expose
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, rows_of_cells
from vitjax.layers.init import NORMAL, Init

Heads = Callable[[Float[Array, "*B h"]], Float[Array, "*B h"]]
"""A linear map of the heads."""


def talking_heads_weights(
    q: Float[Array, "B N h d"],
    k: Float[Array, "B M h d"],
    mix_logits: Heads,
    mix_weights: Heads,
    *,
    scale: float | None = None,
) -> Float[Array, "B N M h"]:
    """Compute W(softmax(L(scale · q kᵀ))): L and W are linear maps across the heads (section 3).

    The softmax runs over the M keys, in float32 at least.

    Args:
      scale: 1/√d if None.
    """
    q *= jnp.asarray(q.shape[-1] ** -0.5 if scale is None else scale, q.dtype)
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("bnhd,bmhd->bnmh", q, k, preferred_element_type=dtype)
    return mix_weights(jax.nn.softmax(mix_logits(logits), axis=-2))


class TalkingHeadsAttention(nn.Module):
    """Self-attention over all positions whose heads are mixed before and after the softmax.

    Parameters are those of `FullAttention`, and `proj_l` and `proj_w`, h × h each.

    Attributes:
      num_heads: heads; the width must be a multiple.
      qkv_bias: biases in the projections to q, k and v.
      scale: factor of the logits, 1/√head_dim if None.
      attn_drop_rate: dropout of the mixed weights; `drop_rate`: of the output.
    """

    num_heads: int
    qkv_bias: bool = True
    scale: float | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        q, k, v = project_heads(self, x.reshape(x.shape[0], -1, x.shape[-1]), 3, "qkv")
        init = self.param_init.dense(self.num_heads, self.num_heads)
        across = jnp.promote_types(q.dtype, jnp.float32)
        mix = [nn.Dense(self.num_heads, **init, dtype=across, name=f"proj_{n}") for n in "lw"]
        weights = talking_heads_weights(q, k, *mix, scale=self.scale)
        weights = jnp.moveaxis(expose(self, jnp.moveaxis(weights, -1, 1)), 1, -1)
        weights = nn.Dropout(self.attn_drop_rate, deterministic=not train)(weights)
        out = jnp.einsum("bnmh,bmhe->bnhe", weights.astype(v.dtype), v)
        return merge_heads(self, out, train).reshape(x.shape)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the mixed weights, which may be negative: all positions are keys."""
        return rows_of_cells(sown["weights"][0], place, place)

    @staticmethod
    def takes_sequences(**options: Any) -> bool:
        """Return whether sequences are accepted: always."""
        return True
