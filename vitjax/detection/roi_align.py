"""RoIAlign (Mask R-CNN, arXiv:1703.06870, section 3): the mean of bilinear samples in each bin.

The samples of a bin form a grid, so its mean is a product of weights along y and weights along x:
two small matrix products and no gather. Positions a pixel or more outside the map count as 0, those
nearer repeat the border.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vitjax.detection import boxes as box

NEARBY = 6
"""Samples that may lie within a pixel of a pixel if they are more than half a pixel apart, as
`sampling_ratio=0` has them; and one more at either end for rounding."""


def roi_align(
    x: Float[Array, "H W C"],
    boxes: Float[Array, "N 4"],
    size: tuple[int, int],
    *,
    scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Array, "N h w C"]:
    """Pool the boxes of one image's map into h×w bins.

    Args:
      boxes: in pixels of the image; `scale`: pixels of the map for each.
      sampling_ratio: samples along each side of a bin; 0 for ⌈side of the box / bins⌉.
      aligned: centres of pixels lie at halves, as in continuous coordinates. False: at whole
        numbers, and boxes are at least a pixel of the map large, as in the first implementations.
    """
    how = (sampling_ratio, aligned)
    rows = bin_weights(scale * boxes[:, 1], scale * boxes[:, 3], size[0], x.shape[0], *how)
    columns = bin_weights(scale * boxes[:, 0], scale * boxes[:, 2], size[1], x.shape[1], *how)
    return _pool(x, rows, columns)


def _pool(x: Array, rows: Array, columns: Array) -> Float[Array, "N h w C"]:
    part = jnp.einsum("nph,hwc->npwc", rows.astype(x.dtype), x)
    return jnp.einsum("nqw,npwc->npqc", columns.astype(x.dtype), part)


def bin_weights(
    low: Float[Array, "N"],
    high: Float[Array, "N"],
    bins: int,
    pixels: int,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Array, "N bins pixels"]:
    """Compute the weight of each pixel in the mean of each bin along one axis.

    Args:
      low, high: ends of the boxes, in pixels of the map.
    """
    start = low - 0.5 * aligned
    side = high - 0.5 * aligned - start
    if not aligned:
        side = jnp.maximum(side, 1)
    width = (side / bins)[:, None, None, None]  # axes: box, bin, pixel, sample
    first = start[:, None, None, None] + width * jnp.arange(bins)[:, None, None]
    at = jnp.arange(pixels, dtype=first.dtype)[:, None]
    if sampling_ratio > 0:
        count = jnp.full_like(width, sampling_ratio)
        number = jnp.arange(sampling_ratio, dtype=first.dtype)
    else:  # those samples that may lie near the pixel
        count = jnp.ceil(width)
        gap = jnp.where(count > 0, width / jnp.maximum(count, 1), 1)
        begin = jnp.floor((at - 1 - first) / gap - 0.5)
        number = jnp.maximum(begin, 0) + jnp.arange(NEARBY, dtype=first.dtype)
    position = first + (number + 0.5) * width / jnp.maximum(count, 1)
    hat = jnp.maximum(1 - jnp.abs(jnp.clip(position, 0, pixels - 1) - at), 0)
    counts = (number < count) & (position >= -1) & (position <= pixels)
    return jnp.where(counts, hat, 0).sum(axis=-1) / jnp.maximum(count, 1)[..., 0]


def level_of(
    boxes: Float[Array, "N 4"], finest: int, coarsest: int, canonical: tuple[float, int] = (224, 4)
) -> Int[Array, "N"]:
    """Choose each box's map of a pyramid by its size (FPN, arXiv:1612.03144, eq. 1).

    Args:
      finest, coarsest: base-2 logarithms of the strides of the maps.
      canonical: side of a box, and the level it belongs to.

    Returns:
      Indices of maps, finest first.
    """
    side = jnp.sqrt(jnp.maximum(box.area(boxes), 0))
    level = jnp.floor(canonical[1] + jnp.log2(side / canonical[0] + 1e-30) + 1e-6)
    return (jnp.clip(level, finest, coarsest) - finest).astype(jnp.int32)


def multi_level_roi_align(
    maps: Sequence[Float[Array, "_ _ C"]],
    strides: Sequence[int],
    boxes: Float[Array, "N 4"],
    level: Int[Array, "N"],
    size: tuple[int, int],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Array, "N h w C"]:
    """Pool each box from its own map of one image's pyramid.

    Args:
      strides: of the maps; `level`: index of each box's map.
    """
    total: Array | None = None
    for i, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        mine = level == i
        own = jnp.where(mine[:, None], boxes / stride, 0)
        how = (sampling_ratio, aligned)
        rows = bin_weights(own[:, 1], own[:, 3], size[0], x.shape[0], *how)
        columns = bin_weights(own[:, 0], own[:, 2], size[1], x.shape[1], *how)
        part = _pool(x, jnp.where(mine[:, None, None], rows, 0), columns)
        total = part if total is None else total + part
    assert total is not None
    return total


def crop_masks(
    masks: Float[Array, "N m m"],
    frames: Float[Array, "N 4"],
    boxes: Float[Array, "N 4"],
    size: int,
    aligned: bool = True,
) -> Float[Array, "N size size"]:
    """Resample masks, each over its own frame, to other boxes by RoIAlign.

    Args:
      frames: the boxes that the masks fill; `boxes`: those of the result.
    """
    m = masks.shape[-1]
    unit = jnp.maximum(frames[:, 2:] - frames[:, :2], box.LEAST_SIDE) / m
    own = (boxes - jnp.tile(frames[:, :2], 2)) / jnp.tile(unit, 2)
    rows = bin_weights(own[:, 1], own[:, 3], size, m, 0, aligned)
    columns = bin_weights(own[:, 0], own[:, 2], size, m, 0, aligned)
    part = jax.lax.batch_matmul(rows, masks.astype(rows.dtype))
    return jnp.einsum("npw,nqw->npq", part, columns)
