"""Deformable attention: all queries attend to keys sampled at points that the map itself moves
(DAT, arXiv:2201.00520, eq. 5-11; DAT++, arXiv:2309.01430).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.deformable_bias import KINDS, DisplacementBias
from vitjax.attention.full import merge_heads, project_heads
from vitjax.attention.sampling import reference_points, sample_groups
from vitjax.layers.conv import depthwise_conv
from vitjax.layers.mlp import gelu, trunc_normal
from vitjax.layers.norm import layer_norm


def displace(
    offsets: Float[Array, "B G h w 2"], *, offset_range_factor: float = -1.0, inset: int = 1
) -> Float[Array, "B G h w 2"]:
    """Reference points, a regular grid, moved by offsets (eq. 5-6); in float32 at least.

    Args:
      offsets: (y, x), as the offset network gives them.
      offset_range_factor: s; an offset is s · tanh, in cells of the grid. If negative, offsets are
        free, and points are clipped to the map.
      inset: 1 spreads the reference points over side - 1, as the code of DAT++ does: (i + 0.5) /
        (h - 1) · 2 - 1, beyond 1 at the end. 0 is the CVPR release: centres of cells.
    """
    height, width = offsets.shape[2:4]
    offsets = offsets.astype(jnp.promote_types(offsets.dtype, jnp.float32))
    reference = reference_points(height, width, inset=inset).astype(offsets.dtype)
    if offset_range_factor < 0:
        return jnp.clip(reference + offsets, -1.0, 1.0)
    cells = jnp.asarray([max(height - inset, 1), max(width - inset, 1)], offsets.dtype)
    return reference + jnp.tanh(offsets) * (offset_range_factor / cells)


def sampling_points(
    q: Float[Array, "B H W h d"],
    network: Callable[[Array], Array],
    *,
    groups: int | None = None,
    offset_range_factor: float = -1.0,
    inset: int = 1,
) -> Float[Array, "B G y x 2"]:
    """Sampling points of each group, from its own queries; one offset network serves all.

    Args:
      network: from `[B · G, H, W, C / G]` to offsets; one offset per point moves y and x alike.
      groups: G; None for one group for two heads where their number is even, and for each head
        where it is not.
      offset_range_factor, inset: see `displace`.

    Raises:
      ValueError: the groups do not divide the heads.
    """
    batch, *grid, heads, _ = q.shape
    groups = groups or (heads if heads % 2 else heads // 2)
    if heads % groups:
        raise ValueError(
            f"{heads} heads cannot be split into {groups} offset groups; offset_groups must "
            f"divide num_heads, or be None for a number that does."
        )
    q = jnp.moveaxis(q.reshape(batch, *grid, groups, -1), 3, 1)
    offsets = network(q.reshape(batch * groups, *grid, -1))
    offsets = jnp.broadcast_to(offsets, (*offsets.shape[:-1], 2))
    offsets = offsets.reshape(batch, groups, *offsets.shape[1:])
    return displace(offsets, offset_range_factor=offset_range_factor, inset=inset)


def deformable_attention(
    q: Float[Array, "B H W h d"],
    k: Float[Array, "B M h d"],
    v: Float[Array, "B M h e"],
    *,
    bias: Float[Array, "..."] | None = None,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B H W h e"]:
    """Attention of every position of a map to all M sampled keys (eq. 9).

    Args:
      k, v: projections of what `sample_groups` reads at the points (eq. 7-8). Read at every
        position of the map, they make this full attention.
      bias: of each displacement; see `DisplacementBias`.
    """
    tokens = q.reshape(q.shape[0], -1, *q.shape[3:])
    return attend(tokens, k, v, bias=bias).reshape(*q.shape[:-1], v.shape[-1])


class OffsetNetwork(nn.Module):
    """Depthwise convolution, norm, GELU and a projection without bias: offsets from the queries of
    one group (section 3.2, "offset generation").

    Attributes:
      outputs: offsets per point: 2 for (y, x), 1 for both alike.
      use_bias: of the convolution.
    """

    kernel_size: int
    stride: int
    outputs: int = 2
    use_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, q: Float[Array, "B H W c"]) -> Float[Array, "B h w o"]:
        k, s = self.kernel_size, self.stride
        pad = 0 if k == s else k // 2
        if min(q.shape[1:3]) + 2 * pad < k:
            raise ValueError(
                f"A map of {q.shape[1]}×{q.shape[2]} gives no sampling point with kernel_size={k} "
                f"and stride={s}; choose smaller ones, or an odd kernel larger than the stride."
            )
        q = nn.Conv(
            q.shape[-1], (k, k), (s, s), ((pad, pad),) * 2, feature_group_count=q.shape[-1],
            use_bias=self.use_bias, dtype=self.dtype, name="conv",
        )(q)  # fmt: skip
        q = gelu(layer_norm(1e-5).build(dtype=self.dtype, name="norm")(q))
        return nn.Dense(self.outputs, use_bias=False, dtype=self.dtype, name="offset")(q)


class DeformableAttention(nn.Module):
    """Deformable multi-head attention. Sows `points` `[B, G, h, w, 2]`.

    Attributes:
      offset_groups: G, groups of channels (and of heads) with points of their own; see
        `sampling_points`.
      stride: pixels of the map between sampling points; `kernel_size`: of the offset network.
      offset_range_factor, inset: see `displace`.
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
    kernel_init: Any = trunc_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        if self.position_bias not in KINDS:
            raise ValueError(f"position_bias={self.position_bias!r}: choose from {KINDS}.")
        (q,) = project_heads(self, x, 1, "q")
        kind, bias = self.position_bias if self.offsets else "none", None
        if self.offsets:
            network = OffsetNetwork(self.kernel_size, self.stride, dtype=self.dtype, name="offset")
            points = sampling_points(
                q, network, groups=self.offset_groups, inset=self.inset,
                offset_range_factor=self.offset_range_factor,
            )  # fmt: skip
            self.sow("intermediates", "points", points)
            sampled = sample_groups(x, points.reshape(*points.shape[:2], -1, 2))
            if kind in ("table", "fixed", "log"):
                bias = DisplacementBias(
                    kind, self.num_heads, self.table_size, self.stride, q.dtype, name="bias"
                )(points, x.shape[1:3])
        else:
            sampled = nn.avg_pool(x, (self.stride,) * 2, (self.stride,) * 2)
            sampled = sampled.reshape(x.shape[0], -1, x.shape[-1])
        (k,), (v,) = (project_heads(self, sampled, 1, name) for name in ("k", "v"))
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = deformable_attention(q, k, v, bias=bias, attend=attend)
        if kind == "conv":
            out += depthwise_conv(3, "bias", self.dtype)(q.reshape(x.shape)).reshape(out.shape)
        return merge_heads(self, out, train)
