"""Light attention: attention without projections of the map (Mobile-Former, arXiv:2108.05895,
section 3.1, eq. 1 and 2).

A few tokens and a map attend to each other. Projections of a large map to q, k and v would cost
most, so the map itself is used as queries, or as keys and values.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, rows_of_cells, sown_weights
from vitjax.layers.init import NORMAL, Init


def light_attention(
    q: Float[Array, "B N h d"],
    source: Float[Array, "B M h d"],
    *,
    scale: float | None = None,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B N h d"]:
    """Compute attention whose keys and values are the same features (eq. 1).

    Args:
      scale: factor of the logits; None for 1/√d.
    """
    return attend(q, source, source, scale=scale)


class LightAttention(nn.Module):
    """Attention of x to a source without projecting the source; q and the output are projected.

    With tokens and a map this is the bridge from Mobile to Former; with x alone it is
    self-attention, a token mixer. The output projection is `proj`.

    Attributes:
      num_heads: heads, which must divide the width of the source.
      gated: multiply the result of each query, channel by channel, by a gate from 0 to 2: twice the
        hard sigmoid of a linear map of x (`gate`). The released code has this gate, but the paper
        does not.
      qkv_bias: a bias in the projection to q.
      scale: factor of the logits; None for 1/√head_dim.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
    """

    num_heads: int = 2
    gated: bool = False
    qkv_bias: bool = True
    scale: float | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B *S C"],
        train: bool = False,
        source: Float[Array, "B *R c"] | None = None,
    ) -> Float[Array, "B *S C"]:
        """Compute the update of x; `source` is a map or sequence of any width, None for x."""
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        source = x if source is None else source
        width = source.shape[-1]
        (q,) = project_heads(self, tokens, 1, "q", width=width)
        read = source.astype(q.dtype).reshape(x.shape[0], -1, *q.shape[-2:])
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = light_attention(q, read, scale=self.scale, attend=attend)
        if self.gated:
            init = self.param_init.dense(tokens.shape[-1], width)
            gate = nn.Dense(width, **init, dtype=self.dtype, name="gate")(tokens)
            out *= 2 * nn.hard_sigmoid(gate).reshape(out.shape)
        return merge_heads(self, out, train, width=x.shape[-1]).reshape(x.shape)

    def attention_rows(
        self, sown: Mapping[str, Any], place: Place, source: Place | None = None
    ) -> Rows:
        """Make rows of the sown weights: all positions of the source are keys."""
        return rows_of_cells(sown_weights(sown), place, source or place)

    @staticmethod
    def takes_sequences(**options: Any) -> bool:
        """Return whether sequences are accepted: always."""
        return True


class LightQueries(nn.Module):
    """Attention of the pixels of a map to tokens (eq. 2): the bridge from Former to Mobile.

    Only the tokens are projected, to keys and values.

    Attributes:
      num_heads: heads, which must divide the width of the map.
      joined: project keys and values by one linear map (`kv`) instead of `k` and `v`.
      scale: factor of the logits; None for 1/√head_dim.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
    """

    num_heads: int = 2
    joined: bool = False
    qkv_bias: bool = True
    scale: float | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B *S C"], tokens: Float[Array, "B M c"], train: bool = False
    ) -> Float[Array, "B *S C"]:
        width = x.shape[-1]
        if self.joined:
            k, v = project_heads(self, tokens, 2, "kv", width=width)
        else:
            (k,) = project_heads(self, tokens, 1, "k", width=width)
            (v,) = project_heads(self, tokens, 1, "v", width=width)
        q = x.astype(k.dtype).reshape(x.shape[0], -1, *k.shape[-2:])
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = attend(q, k, v, scale=self.scale).reshape(x.shape)
        return nn.Dropout(self.drop_rate, deterministic=not train)(out)

    def attention_rows(self, sown: Mapping[str, Any], place: Place, tokens: Place) -> Rows:
        """Make rows of the sown weights: the tokens are keys."""
        return rows_of_cells(sown_weights(sown), place, tokens)
