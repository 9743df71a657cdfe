"""Boxes: areas, overlaps (IoU, GIoU, DIoU, CIoU), and coding relative to reference boxes.

The functions of two boxes broadcast: `iou(a[:, None], b)` compares every pair.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Boxes = Float[Array, "*#N 4"]
Values = Float[Array, "..."]
MOST_GROWTH = math.log(1000 / 16)
"""Of a decoded side, as a logarithm: no box becomes more than 62.5 times its reference."""
LEAST_SIDE = 1e-6
"""Of a box, in pixels, where sides are divisors or in logarithms, so that all stays finite."""


def columns(boxes: Boxes) -> tuple[Values, Values, Values, Values]:
    """Split the last axis: a TPU's compiler takes long over slices of two of its four elements."""
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def area(boxes: Boxes) -> Values:
    """Compute the areas of boxes."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def to_center(boxes: Boxes) -> Boxes:
    """Convert corners to (centre x, centre y, width, height)."""
    x, y, x_end, y_end = columns(boxes)
    return jnp.stack([(x + x_end) / 2, (y + y_end) / 2, x_end - x, y_end - y], axis=-1)


def from_center(boxes: Boxes) -> Boxes:
    """Convert (centre x, centre y, width, height) to corners."""
    x, y, width, height = columns(boxes)
    half = (width / 2, height / 2)
    return jnp.stack([x - half[0], y - half[1], x + half[0], y + half[1]], axis=-1)


def clip(boxes: Boxes, extent: Int[Array, "*#N 2"]) -> Boxes:
    """Clip boxes to images of the extent (height, width)."""
    limit = extent[..., ::-1].astype(boxes.dtype)
    return jnp.clip(boxes, 0, jnp.concatenate([limit, limit], axis=-1))


def intersection(a: Boxes, b: Boxes) -> Values:
    """Compute the area that two boxes share."""
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    sides = jnp.maximum(high - low, 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Boxes, b: Boxes, eps: float = 0.0) -> Values:
    """Compute the intersection over union; 0 where both boxes are empty.

    Args:
      eps: added to denominators, as losses have it.
    """
    shared = intersection(a, b)
    return _ratio(shared, area(a) + area(b) - shared, eps)


def inside_share(a: Boxes, b: Boxes) -> Values:
    """Compute the share of a's area that lies in b; 0 where a is empty."""
    return _ratio(intersection(a, b), area(a))


def giou(a: Boxes, b: Boxes, eps: float = 0.0) -> Values:
    """Compute the generalised IoU (arXiv:1902.09630, algorithm 1), from -1 to 1."""
    hull = area(_hull(a, b))
    union = area(a) + area(b) - intersection(a, b)
    return iou(a, b, eps) - _ratio(hull - union, hull, eps)


def diou(a: Boxes, b: Boxes, eps: float = 1e-7) -> Values:
    """Compute the IoU less the centres' distance, over the diagonal (arXiv:1911.08287, eq. 7)."""
    hull = _hull(a, b)
    diagonal = jnp.square(hull[..., 2:] - hull[..., :2]).sum(axis=-1)
    distance = jnp.square(to_center(a)[..., :2] - to_center(b)[..., :2]).sum(axis=-1)
    return iou(a, b, eps) - _ratio(distance, diagonal, eps)


def ciou(a: Boxes, b: Boxes, eps: float = 1e-7) -> Values:
    """Compute the DIoU less the difference of aspect ratios (arXiv:1911.08287, eq. 10).

    The weight α of that difference v is not differentiated.
    """
    v = 4 / math.pi**2 * jnp.square(_aspect(b) - _aspect(a))
    alpha = jax.lax.stop_gradient(_ratio(v, 1 - iou(a, b, eps) + v, eps))
    return diou(a, b, eps) - alpha * v


def _ratio(share: Array, whole: Array, eps: float = 0.0) -> Array:
    """Divide; 0, with no gradient, where the divisor is not positive."""
    whole = whole + eps
    return jnp.where(whole > 0, share / jnp.where(whole > 0, whole, 1), 0)


def _hull(a: Boxes, b: Boxes) -> Boxes:
    """Compute the smallest box that holds both."""
    low = jnp.minimum(a[..., :2], b[..., :2])
    return jnp.concatenate([low, jnp.maximum(a[..., 2:], b[..., 2:])], axis=-1)


def _aspect(boxes: Boxes) -> Values:
    """Compute the angle of a box's diagonal against the vertical."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], LEAST_SIDE)
    return jnp.arctan2(sides[..., 0], sides[..., 1])


Scales = tuple[float, float, float, float]
UNSCALED: Scales = (1.0, 1.0, 1.0, 1.0)


def encode(
    boxes: Float[Array, "*N 4"], references: Float[Array, "*N 4"], scales: Scales = UNSCALED
) -> Float[Array, "*N 4"]:
    """Encode boxes relative to references (R-CNN, arXiv:1311.2524, eq. 6-9).

    Args:
      scales: factors of the shifts in x and y and of the logarithms of width and height.

    Returns:
      ((x - x_r) / w_r, (y - y_r) / h_r, log(w / w_r), log(h / h_r)) of centres and sides.
    """
    own, other = columns(to_center(boxes)), columns(to_center(references))
    shifts, growths = [], []
    for i in range(2):
        unit = jnp.maximum(other[i + 2], LEAST_SIDE)
        shifts.append((own[i] - other[i]) / unit)
        growths.append(jnp.log(jnp.maximum(own[i + 2], LEAST_SIDE) / unit))
    code = [part * scale for part, scale in zip(shifts + growths, scales, strict=True)]
    return jnp.stack(code, axis=-1)


def decode(code: Boxes, references: Boxes, scales: Scales = UNSCALED) -> Boxes:
    """Decode what `encode` gives, with sides that grow by MOST_GROWTH at most."""
    own, other = columns(code), columns(to_center(references))
    parts = [part / scale for part, scale in zip(own, scales, strict=True)]
    centers = [parts[i] * other[i + 2] + other[i] for i in range(2)]
    sides = [jnp.exp(jnp.minimum(parts[i], MOST_GROWTH)) * other[i] for i in (2, 3)]
    return from_center(jnp.stack(centers + sides, axis=-1))
