"""Heads of regions: classes and boxes (Fast R-CNN, arXiv:1504.08083), masks (arXiv:1703.06870).

Class 0 of the heads is the background; those of objects are one more than elsewhere. Functions are
of one image.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from vitjax.detection import boxes as box
from vitjax.detection import losses
from vitjax.detection.choice import ranks, sort_by_rank, top_k
from vitjax.detection.matching import Sample, ignore_crowds, match, overlaps, sample
from vitjax.detection.nms import suppress
from vitjax.detection.results import Detections
from vitjax.detection.roi_align import crop_masks
from vitjax.heads.blocks import at_least_float32
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init, fan_out_normal, normal
from vitjax.layers.upsample import Upsample

SCALES: box.Scales = (10.0, 10.0, 5.0, 5.0)
"""Of the boxes' code, so that its values have about unit variance."""
LEAST_DETECTION = 1e-2
"""Pixels of a detection's sides."""


class BoxHead(nn.Module):
    """Two linear layers of a region's map (`fc_0`, `fc_1`), `class_logits` and `box_deltas`.

    Attributes:
      num_classes: with the background; each has a box of its own.
    """

    num_classes: int
    width: int = 1024
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "*B h w C"]
    ) -> tuple[Float[Array, "*B K"], Float[Array, "*B K 4"]]:
        glorot = nn.initializers.xavier_uniform()
        dense = partial(nn.DenseGeneral, dtype=self.dtype)
        x = nn.relu(dense(self.width, axis=(-3, -2, -1), kernel_init=glorot, name="fc_0")(x))
        x = nn.relu(dense(self.width, kernel_init=glorot, name="fc_1")(x))
        logits = dense(self.num_classes, kernel_init=normal(0.01), name="class_logits")(x)
        deltas = dense(4 * self.num_classes, kernel_init=normal(0.001), name="box_deltas")(x)
        deltas = deltas.reshape(*deltas.shape[:-1], self.num_classes, 4)
        return at_least_float32(logits), at_least_float32(deltas)


class MaskHead(nn.Module):
    """Four convolutions (`conv_{i}`), one that doubles the map (`enlarge`), `logits`.

    Attributes:
      num_classes: with the background; each has a mask of its own.
    """

    num_classes: int
    width: int = 256
    depth: int = 4
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*B h w C"]) -> Float[Array, "*B H W K"]:
        lead, x = x.shape[:-3], x.reshape(-1, *x.shape[-3:])
        init = Init(conv=fan_out_normal)
        for i in range(self.depth):
            x = ConvNorm(
                self.width, 3, 1, 1, act=nn.relu, param_init=init, dtype=self.dtype,
                name=f"conv_{i}",
            )(x)  # fmt: skip
        x = Upsample(self.width, param_init=init, dtype=self.dtype, name="enlarge")(x)
        he = nn.initializers.he_normal()
        last = nn.Conv(self.num_classes, (1, 1), kernel_init=he, dtype=self.dtype, name="logits")
        x = last(nn.relu(x))
        return at_least_float32(x.reshape(*lead, *x.shape[1:]))


class Regions(NamedTuple):
    """Regions that were drawn for training, positive ones first, padded to S.

    Attributes:
      matched: index of each one's object; of negatives 0.
      classes: of its object, from 1; 0 for the background.
      counted: which were drawn.
    """

    boxes: Float[Array, "S 4"]
    matched: Int[Array, "S"]
    classes: Int[Array, "S"]
    counted: Bool[Array, "S"]

    @property
    def positive(self) -> Bool[Array, "S"]:
        """Return which belong to an object."""
        return self.counted & (self.classes > 0)


def draw_regions(
    proposals: Float[Array, "R 4"],
    some: Bool[Array, "R"],
    boxes: Float[Array, "L 4"],
    classes: Int[Array, "L"],
    wanted: Bool[Array, "L"],
    crowds: Bool[Array, "L"],
    key: Array | None,
    *,
    iou: float,
    count: int,
    share: float,
    drawn: Sample | None = None,
) -> Regions:
    """Draw regions among proposals and the objects' own boxes.

    Args:
      some: which proposals are any.
      iou: with an object, from which a region is positive.
      count: of regions; `share`: of positives at most.
      drawn: instead of drawing: masks over the R + L candidates.

    Raises:
      ValueError: the masks are of another number of candidates.
    """
    every = jnp.concatenate([proposals, boxes])
    if drawn is not None and len(drawn.positive) != len(every):
        raise ValueError(
            f"The masks of drawn regions have {len(drawn.positive)} entries, and there are "
            f"{len(proposals)} proposals and {len(boxes)} objects; give one for each."
        )
    matched = match(overlaps(boxes, wanted, every), iou, iou)
    matched = ignore_crowds(matched, boxes, crowds, every)
    matched = jnp.where(jnp.concatenate([some, wanted]), matched, -2)  # padding is ignored
    drawn = sample(matched, count, share, key) if drawn is None else drawn
    priority = 2 * drawn.positive.astype(jnp.int32) + drawn.negative
    index = sort_by_rank(jnp.arange(len(every)), ranks(priority), min(count, len(every)))
    positive = drawn.positive[index]
    own = jnp.where(positive, matched[index], 0)
    return Regions(
        jax.lax.stop_gradient(every[index]),
        own,
        jnp.where(positive, classes[own] + 1, 0),
        priority[index] > 0,
    )


def box_losses(
    logits: Float[Array, "S K"],
    deltas: Float[Array, "S K 4"],
    regions: Regions,
    boxes: Float[Array, "L 4"],
    beta: float,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Sum the losses of classes and boxes over the regions, and count these.

    Args:
      beta: see `smooth_l1`.
    """
    goal = jax.nn.one_hot(regions.classes, logits.shape[1], dtype=logits.dtype)
    entropy = -(jax.nn.log_softmax(logits) * goal).sum(axis=1)
    own = jnp.einsum("skc,sk->sc", deltas, goal, precision="highest")
    positive = regions.positive[:, None]
    wanted = jnp.where(positive, boxes[regions.matched], regions.boxes)
    each = losses.smooth_l1(own, box.encode(wanted, regions.boxes, SCALES), beta)
    return (
        jnp.where(regions.counted, entropy, 0).sum(),
        jnp.where(positive, each, 0).sum(),
        regions.counted.sum().astype(logits.dtype),
    )


def mask_losses(
    logits: Float[Array, "P m m K"],
    regions: Regions,
    masks: UInt8[Array, "L M M"],
    frames: Float[Array, "L 4"],
    aligned: bool,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum the cross-entropy of the positive regions' masks, and count these.

    Args:
      logits: of the first P regions.
      masks: of objects, each over its frame, which is usually its box.
    """
    count, size = logits.shape[:2]
    first = Regions(*(array[:count] for array in regions))
    goal = jax.nn.one_hot(first.classes, logits.shape[-1], dtype=logits.dtype)
    own = jnp.einsum("pyxk,pk->pyx", logits, goal, precision="highest")
    shown = masks[first.matched].astype(logits.dtype)
    wanted = crop_masks(shown, frames[first.matched], first.boxes, size, aligned)
    each = losses.binary_cross_entropy(own, wanted).mean(axis=(1, 2))
    return jnp.where(first.positive, each, 0).sum(), first.positive.sum().astype(logits.dtype)


def select_regions(
    logits: Float[Array, "R K"],
    deltas: Float[Array, "R K 4"],
    proposals: Float[Array, "R 4"],
    some: Bool[Array, "R"],
    extent: Int[Array, "2"],
    *,
    score_threshold: float,
    candidates: int,
    nms_threshold: float,
    limit: int,
) -> Detections:
    """Decode the best pairs of region and class, and suppress within classes."""
    scores = jnp.where(some[:, None], jax.nn.softmax(logits)[:, 1:], 0)
    classes = scores.shape[1]
    top, index = top_k(scores.reshape(-1), candidates)
    region, label = index // classes, index % classes
    found = box.decode(deltas[region, label + 1], proposals[region], SCALES)
    found = box.clip(found, extent)
    large = (found[:, 2:] - found[:, :2] >= LEAST_DETECTION).all(axis=1)
    valid = large & (top > score_threshold)
    return suppress(found, top, label, valid, nms_threshold, limit)


def masks_of_classes(
    logits: Float[Array, "N m m K"], classes: Int[Array, "N"]
) -> Float[Array, "N m m"]:
    """Compute the probabilities of each detection's mask, of its class."""
    goal = jax.nn.one_hot(classes + 1, logits.shape[-1], dtype=logits.dtype)
    return jax.nn.sigmoid(jnp.einsum("nyxk,nk->nyx", logits, goal))
