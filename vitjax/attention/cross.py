"""Cross-attention: queries attend to keys and values that are given apart (Vaswani et al.,
arXiv:1706.03762, section 3.2.2), so that positions may be part of queries and keys alone (DETR,
arXiv:2005.12872, appendix A.3).
"""

import dataclasses
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.layers.init import Init, glorot_uniform


class CrossAttention(nn.Module):
    """Multi-head attention of queries to keys and values that are given each for itself.

    Not a token mixer: what are queries, keys and values is the caller's to say. Projections to them
    are drawn as one matrix of three times the width, as PyTorch's MultiheadAttention draws them.

    Attributes:
      num_heads: heads; the width must be a multiple.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
    """

    num_heads: int
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = Init(dense=glorot_uniform)
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B N C"],
        keys: Float[Array, "B M C"],
        values: Float[Array, "B M C"],
        seen: Bool[Array, "B M"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B N C"]:
        """Compute attention.

        Args:
          seen: which keys there are; the others are padding.
        """
        dense = self.param_init.dense
        joint = dataclasses.replace(self.param_init, dense=lambda m, n: dense(m, 3 * n))
        how = self.clone(parent=None, param_init=joint)  # is only asked for its options
        (q,), (k,), (v,) = (
            project_heads(how, x, 1, name)
            for x, name in ((queries, "q"), (keys, "k"), (values, "v"))
        )
        mask = None if seen is None else seen[:, None, None]
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        return merge_heads(self, attend(q, k, v, mask=mask), train)
