"""Deformable attention: all queries attend to keys sampled at learned points (DAT,
arXiv:2201.00520, eq. 5-11; DAT++, arXiv:2309.01430).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.deformable_bias import KINDS, DisplacementBias
from vitjax.attention.offsets import OffsetNetwork, sampling_points
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, cell_boxes, point_boxes, shared_boxes, sown_weights
from vitjax.attention.sampling import sample_groups, to_pixels
from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import require_map


def deformable_attention(
    q: Float[Array, "B *S h d"],
    k: Float[Array, "B M h d"],
    v: Float[Array, "B M h e"],
    *,
    bias: Float[Array, "..."] | None = None,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B *S h e"]:
    """Compute attention of every position of a map to all M sampled keys (eq. 9).

    Args:
      k, v: projections of what `sample_groups` reads at the points (eq. 7-8). Read at every
        position of the map, they make this full attention.
      bias: of each displacement; see `DisplacementBias`.
    """
    tokens = q.reshape(q.shape[0], -1, *q.shape[-2:])
    return attend(tokens, k, v, bias=bias).reshape(*q.shape[:-1], v.shape[-1])


def sampled_boxes(
    points: Float[Array, "B G y x 2"], height: int, width: int
) -> Float[Array, "B G y x 4"]:
    """Compute the boxes of what `sample_groups` reads at the points of a map of this size."""
    pixels = [to_pixels(points[..., i], side, True) for i, side in enumerate((height, width))]
    return point_boxes(jnp.stack(pixels, axis=-1))


class DeformableAttention(nn.Module):
    """Deformable multi-head attention. Sows `points` `[B, G, h, w, 2]`.

    Attributes:
      offset_groups: G, groups of channels (and of heads) with points of their own; see
        `sampling_points`.
      stride: pixels of the map between sampling points; `kernel_size`: of the offset network.
      offset_range_factor, inset: see `vitjax.attention.offsets.displace`.
      position_bias: "table", "fixed" or "log" (see `DisplacementBias`), "conv" (a depthwise
        convolution of the queries, added to the output) or "none".
      offsets: False for keys from average pooling: no points, and no position bias.
      table_size: see `DisplacementBias`.
    """

    num_heads: int
    offset_groups: int | None = None
    stride: int = 1
    kernel_size: int = 3
    offset_range_factor: float = -1.0
    inset: int = 1
    position_bias: str = "table"
    offsets: bool = True
    table_size: tuple[int, int] | None = None
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        require_map(x)
        if self.position_bias not in KINDS:
            raise ValueError(f"position_bias={self.position_bias!r}: choose from {KINDS}.")
        height, width = x.shape[1:3]
        (q,) = project_heads(self, x, 1, "q")
        kind, bias = self.position_bias if self.offsets else "none", None
        if self.offsets:
            network = OffsetNetwork(
                self.kernel_size,
                self.stride,
                param_init=self.param_init,
                dtype=self.dtype,
                name="offset",
            )
            points = sampling_points(
                q,
                network,
                groups=self.offset_groups,
                inset=self.inset,
                offset_range_factor=self.offset_range_factor,
            )
            self.sow("intermediates", "points", points)
            sampled = sample_groups(x, points.reshape(*points.shape[:2], -1, 2))
            if kind in ("table", "fixed", "log"):
                bias = DisplacementBias(
                    kind,
                    self.num_heads,
                    self.table_size,
                    self.stride,
                    self.param_init,
                    q.dtype,
                    name="bias",
                )(points, (height, width))
        else:
            cell = (min(self.stride, height), min(self.stride, width))
            sampled = nn.avg_pool(x, cell, cell)
            sampled = sampled.reshape(x.shape[0], -1, x.shape[-1])
        (k,), (v,) = (project_heads(self, sampled, 1, name) for name in ("k", "v"))
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = deformable_attention(q, k, v, bias=bias, attend=attend)
        if kind == "conv":
            out += depthwise_conv(3, "bias", self.param_init, self.dtype)(
                q.reshape(x.shape)
            ).reshape(out.shape)
        return merge_heads(self, out, train)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights: keys lie at their group's points, or are means."""
        if self.offsets:
            boxes = sampled_boxes(sown["points"][0], *place[1:])
            boxes = boxes.reshape(*boxes.shape[:2], 1, -1, 4)
        else:
            boxes = shared_boxes(cell_boxes(*place[1:], self.stride))
        return Rows(sown_weights(sown), boxes, place, place)
