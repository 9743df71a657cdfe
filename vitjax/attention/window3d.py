"""3-D shifted-window attention: attention inside windows of space and time (Video Swin,
arXiv:2106.13230, section 3.2); the function is `window_attention` with a size for each axis.

The released code shrinks a window, axis by axis, to a clip that is shorter, and does not shift it
along that axis. Its position bias is then that of the first positions of the full window's raster:
right for fewer frames, but of other displacements where rows or columns are fewer. So it is here.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.windows import in_windows, relative_bias_of_map
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import crop_to, pad_to_multiple, require_map


def first_positions_bias(
    table: Float[Array, "T h"], window: tuple[int, ...], count: int
) -> Float[Array, "h N N"]:
    """Compute the bias among the first N = `count` positions of a window, frame by frame.

    Args:
      table: a row for each displacement (t, y, x) within the window, the last axis fastest.
      window: its frames, rows and columns.
    """
    entries = [2 * side - 1 for side in window]
    return relative_bias_of_map(table.reshape(*entries, -1))[:, :count, :count]


class WindowAttention3d(nn.Module):
    """Window attention of clips `[B, T, H, W, C]` with a learned relative position bias.

    A clip that is no multiple of the window is zero-padded at the end of each axis before the
    projections; padding carries their biases and is attended to, except across a shifted border.
    With one frame, and sides longer than the window, it is `WindowAttention`.

    For P positions it costs 2 · P · N · C multiply-adds, N positions in a window, beside the
    4 · P · C² of the projections.

    Attributes:
      window_size: rows and columns of a window; `window_size_t`: its frames.
      shift: "half" for ⌊M/2⌋ along each axis, the paper's; or pixels, and frames by `shift_t`.
      scale: factor of the logits, 1/√head_dim if None.
    """

    num_heads: int
    window_size: int = 7
    window_size_t: int = 8
    shift: int | str = 0
    shift_t: int = 0
    qkv_bias: bool = True
    scale: float | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T H W C"], train: bool = False
    ) -> Float[Array, "B T H W C"]:
        require_map(x, 3)
        full, sides = (self.window_size_t, self.window_size, self.window_size), x.shape[1:-1]
        window = tuple(min(m, side) for m, side in zip(full, sides, strict=True))
        shift = tuple(
            0 if side <= m else s for s, m, side in zip(self.shifts(full), full, sides, strict=True)
        )
        entries = [2 * m - 1 for m in full]
        shape = (entries[0] * entries[1] * entries[2], self.num_heads)
        table = self.param("relative_position_bias", self.param_init.table, shape)
        bias = first_positions_bias(table, full, window[0] * window[1] * window[2])

        def mix(windows: Array, attend: Callable[..., Array]) -> Array:
            return merge_heads(self, attend(*project_heads(self, windows, 3, "qkv")), train)

        out = in_windows(
            mix, pad_to_multiple(x, window), window_size=window, shift=shift,
            attend=DotProductAttention(self.attn_drop_rate, train, name="attend"),
            bias=bias, scale=self.scale,
        )  # fmt: skip
        return crop_to(out, sides)

    def shifts(self, window: tuple[int, ...]) -> tuple[int, ...]:
        """Compute the shift along each axis of a window that is not shrunk.

        Raises:
          ValueError: `shift` is a word other than "half", or the window is empty.
        """
        shift = self.shift
        if min(window) < 1 or (isinstance(shift, str) and (shift != "half" or self.shift_t)):
            raise ValueError(
                f"window_size={self.window_size}, window_size_t={self.window_size_t}, "
                f"shift={shift!r}, shift_t={self.shift_t}: a window has at least 1 pixel a side "
                f"and 1 frame, and a shift is 'half' of it, along all axes, or a number of pixels "
                f"and one of frames."
            )
        if isinstance(shift, str):
            return tuple(m // 2 for m in window)
        given = (self.shift_t, shift, shift)
        return tuple(s % m for s, m in zip(given, window, strict=True))
