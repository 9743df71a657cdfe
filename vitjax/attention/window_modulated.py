"""Window attention of Uformer: a table, the modulator, may be added to the tokens of each window
(arXiv:2106.03106, sections 3.2 and 3.3).
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, sown_weights
from vitjax.attention.window import window_rows, window_shift
from vitjax.attention.windows import in_windows, relative_bias
from vitjax.layers.init import NORMAL, Init, normal
from vitjax.layers.maps import crop_to, pad_to_multiple


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
        sides, side = (x.shape[1], x.shape[2]), self.window_size
        shift = window_shift(self.shift, side, sides, None)
        shape = ((2 * side - 1) ** 2, self.num_heads)
        bias = self.param("relative_position_bias", self.param_init.table, shape)

        def mix(windows: Array, attend: Callable[..., Array]) -> Array:
            if self.modulator:
                # The authors' code leaves the table to PyTorch, which draws it with deviation 1.
                table = self.param("modulator", normal(1.0), (side**2, windows.shape[-1]))
                table = jnp.tile(jnp.asarray(table), (windows.shape[2] // side**2, 1))
                windows += table.astype(windows.dtype)
            (q,) = project_heads(self, windows, 1, "q")
            k, v = project_heads(self, windows, 2, "kv")
            return merge_heads(self, attend(q, k, v), train)

        out = in_windows(
            mix, pad_to_multiple(x, side), window_size=side, shift=shift,
            attend=DotProductAttention(self.attn_drop_rate, train, name="attend"),
            bias=relative_bias(jnp.asarray(bias)), scale=self.scale,
        )  # fmt: skip
        return crop_to(out, sides)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights; see `window_rows`."""
        shift = window_shift(self.shift, self.window_size, place[1:], None)
        return window_rows(sown_weights(sown), place, self.window_size, shift)
