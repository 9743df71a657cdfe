"""Outlook attention: each position predicts the weights of its own neighbourhood (VOLO,
arXiv:2106.13112, section 3.1, eq. 3-5).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.attention.projections import merge_heads, project_heads
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import require_map


def outlook_attention(
    weights: Float[Array, "B y x h P Q"],
    v: Float[Array, "B H W h d"],
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
) -> Float[Array, "B H W h d"]:
    """Mix every K×K window by its centre's weights and sum overlapping windows (eq. 4-5).

    Args:
      weights: softmax-normalised over the last axis; P = Q = K². P indexes the output position
        inside the window, Q the position that is read.
      v: values.
      kernel_size: K.
      stride, padding: window (i, j) starts at row i·stride - padding, column j·stride - padding;
        outside the map values are zero, and what is written there is dropped.
    """
    grid = (weights.shape[1], weights.shape[2])
    side = (v.shape[1], v.shape[2])
    windows = unfold(v, grid, kernel_size, stride, padding)
    mixed = jnp.einsum("byxhpq,byxqhd->byxphd", weights, windows)
    return fold(mixed, side, kernel_size, stride, padding)


def unfold(
    v: Float[Array, "B H W h d"], grid: tuple[int, int], kernel_size: int, stride: int, padding: int
) -> Float[Array, "B y x Q h d"]:
    """Extract the K² values of each window as K² strided slices of the padded map, not a gather."""
    lengths = [(n - 1) * stride + 1 for n in grid]
    needed = [max(0, n + kernel_size - 1 - padding - s) for n, s in zip(lengths, v.shape[1:3])]
    v = jnp.pad(v, ((0, 0), *((padding, after) for after in needed), (0, 0), (0, 0)))

    def shifted(dy: int, dx: int) -> Array:
        start = (0, dy, dx, 0, 0)
        stop = (v.shape[0], dy + lengths[0], dx + lengths[1], *v.shape[3:])
        return jax.lax.slice(v, start, stop, (1, stride, stride, 1, 1))

    return jnp.stack([shifted(*offset) for offset in np.ndindex(kernel_size, kernel_size)], axis=3)


def fold(
    windows: Float[Array, "B y x P h d"],
    side: tuple[int, int],
    kernel_size: int,
    stride: int,
    padding: int,
) -> Float[Array, "B H W h d"]:
    """Sum windows into a map, as K² dilated pads and not a scatter: the adjoint of `unfold`."""
    lengths = [(n - 1) * stride + 1 for n in windows.shape[1:3]]
    out = jnp.zeros((), windows.dtype)
    for p, offset in enumerate(np.ndindex(kernel_size, kernel_size)):
        # Negative padding crops what lies outside the map.
        edges = [
            (o - padding, s + padding - o - n, stride - 1) for o, s, n in zip(offset, side, lengths)
        ]
        values = jax.lax.squeeze(jax.lax.slice_in_dim(windows, p, p + 1, axis=3), (3,))
        zero = jnp.zeros((), windows.dtype)
        out += jax.lax.pad(values, zero, ((0, 0, 0), *edges, (0, 0, 0), (0, 0, 0)))
    return out


def outlook_attention_reference(
    weights: Float[Array, "B y x h P Q"],
    v: Float[Array, "B H W h d"],
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
) -> Float[Array, "B H W h d"]:
    """Compute `outlook_attention` by gathering windows and scattering their sums: the reference."""
    offset_y, offset_x = np.divmod(np.arange(kernel_size**2), kernel_size)
    rows = np.arange(weights.shape[1])[:, None, None] * stride + offset_y - padding
    columns = np.arange(weights.shape[2])[None, :, None] * stride + offset_x - padding
    rows, columns = np.broadcast_arrays(rows, columns)
    inside = (rows >= 0) & (rows < v.shape[1]) & (columns >= 0) & (columns < v.shape[2])
    rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
    windows = jnp.where(inside[..., None, None], v[:, rows, columns], 0)
    mixed = jnp.einsum("byxhpq,byxqhd->byxphd", weights, windows)
    return jnp.zeros_like(v).at[:, rows, columns].add(jnp.where(inside[..., None, None], mixed, 0))


class OutlookAttention(nn.Module):
    """Outlook attention over windows of K×K, one window every `stride` positions.

    Maps whose side is no multiple of the stride get a window for the rest too.

    Attributes:
      num_heads: heads; the width must be a multiple.
      kernel_size: K.
      stride: distance of windows; their weights are read from the mean of stride × stride
        positions.
      padding: zeros around the values; None for K // 2, where windows are centred.
      qkv_bias: bias in the projection to v; the weights' always has one.
      scale: factor of the logits; None for 1/√head_dim.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
    """

    num_heads: int
    kernel_size: int = 3
    stride: int = 2
    padding: int | None = None
    qkv_bias: bool = False
    scale: float | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        require_map(x)
        (v,) = project_heads(self, x, 1, "v")
        s, taps = self.stride, self.kernel_size**2
        rest: Any = ((0, -x.shape[1] % s), (0, -x.shape[2] % s))
        centres = nn.avg_pool(x, (s, s), (s, s), rest, count_include_pad=False)
        init = self.param_init.dense(x.shape[-1], self.num_heads * taps * taps)
        predict = nn.DenseGeneral(
            (self.num_heads, taps, taps), **init, dtype=self.dtype, name="attn"
        )
        scale = v.shape[-1] ** -0.5 if self.scale is None else self.scale
        logits = predict(centres)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) * scale
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        self.sow("intermediates", "weights", weights)
        weights = nn.Dropout(self.attn_drop_rate, deterministic=not train)(weights)
        padding = self.kernel_size // 2 if self.padding is None else self.padding
        out = outlook_attention(weights, v, kernel_size=self.kernel_size, stride=s, padding=padding)
        return merge_heads(self, out, train)
