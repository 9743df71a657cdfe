"""Spatial-reduction attention: keys and values come from a smaller map (PVT, arXiv:2102.12122, eq.
1-4; its linear form PVT v2, arXiv:2106.13797, section 3.1).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import (
    Place,
    Rows,
    cell_boxes,
    grid_boxes,
    rows_of_cells,
    shared_boxes,
    sown_weights,
)
from vitjax.layers.activations import gelu
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import require_map
from vitjax.layers.norm import layer_norm
from vitjax.layers.pool import adaptive_average_pool, adaptive_cells


def spatial_reduction_attention(
    q: Float[Array, "B *S h d"],
    k: Float[Array, "B *R h d"],
    v: Float[Array, "B *R h d"],
    *,
    scale: float | None = None,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B *S h d"]:
    """Compute attention of every position of one map to every position of another (PVT, eq. 2).

    Args:
      k, v: keys and values of the reduced map; of the same map, this is full attention.
      scale: 1/√d if None.
    """

    def flat(x: Array) -> Array:
        return x.reshape(x.shape[0], -1, *x.shape[-2:])

    return attend(flat(q), flat(k), flat(v), scale=scale).reshape(q.shape)


class SpatialReductionAttention(nn.Module):
    """Self-attention whose keys and values come from a smaller map (SRA; linear SRA).

    Attributes:
      num_heads: heads; the width must be a multiple.
      sr_ratio: the map shrinks by this factor per side, with a convolution of kernel = stride =
        `sr_ratio`; as published, rows and columns left over have no key. A map smaller than the
        kernel is zero-padded. With 1 it is full attention, and sequences are accepted too.
      pooled_size: linear SRA if not 0: average pooling to this many cells per side, 1×1
        convolution, norm and GELU instead of the strided convolution; the cost is linear in the
        number of positions.
      scale: factor of the logits; None for 1/√head_dim.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
    """

    num_heads: int
    sr_ratio: int = 1
    pooled_size: int = 0
    qkv_bias: bool = True
    scale: float | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        (q,) = project_heads(self, x, 1, "q")
        k, v = project_heads(self, self.reduce(x, train), 2, "kv")
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = spatial_reduction_attention(q, k, v, scale=self.scale, attend=attend)
        return merge_heads(self, out, train)

    def reduce(self, x: Float[Array, "B *S C"], train: bool) -> Float[Array, "B *R C"]:
        """Reduce x to the map of keys and values (PVT, eq. 3); parameters `reduce/{conv,norm}`.

        Raises:
          ValueError: x is a sequence, and there is something to reduce.
        """
        ratio = 1 if self.pooled_size else self.sr_ratio
        if not self.pooled_size and ratio == 1:
            return x
        require_map(x)
        act = None
        if self.pooled_size:
            x, act = adaptive_average_pool(x, self.pooled_size), gelu
        conv = ConvNorm(
            x.shape[-1], ratio, ratio, keep_partial=False, norm=layer_norm(1e-5), act=act,
            param_init=self.param_init, dtype=self.dtype, name="reduce",
        )  # fmt: skip
        return conv(x, train)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights: a key lies in the pixels that it was reduced from."""
        weights = sown_weights(sown)
        if self.pooled_size:
            rows, columns = (adaptive_cells(side, self.pooled_size) for side in place[1:])
            boxes = grid_boxes(rows, columns)
        elif self.sr_ratio > 1:
            boxes = cell_boxes(place.height, place.width, self.sr_ratio)
        else:
            return rows_of_cells(weights, place, place)
        return Rows(weights, shared_boxes(boxes), place, place)
