"""Window attention by cosine similarity with a log-spaced continuous position bias (Swin V2,
arXiv:2111.09883, section 3.2-3.3).
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, sown_weights
from vitjax.attention.window import window_rows, window_shift
from vitjax.attention.windows import in_windows, relative_bias
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import crop_to, pad_to_multiple, require_map

MAX_SCALE = 100.0
"""1/τ of eq. 2 is at most this: the paper's τ ≥ 0.01."""


def cosine_queries_keys(
    q: Float[Array, "*B h d"], k: Float[Array, "*B h d"], log_scale: Float[Array, "h 1"]
) -> tuple[Float[Array, "*B h d"], Float[Array, "*B h d"]]:
    """Scale q and k so that their dot product is cos(q, k) / τ (eq. 2), τ = exp(-log_scale)."""

    def unit(x: Array) -> Array:
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        square = jnp.sum(x * x, axis=-1, keepdims=True)
        return x / jnp.sqrt(jnp.maximum(square, 1e-24))  # of padding without bias, q and k are 0

    scale = jnp.exp(jnp.minimum(log_scale, np.log(MAX_SCALE)))
    return (unit(q) * scale).astype(q.dtype), unit(k).astype(k.dtype)


def log_spaced_coordinates(
    window_size: int, pretrained_window_size: int = 0
) -> Float[np.ndarray, "T 2"]:
    """Compute the (y, x) displacements of a window, sign(Δ) log₂(1 + |Δ|) (eq. 4).

    Δ is scaled to [-8, 8] and the result divided by log₂ 8. Rows are in the order of a relative
    position table, T = (2M-1)².

    Args:
      pretrained_window_size: the window that ±8 stands for; 0 for `window_size` itself. A larger
        window than the pretrained one then reads displacements beyond ±8.
    """
    reach = max((pretrained_window_size or window_size) - 1, 1)
    delta = np.arange(1 - window_size, window_size, dtype=np.float32) / np.float32(reach) * 8
    delta = np.sign(delta) * np.log2(np.abs(delta) + 1) / np.float32(3)
    return np.stack(np.meshgrid(delta, delta, indexing="ij"), axis=-1).reshape(-1, 2)


class WindowCosineAttention(nn.Module):
    """`window_attention` of unit queries and keys, with the continuous position bias of an MLP.

    The MLP (2 → 512 → heads) takes displacements, so its weights serve any window. The bias is 16
    times the sigmoid of its output; the paper does not mention it. k has no bias.

    Attributes:
      window_size, shift, map_size: see `WindowAttention`.
      pretrained_window_size: see `log_spaced_coordinates`.
      qkv_bias: biases of q and v.
    """

    num_heads: int
    window_size: int = 8
    shift: int | str = 0
    map_size: tuple[int, int] | None = None
    pretrained_window_size: int = 0
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        require_map(x)
        sides, channels = (x.shape[1], x.shape[2]), x.shape[3]
        shift = window_shift(self.shift, self.window_size, sides, self.map_size)

        def mix(windows: Array, attend: Callable[..., Array]) -> Array:
            q, k, v = project_heads(self, windows, 3, "qkv", use_bias=False)
            if self.qkv_bias:
                q_bias = self.param("q_bias", nn.initializers.zeros, (channels,))
                v_bias = self.param("v_bias", nn.initializers.zeros, (channels,))
                q += q_bias.reshape(q.shape[-2:]).astype(q.dtype)
                v += v_bias.reshape(v.shape[-2:]).astype(v.dtype)
            init = nn.initializers.constant(np.log(10.0))
            log_scale = self.param("logit_scale", init, (self.num_heads, 1, 1))
            q, k = cosine_queries_keys(q, k, jnp.asarray(log_scale)[:, :, 0])
            return merge_heads(self, attend(q, k, v), train)

        out = in_windows(
            mix, pad_to_multiple(x, self.window_size), window_size=self.window_size, shift=shift,
            attend=DotProductAttention(self.attn_drop_rate, train, name="attend"),
            bias=self.position_bias(x.dtype), scale=1.0,
        )  # fmt: skip
        return crop_to(out, sides)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights; see `window_rows`."""
        shift = window_shift(self.shift, self.window_size, place[1:], self.map_size)
        return window_rows(sown_weights(sown), place, self.window_size, shift)

    def position_bias(self, dtype: Any) -> Float[Array, "h N N"]:
        """Compute the bias of each head, query and key (eq. 3)."""
        # 16 units of bias would lose half a unit in bfloat16.
        dtype = jnp.promote_types(dtype, jnp.float32)
        coordinates = log_spaced_coordinates(self.window_size, self.pretrained_window_size)
        dense, heads = self.param_init.dense, self.num_heads
        hidden = nn.relu(nn.Dense(512, **dense(2, 512), dtype=dtype, name="cpb_fc1")(coordinates))
        table = nn.Dense(heads, use_bias=False, **dense(512, heads), dtype=dtype, name="cpb_fc2")(
            hidden
        )
        return relative_bias(16 * nn.sigmoid(table))
