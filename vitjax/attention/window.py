"""Shifted-window attention: attention inside M×M windows, whose grid is shifted in every other
block (Swin, arXiv:2103.14030, section 3.2, eq. 3-4).
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, cell_boxes, rows_of_map, sown_weights
from vitjax.attention.windows import (
    in_windows,
    relative_bias,
    shift_map,
    window_merge,
    window_partition,
)
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import PerAxis, crop_to, pad_to_multiple


def window_attention(
    q: Float[Array, "B *S h d"],
    k: Float[Array, "B *S h d"],
    v: Float[Array, "B *S h e"],
    *,
    window_size: PerAxis,
    shift: PerAxis = 0,
    bias: Float[Array, "h N N"] | None = None,
    scale: float | None = None,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B *S h e"]:
    """Compute attention of each position to those of its window (eq. 3), masked across borders.

    It costs 2 · P · N · C multiply-adds for P positions, N of them in a window.

    Args:
      window_size: M, in pixels of the map; both sides are multiples. M = H = W is full attention.
        Of a clip a number for each axis, (t, y, x), and so is the shift.
      shift: pixels by which the grid of windows lies further down and right, 0 ≤ shift < M. What
        it cuts off at the top and left shares windows with the bottom and right, and is masked.
      bias: per head, query and key of a window (eq. 4).
    """
    return in_windows(
        lambda q, k, v, attend: attend(q, k, v), q, k, v, window_size=window_size, shift=shift,
        attend=attend, bias=bias, scale=scale,
    )  # fmt: skip


def window_rows(
    weights: Float[Array, "B R h n m"], place: Place, window_size: int, shift: int
) -> Rows:
    """Make rows of the weights of `window_attention`: windows unrolled, their shift undone."""
    height, width = (-(-side // window_size) * window_size for side in place[1:])

    def unroll(windows: Float[Array, "b R n *S"]) -> Float[Array, "b H W *S"]:
        x = shift_map(window_merge(windows, window_size, height, width), -shift)
        return x[:, : place.height, : place.width]

    boxes = window_partition(
        shift_map(jnp.asarray(cell_boxes(height, width))[None], shift), window_size
    )
    boxes = jnp.repeat(boxes[:, :, None], window_size**2, axis=2)
    return rows_of_map(unroll(jnp.moveaxis(weights, 2, 3)), unroll(boxes), place)


class WindowAttention(nn.Module):
    """`window_attention` with a learned relative position bias.

    The map is cut into windows before the projections, which are of single positions: one array
    moves through memory instead of q, k and v.
    A map that is no multiple of the window is zero-padded at its right and bottom before the
    projections, as in the official segmentation code: padding carries their biases and is attended
    to, except across a shifted border.

    Attributes:
      window_size: M, in pixels of the map.
      shift: pixels, modulo M; "half" is ⌊M/2⌋, the paper's.
      map_size: (height, width) of the map for which a shift is left out if a window spans a side
        of it, as the official classification code does; None means every such map. The
        segmentation code, at any size, always shifts.
      scale: factor of the logits, 1/√head_dim if None.
    """

    num_heads: int
    window_size: int = 7
    shift: int | str = 0
    map_size: tuple[int, int] | None = None
    qkv_bias: bool = True
    scale: float | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        sides = (x.shape[1], x.shape[2])
        shift = window_shift(self.shift, self.window_size, sides, self.map_size)
        entries = (2 * self.window_size - 1) ** 2
        table = self.param(
            "relative_position_bias", self.param_init.table, (entries, self.num_heads)
        )
        bias = relative_bias(jnp.asarray(table))

        def mix(windows: Array, attend: Callable[..., Array]) -> Array:
            return merge_heads(self, attend(*project_heads(self, windows, 3, "qkv")), train)

        out = in_windows(
            mix, pad_to_multiple(x, self.window_size), window_size=self.window_size, shift=shift,
            attend=DotProductAttention(self.attn_drop_rate, train, name="attend"),
            bias=bias, scale=self.scale,
        )  # fmt: skip
        return crop_to(out, sides)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights; see `window_rows`."""
        shift = window_shift(self.shift, self.window_size, place[1:], self.map_size)
        return window_rows(sown_weights(sown), place, self.window_size, shift)


def window_shift(
    shift: int | str, window_size: int, size: tuple[int, int], map_size: tuple[int, int] | None
) -> int:
    """Compute the shift in pixels for a map of this size; see `WindowAttention`.

    Raises:
      ValueError: `shift` is a word other than "half", or the window is empty.
    """
    if window_size < 1 or (isinstance(shift, str) and shift != "half"):
        raise ValueError(
            f"window_size={window_size}, shift={shift!r}: a window has at least 1 pixel a side, "
            f"and a shift is a number of pixels or 'half' of the window."
        )
    if min(size) <= window_size and map_size in (None, size):
        return 0
    return window_size // 2 if isinstance(shift, str) else shift % window_size
