"""Window attention of Uformer: a table, the modulator, may be added to the tokens of each window
(arXiv:2106.03106, sections 3.2 and 3.3).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, sown_weights
from vitjax.attention.window import window_attention, window_rows, window_shift
from vitjax.attention.windows import relative_bias, shift_map
from vitjax.layers.init import NORMAL, Init, normal
from vitjax.layers.maps import pad_to_multiple


def add_to_windows(
    x: Float[Array, "B H W C"], table: Float[Array, "M M C"], shift: int
) -> Float[Array, "B H W C"]:
    """Add a table to each window of a map whose windows lie `shift` pixels further down and right.

    Args:
      x: a map whose sides are multiples of M.
    """
    batch, height, width, channels = x.shape
    side = table.shape[0]
    windows = x.reshape(batch, height // side, side, width // side, side, channels)
    table = shift_map(table[None], -shift)[0]
    return (windows + table[:, None]).reshape(x.shape)


class ModulatedWindowAttention(nn.Module):
    """Mix the tokens of each window, to which a modulator may be added first.

    It is `window_attention` with a relative position bias. Queries have a projection of their own,
    apart from keys and values, as in the published weights.
    A map that is no multiple of the window is zero-padded at its right and bottom.

    Attributes:
      window_size: M, in pixels of the map.
      shift: pixels, modulo M; "half" is ⌊M/2⌋. It is left out where a window spans a side.
      modulator: a learned table `[M², C]` is added to the tokens of each window, after the shift.
      scale: factor of the logits, 1/√head_dim if None.
    """

    num_heads: int
    window_size: int = 8
    shift: int | str = 0
    modulator: bool = False
    qkv_bias: bool = True
    scale: float | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        height, width, channels = x.shape[1:]
        side = self.window_size
        shift = window_shift(self.shift, side, (height, width), None)
        shape = ((2 * side - 1) ** 2, self.num_heads)
        bias = self.param("relative_position_bias", self.param_init.table, shape)
        x = pad_to_multiple(x, side)
        if self.modulator:
            # The authors' code leaves the table to PyTorch, which draws it with deviation 1.
            table = self.param("modulator", normal(1.0), (side**2, channels))
            x = add_to_windows(x, jnp.asarray(table, x.dtype).reshape(side, side, channels), shift)
        (q,) = project_heads(self, x, 1, "q")
        k, v = project_heads(self, x, 2, "kv")
        out = window_attention(
            q, k, v, window_size=side, shift=shift, bias=relative_bias(jnp.asarray(bias)),
            scale=self.scale, attend=DotProductAttention(self.attn_drop_rate, train, name="attend"),
        )  # fmt: skip
        return merge_heads(self, out[:, :height, :width], train)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights; see `window_rows`."""
        shift = window_shift(self.shift, self.window_size, place[1:], None)
        return window_rows(sown_weights(sown), place, self.window_size, shift)
