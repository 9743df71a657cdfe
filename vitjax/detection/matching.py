"""Assignment of anchors or proposals to objects by their overlap, and sampling among them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from vitjax.detection import boxes as box
from vitjax.detection.choice import largest

NEGATIVE, IGNORED = -1, -2
"""Instead of an object's index."""


def overlaps(
    objects: Float[Array, "L 4"], valid: Bool[Array, "L"], anchors: Float[Array, "A 4"]
) -> Float[Array, "L A"]:
    """Compute the IoU of each object with each anchor, -1 for objects that are not valid."""
    return jnp.where(valid[:, None], box.iou(objects[:, None], anchors), -1)


def match(
    overlap: Float[Array, "L A"], positive: float, negative: float, low_quality: bool = False
) -> Int[Array, "A"]:
    """Assign each anchor to the object of its largest IoU.

    Args:
      overlap: as `overlaps` gives it.
      positive: least IoU of an assigned anchor; one below `negative` is NEGATIVE, one between them
        IGNORED.
      low_quality: an anchor that has an object's largest IoU, or ties with it, is assigned whatever
        the IoU; to the object of its own largest IoU, which may be another.
    """
    best = overlap.max(axis=0)
    found = jnp.where(best < negative, NEGATIVE, jnp.where(best < positive, IGNORED, 0))
    assigned = found == 0
    if low_quality:
        largest = overlap.max(axis=1, keepdims=True)
        assigned |= ((overlap == largest) & (largest > 0)).any(axis=0)
    return jnp.where(assigned, overlap.argmax(axis=0), found)


def ignore_crowds(
    matched: Int[Array, "A"],
    objects: Float[Array, "L 4"],
    crowd: Bool[Array, "L"],
    anchors: Float[Array, "A 4"],
    share: float = 0.5,
) -> Int[Array, "A"]:
    """Ignore negatives of which a share of the area, or more, lies in a crowd."""
    within = jnp.where(crowd[:, None], box.inside_share(anchors, objects[:, None]), 0)
    return jnp.where((matched == NEGATIVE) & (within >= share).any(axis=0), IGNORED, matched)


class Sample(NamedTuple):
    """Candidates that were drawn: a mask of positives, and one of negatives."""

    positive: Bool[Array, "A"]
    negative: Bool[Array, "A"]


def sample(matched: Int[Array, "A"], count: int, share: float, key: Array | None) -> Sample:
    """Draw `count` candidates, at most a share of them positive (Fast R-CNN, section 2.3).

    Args:
      matched: as `match` gives it; the ignored are not drawn.
      key: None to take the first instead.
    """
    shape = matched.shape
    numbers = jnp.uint32(0) if key is None else jax.random.bits(key, shape, jnp.uint32)
    most = min(int(count * share), *shape)
    positive = _draw(matched >= 0, numbers, most)
    left = min(count, *shape) - positive.sum()
    return Sample(positive, _draw(matched == NEGATIVE, numbers, left))


def _draw(
    candidates: Bool[Array, "A"], numbers: UInt32[Array, "*#A"], count: int | Int[Array, ""]
) -> Bool[Array, "A"]:
    """Choose the candidates of the largest numbers; of equal ones the first; all of fewer."""
    keys = jnp.where(candidates, numbers | jnp.uint32(1 << 31), 0)  # 31 bits count
    return candidates & largest(keys, count)
