"""Outlook attention: each position predicts the weights of its own neighbourhood (VOLO,
arXiv:2106.13112, section 3.1, eq. 3-5).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.attention.core import expose
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, rows_of_map
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


def outlook_rows(
    weights: Float[Array, "B y x h P Q"],
    place: Place,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
) -> Rows:
    """Make rows of the weights of `outlook_attention`: K² keys from each window over the query.

    A row sums to the number of these windows.
    """
    k = kernel_size
    number = -(-k // stride)  # windows over a position, along one axis

    def axis(side: int, count: int) -> tuple[np.ndarray, ...]:
        position = np.arange(side)[:, None] + padding
        window = position // stride - np.arange(number)  # [side, number]
        inside = position - window * stride  # of the window
        there = (window >= 0) & (window < count) & (inside < k)
        first = window * stride - padding
        return np.clip(window, 0, count - 1), np.clip(inside, 0, k - 1), there, first

    (wy, py, there_y, top), (wx, px, there_x, left) = (
        axis(side, count) for side, count in zip(place[1:], weights.shape[1:3])
    )

    def both(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return y[:, None, :, None], x[None, :, None, :]  # [H, W, number, number]

    taps = np.add(*both(py * k, px))
    seen = jnp.moveaxis(weights, 3, 4)[:, *both(wy, wx), taps]  # [B, H, W, n, n, h, Q]
    seen *= np.logical_and(*both(there_y, there_x))[..., None, None]
    seen = jnp.moveaxis(seen, -2, 3).reshape(*seen.shape[:3], seen.shape[-2], -1)
    offset = np.stack(np.divmod(np.arange(k * k), k), axis=-1)
    corner = np.stack(np.broadcast_arrays(*both(top, left)), axis=-1)[..., None, :] + offset
    boxes = np.concatenate([corner, corner + 1], axis=-1, dtype=np.float32)
    return rows_of_map(seen, jnp.asarray(boxes.reshape(1, *place[1:], -1, 4)), place)


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
        weights = expose(self, jax.nn.softmax(logits, axis=-1).astype(v.dtype))
        weights = nn.Dropout(self.attn_drop_rate, deterministic=not train)(weights)
        out = outlook_attention(weights, v, **self.window())
        return merge_heads(self, out, train)

    def window(self) -> dict[str, int]:
        """Return kernel size, stride and padding."""
        padding = self.kernel_size // 2 if self.padding is None else self.padding
        return dict(kernel_size=self.kernel_size, stride=self.stride, padding=padding)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights; see `outlook_rows`."""
        return outlook_rows(sown["weights"][0], place, **self.window())
