"""Detection as prediction of a set: matching, loss and selection (DETR, arXiv:2005.12872, section
3.1; with sigmoids and a focal loss Deformable DETR, arXiv:2010.04159).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.detection import boxes as box
from vitjax.detection import losses
from vitjax.detection.assignment import NONE, assign
from vitjax.detection.choice import top_k
from vitjax.detection.results import Detections, LossParts, Targets

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss and its cost."""


class SetBoxes(NamedTuple):
    """Prediction of each query; of images after each of n layers of a decoder, where *B is B n.

    Attributes:
      logits: of K classes, and with softmax of "no object" behind them.
      boxes: centre x, y, width and height, as shares of the image's.
    """

    logits: Float[Array, "*B Q k"]
    boxes: Float[Array, "*B Q 4"]


class Goals(NamedTuple):
    """Objects that queries are to find, and which of them; boxes are as those of queries."""

    boxes: Float[Array, "*B L 4"]
    classes: Int[Array, "*B L"]
    wanted: Bool[Array, "*B L"]


def of_classes(values: Float[Array, "Q k"], classes: Int[Array, "L"]) -> Float[Array, "L Q"]:
    """Take the values of each object's class: exactly, by a product, as TPUs gather slowly."""
    chosen = jax.nn.one_hot(classes, values.shape[1], dtype=values.dtype)
    return jnp.einsum("lk,qk->lq", chosen, values, precision="highest")


def softmax_cost(logits: Float[Array, "Q k"], classes: Int[Array, "L"]) -> Float[Array, "L Q"]:
    """Compute the cost of classes: less by their probability (DETR, eq. 1)."""
    return -of_classes(jax.nn.softmax(logits), classes)


def softmax_loss(
    logits: Float[Array, "Q k"], classes: Int[Array, "Q"], no_object: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute the cross-entropy and the weights that divide it, as sums over queries.

    Args:
      classes: k - 1 for "no object", which has the weight `no_object`.
    """
    goal = jax.nn.one_hot(classes, logits.shape[1], dtype=logits.dtype)
    weights = jnp.where(classes == logits.shape[1] - 1, no_object, 1).astype(logits.dtype)
    each = (jax.nn.log_softmax(logits) * goal).sum(axis=1)
    return -(weights * each).sum(), weights.sum()


def focal_cost(logits: Float[Array, "Q k"], classes: Int[Array, "L"]) -> Float[Array, "L Q"]:
    """Compute the cost of classes: the focal loss of being them, less that of not being them."""
    p = of_classes(jax.nn.sigmoid(logits), classes)
    yes = ALPHA * (1 - p) ** GAMMA * -jnp.log(p + 1e-8)
    no = (1 - ALPHA) * p**GAMMA * -jnp.log(1 - p + 1e-8)
    return yes - no


def focal_loss(logits: Float[Array, "Q k"], classes: Int[Array, "Q"]) -> Float[Array, ""]:
    """Sum the focal loss over queries and classes; class k is none."""
    goal = jax.nn.one_hot(classes, logits.shape[1], dtype=logits.dtype)
    return losses.sigmoid_focal_loss(logits, goal, ALPHA, GAMMA).sum()


class Criterion(NamedTuple):
    """What DETR's kinds of loss differ in.

    Attributes:
      weights: of classes, L1 distances and overlaps, in costs and in losses.
      softmax: one class of all, or "no object"; else each class for itself, with a focal loss.
      no_object: weight of that class in the cross-entropy.
    """

    weights: tuple[float, float, float]
    softmax: bool
    no_object: float = 1.0


def match(found: SetBoxes, goals: Goals, criterion: Criterion) -> Int[Array, "L"]:
    """Find the query of each object, NONE for the others; of one image and layer, no gradient."""
    logits, boxes = jax.lax.stop_gradient(found)
    cost = (softmax_cost if criterion.softmax else focal_cost)(logits, goals.classes)
    distance = jnp.abs(goals.boxes[:, None] - boxes).sum(axis=-1)
    overlap = box.giou(box.from_center(goals.boxes)[:, None], box.from_center(boxes))
    a, b, c = criterion.weights
    return assign(a * cost + b * distance - c * overlap, goals.wanted)


def losses_of(found: SetBoxes, goals: Goals, criterion: Criterion) -> dict[str, Float[Array, ""]]:
    """Sum the losses of one image after one layer, and what divides that of classes."""
    logits, boxes = found
    query_of = match(found, goals, criterion)
    matched = query_of != NONE
    hits = query_of[:, None] == jnp.arange(len(logits))
    none = logits.shape[1] - 1 if criterion.softmax else logits.shape[1]
    labels = jnp.where(hits.any(axis=0), goals.classes[hits.argmax(axis=0)], none)
    if criterion.softmax:
        of_class, divisor = softmax_loss(logits, labels, criterion.no_object)
    else:
        of_class, divisor = focal_loss(logits, labels), matched.sum().astype(logits.dtype)
    own = jnp.where(hits[..., None], boxes, 0).sum(axis=1)  # whose gradient is no scatter
    distance = jnp.abs(own - goals.boxes).sum(axis=-1)
    overlap = 1 - box.giou(box.from_center(own), box.from_center(goals.boxes))
    return {
        "class": of_class,
        "divisor": divisor,
        "box": jnp.where(matched, distance, 0).sum(),
        "overlap": jnp.where(matched, overlap, 0).sum(),
    }


def weight_of(wanted: Bool[Array, "B L"], mask: Float[Array, "B"]) -> Float[Array, "B"]:
    """Compute the weight of each image: its objects. Those of a batch are one at least in all."""
    count = wanted.sum(axis=1).astype(mask.dtype)
    none = (count * mask).sum() == 0
    return count + jnp.where(none, 1 / jnp.maximum(mask.sum(), 1), 0)


def layer_losses(
    found: SetBoxes,
    targets: Targets,
    extent: Int[Array, "B 2"],
    mask: Float[Array, "B"],
    criterion: Criterion,
) -> dict[str, Float[Array, "B n"]]:
    """Compute the losses of each image and layer, unweighted.

    Summed over images and divided by `weight_of` of all, they are the authors': classes divided by
    the sum of their weights over the batch with softmax, all else by the number of objects.

    Args:
      extent: height and width of the part of each image that is no padding.
      mask: 1 for images that count.
    """
    dtype = found.boxes.dtype
    sides = jnp.tile(extent[:, ::-1].astype(dtype), 2)
    wanted = targets.wanted & (mask > 0)[:, None]
    # What is no target stands for one of a sound box: its overlaps are never read.
    boxes = box.to_center(targets.boxes.astype(dtype) / sides[:, None])
    boxes = jnp.where(wanted[..., None], boxes, jnp.asarray([0.5, 0.5, 1, 1], dtype))
    goals = Goals(boxes, jnp.where(wanted, targets.classes, 0), wanted)

    per_layer = jax.vmap(partial(losses_of, criterion=criterion), in_axes=(0, None))
    sums = jax.vmap(per_layer)(found, goals)
    divisor = sums.pop("divisor")
    if criterion.softmax:
        total = (weight_of(wanted, mask) * mask).sum()
        sums["class"] *= total / jnp.maximum((divisor * mask[:, None]).sum(axis=0), 1e-6)
    return sums


def loss_parts(
    each: dict[str, Float[Array, "B n"]],
    wanted: Bool[Array, "B L"],
    mask: Float[Array, "B"],
    criterion: Criterion,
) -> LossParts:
    """Weigh the losses: those after the last layer by their names, and the sum of the others."""
    weighed = {k: w * each[k] for k, w in zip(("class", "box", "overlap"), criterion.weights)}
    parts = {f"{name}_loss": part[:, -1] for name, part in weighed.items()}
    earlier = jnp.stack([part[:, :-1].sum(axis=1) for part in weighed.values()])
    return LossParts({**parts, "earlier_loss": earlier.sum(axis=0)}, weight_of(wanted, mask))


def select(found: SetBoxes, extent: Int[Array, "B 2"], limit: int, softmax: bool) -> Detections:
    """Select the best detections: with softmax each query's best class, else of all pairs.

    Args:
      extent: as in `layer_losses`; boxes become pixels of it.
    """
    logits, boxes = found.logits[:, -1], found.boxes[:, -1]

    def one(logits: Array, boxes: Array, extent: Array) -> Detections:
        if softmax:
            p = jax.nn.softmax(logits)[:, :-1]
            scores, query = top_k(p.max(axis=1), limit)
            classes = p.argmax(axis=1)[query]
        else:
            p = jax.nn.sigmoid(logits).reshape(-1)
            scores, pair = top_k(p, limit)
            query, classes = jnp.divmod(pair, logits.shape[1])
        sides = jnp.tile(extent[::-1].astype(boxes.dtype), 2)
        return Detections(box.from_center(boxes[query]) * sides, scores, classes)

    return jax.vmap(one)(logits, boxes, extent)
