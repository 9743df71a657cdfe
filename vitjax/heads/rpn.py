"""Region proposal network (Faster R-CNN, arXiv:1506.01497, section 3.1) on a pyramid.

Functions are of one image.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.detection import boxes as box
from vitjax.detection import losses
from vitjax.detection.choice import top_k
from vitjax.detection.matching import Sample, ignore_crowds, match, overlaps, sample
from vitjax.detection.nms import best, nms
from vitjax.heads.blocks import at_least_float32, normal_001
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init

LEAST_PROPOSAL = 1e-3
"""Pixels of a proposal's sides."""


class RPN(nn.Module):
    """A convolution (`conv`), then `objectness` and `deltas` of each anchor.

    Attributes:
      anchors: number of anchors at each position.
    """

    width: int
    anchors: int
    dtype: Any = None

    @nn.compact
    def __call__(self, levels: list[Array], train: bool = False) -> tuple[list[Array], list[Array]]:
        """Compute logits `[B, A]` and deltas `[B, A, 4]` of each level."""
        init = Init(conv=normal_001)
        conv = ConvNorm(
            self.width, 3, 1, 1, act=nn.relu, param_init=init, dtype=self.dtype, name="conv"
        )
        last = partial(nn.Conv, kernel_size=(1, 1), **normal_001(0, 0), dtype=self.dtype)
        logits, deltas = (
            last(self.anchors, name="objectness"),
            last(4 * self.anchors, name="deltas"),
        )
        maps = [conv(x, train) for x in levels]
        return (
            [at_least_float32(logits(x)).reshape(len(x), -1) for x in maps],
            [at_least_float32(deltas(x)).reshape(len(x), -1, 4) for x in maps],
        )


def propose(
    logits: list[Float[Array, "_"]],
    deltas: list[Float[Array, "_ 4"]],
    anchors: list[Float[Array, "_ 4"]],
    extent: Int[Array, "2"],
    *,
    candidates: int,
    threshold: float,
    limit: int,
) -> tuple[Float[Array, "R 4"], Bool[Array, "R"]]:
    """Propose regions: decode the best anchors of each level, and suppress within it.

    Args:
      candidates: of each level, before suppression.
      limit: of proposals, the best of all levels.

    Returns:
      Boxes, and which of them are any.
    """
    parts = []
    for x, delta, anchor in zip(logits, deltas, anchors, strict=True):
        top, index = top_k(x, candidates)
        found = box.clip(box.decode(delta[index], anchor[index]), extent)
        large = (found[:, 2:] - found[:, :2] >= LEAST_PROPOSAL).all(axis=1)
        scores = jax.nn.sigmoid(top)
        parts.append((found, scores, nms(found, scores, threshold, valid=large)))
    boxes, scores, remain = (jnp.concatenate(part) for part in zip(*parts))
    index, some = best(scores, remain, limit)
    return jnp.where(some[:, None], boxes[index], 0), some


def sample_anchors(
    anchors: Float[Array, "A 4"],
    boxes: Float[Array, "L 4"],
    wanted: Bool[Array, "L"],
    crowds: Bool[Array, "L"],
    key: Array | None,
    *,
    ious: tuple[float, float],
    count: int,
) -> tuple[Int[Array, "A"], Sample]:
    """Assign anchors to objects, of which each has one at least, and draw half and half.

    Args:
      ious: from which anchors are positive, and below which they are negative.
    """
    matched = match(overlaps(boxes, wanted, anchors), *ious, low_quality=True)
    matched = ignore_crowds(matched, boxes, crowds, anchors)
    return matched, sample(matched, count, 0.5, key)


def rpn_losses(
    logits: Float[Array, "A"],
    deltas: Float[Array, "A 4"],
    anchors: Float[Array, "A 4"],
    boxes: Float[Array, "L 4"],
    matched: Int[Array, "A"],
    drawn: Sample,
    beta: float,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Sum the losses of objectness and boxes over the drawn anchors, and count these.

    Args:
      beta: see `smooth_l1`.
    """
    counted = drawn.positive | drawn.negative
    goal = drawn.positive.astype(logits.dtype)
    scores = jnp.where(counted, losses.binary_cross_entropy(logits, goal), 0).sum()
    wanted = jnp.where(drawn.positive[:, None], boxes[jnp.maximum(matched, 0)], anchors)
    each = losses.smooth_l1(deltas, box.encode(wanted, anchors), beta)
    shifts = jnp.where(drawn.positive[:, None], each, 0).sum()
    return scores, shifts, counted.sum().astype(logits.dtype)
