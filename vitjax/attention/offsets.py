"""Sampling points predicted from the queries: offset network, groups, range (DAT, arXiv:2201.00520,
section 3.2; DAT++, arXiv:2309.01430).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.sampling import reference_points
from vitjax.kernels.depthwise import depthwise_conv_general_dilated
from vitjax.layers.activations import gelu
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import PerAxis, by_sides, per_axis
from vitjax.layers.norm import layer_norm


def displace(
    offsets: Float[Array, "B G *S axes"], *, offset_range_factor: float = -1.0, inset: int = 1
) -> Float[Array, "B G *S axes"]:
    """Add offsets to a regular grid of reference points (eq. 5-6), in float32 at least.

    Args:
      offsets: (y, x), of clips (t, y, x), as the offset network gives them.
      offset_range_factor: s; an offset is s · tanh, in cells of the grid. If negative, offsets are
        free, and points are clipped to the map.
      inset: 1 spreads the reference points over side - 1, as the code of DAT++ does: (i + 0.5) /
        (h - 1) · 2 - 1, beyond 1 at the end. 0 is the CVPR release: centres of cells.
    """
    sides = offsets.shape[2:-1]
    offsets = offsets.astype(jnp.promote_types(offsets.dtype, jnp.float32))
    reference = reference_points(*sides, inset=inset).astype(offsets.dtype)
    if offset_range_factor < 0:
        return jnp.clip(reference + offsets, -1.0, 1.0)
    cells = jnp.asarray([max(side - inset, 1) for side in sides], offsets.dtype)
    return reference + jnp.tanh(offsets) * (offset_range_factor / cells)


def sampling_points(
    q: Float[Array, "B *S h d"],
    network: Callable[[Array], Array],
    *,
    groups: int | None = None,
    offset_range_factor: float = -1.0,
    inset: int = 1,
) -> Float[Array, "B G *s axes"]:
    """Compute the sampling points of each group from its queries, with one shared network.

    Args:
      network: from `[B · G, H, W, C / G]` to offsets; one offset per point moves y and x alike, and
        in clips t too.
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
    q = jnp.moveaxis(q.reshape(batch, *grid, groups, -1), 1 + len(grid), 1)
    offsets = network(q.reshape(batch * groups, *grid, -1))
    offsets = jnp.broadcast_to(offsets, (*offsets.shape[:-1], len(grid)))
    offsets = offsets.reshape(batch, groups, *offsets.shape[1:])
    return displace(offsets, offset_range_factor=offset_range_factor, inset=inset)


class OffsetNetwork(nn.Module):
    """Depthwise convolution, norm, GELU and a projection without bias: offsets from the queries of
    one group (section 3.2, "offset generation").

    Attributes:
      kernel_size, stride: of maps; of clips those along (t, y, x).
      outputs: offsets per point: one for each axis, or 1 for all alike.
      use_bias: of the convolution.
    """

    kernel_size: PerAxis
    stride: PerAxis
    outputs: int = 2
    use_bias: bool = True
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, q: Float[Array, "B *S c"]) -> Float[Array, "B *s o"]:
        kernel, strides = per_axis(self.kernel_size), per_axis(self.stride)
        pads = [0 if k == s else k // 2 for k, s in zip(kernel, strides, strict=True)]
        sides = q.shape[1:-1]
        if any(n + 2 * pad < k for n, pad, k in zip(sides, pads, kernel, strict=True)):
            raise ValueError(
                f"A map of {by_sides(sides)} gives no sampling point with "
                f"kernel_size={self.kernel_size} and stride={self.stride}; choose smaller ones, or "
                f"an odd kernel larger than the stride."
            )
        width, init, taps = q.shape[-1], self.param_init, math.prod(kernel)
        q = nn.Conv(
            width, kernel, strides, [(pad, pad) for pad in pads], feature_group_count=width,
            conv_general_dilated=depthwise_conv_general_dilated,
            use_bias=self.use_bias, **init.conv(taps, taps), dtype=self.dtype, name="conv",
        )(q)  # fmt: skip
        q = gelu(layer_norm(1e-5).build(dtype=self.dtype, name="norm")(q))
        # The authors' is a convolution of 1×1.
        project = init.conv(width, self.outputs)
        return nn.Dense(self.outputs, use_bias=False, **project, dtype=self.dtype, name="offset")(q)
