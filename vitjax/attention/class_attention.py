"""Class attention: the class token is the only query of all tokens (CaiT, arXiv:2103.17239, eq.
5-7; VOLO, arXiv:2106.13112).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, rows_of_cells, sown_weights
from vitjax.layers.init import NORMAL, Init


def class_attention(
    q: Float[Array, "B 1 h d"],
    k: Float[Array, "B M h d"],
    v: Float[Array, "B M h d"],
    *,
    scale: float | None = None,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B 1 h d"]:
    """Compute the first row of full attention: one query, all keys and values (CaiT, eq. 6-7)."""
    return attend(q, k, v, scale=scale)


class ClassAttention(nn.Module):
    """The update of the class token, which is the first of a sequence, from all its tokens.

    Not a token mixer: `[B, N, C] → [B, 1, C]`. A class block adds it to that token and passes the
    others unchanged, so that its cost is linear in N. Keys and values include the token's own.

    Attributes:
      num_heads: heads; the width must be a multiple.
      scale: factor of the logits; None for 1/√head_dim.
      joined: keys and values are one product, `kv`; else `k` and `v`, as CaiT's code has them.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
    """

    num_heads: int
    qkv_bias: bool = True
    scale: float | None = None
    joined: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"], train: bool = False) -> Float[Array, "B 1 C"]:
        (q,) = project_heads(self, x[:, :1], 1, "q")
        if self.joined:
            k, v = project_heads(self, x, 2, "kv")
        else:
            (k,), (v,) = (project_heads(self, x, 1, name) for name in ("k", "v"))
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = class_attention(q, k, v, scale=self.scale, attend=attend)
        return merge_heads(self, out, train)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights: one query, and all positions are keys."""
        return rows_of_cells(sown_weights(sown), Place(1), place)
