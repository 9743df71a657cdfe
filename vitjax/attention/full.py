"""Full (global) multi-head self-attention: every position sees every other (ViT, arXiv:2010.11929,
eq. 2, 5-8).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, rows_of_cells, sown_weights
from vitjax.attention.windows import relative_bias_of_map
from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import require_map
from vitjax.layers.norm import layer_norm
from vitjax.layers.position import resize_grid
from vitjax.layers.rope import rotate


class FullAttention(nn.Module):
    """Self-attention over all positions of a sequence or map of any rank.

    Attributes:
      num_heads: heads; the width must be a multiple.
      qkv_bias: biases in the projections to q, k and v; `key_bias=False`: to q and v alone.
      qk_norm: LayerNorm of each head's q and k (ViT-22B, arXiv:2302.05442, eq. 3): bounds the
        logits at scale.
      scale: factor of the logits, 1/√head_dim if None.
      lepe_kernel_size: of a depthwise convolution of x that is added before the last projection
        (BiFormer, arXiv:2303.08810, stage 4: locally-enhanced positions; needs a map); 0 for none.
      position_bias: a learned bias of each head for the query's position relative to the key's
        (Swin's, arXiv:2103.14030, eq. 4, with the whole map as the window; needs a map).
      map_size: rows and columns of the map that the table of biases is for, None for those of the
        first call; for another map the table is interpolated.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
      width: channels of the result, where a model widens its map here (CoAtNet); None for x's.
      heads_width: channels of all heads together; None for x's.
    """

    num_heads: int
    qkv_bias: bool = True
    key_bias: bool = True
    qk_norm: bool = False
    scale: float | None = None
    lepe_kernel_size: int = 0
    position_bias: bool = False
    map_size: tuple[int, int] | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    width: int | None = None
    heads_width: int | None = None
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B *S C"],
        train: bool = False,
        angles: Float[Array, "N r"] | None = None,
    ) -> Float[Array, "B *S D"]:
        """Compute the attention of x; `angles` turn q and k of each position (`rotate`)."""
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        without = () if self.key_bias else (1,)
        q, k, v = project_heads(self, tokens, 3, "qkv", width=self.heads_width, unbiased=without)
        if self.qk_norm:
            q = layer_norm().build(dtype=self.dtype, name="q_norm")(q)
            k = layer_norm().build(dtype=self.dtype, name="k_norm")(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        bias = self.relative_bias(x) if self.position_bias else None
        out = attend(q, k, v, scale=self.scale, bias=bias)
        if self.lepe_kernel_size:
            lepe = depthwise_conv(self.lepe_kernel_size, "lepe", self.param_init, self.dtype)(x)
            out += lepe.reshape(out.shape)
        out = merge_heads(self, out, train, width=self.width)
        return out.reshape(*x.shape[:-1], out.shape[-1])

    takes_angles = True
    """Whether a call takes the angles of rotary positions."""

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights: all positions are keys."""
        return rows_of_cells(sown_weights(sown), place, place)

    @staticmethod
    def takes_sequences(
        position_bias: bool = False, lepe_kernel_size: int = 0, **others: Any
    ) -> bool:
        """Return whether sequences are accepted: without position terms, which need a map."""
        return not (position_bias or lepe_kernel_size)

    def relative_bias(self, x: Float[Array, "B H W C"]) -> Float[Array, "h N N"]:
        """Compute the bias of each query and key of this map, by a table `[2H-1, 2W-1, h]`."""
        require_map(x)
        if self.map_size is None and self.has_variable("params", "position_bias"):
            table = self.get_variable("params", "position_bias")
        else:
            rows, columns = self.map_size or x.shape[1:3]
            shape = (2 * rows - 1, 2 * columns - 1, self.num_heads)
            table = self.param("position_bias", self.param_init.table, shape)
        size = (2 * x.shape[1] - 1, 2 * x.shape[2] - 1)
        return relative_bias_of_map(resize_grid(jnp.asarray(table), size))
