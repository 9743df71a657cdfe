"""Non-maximum suppression, exactly the greedy one, with static shapes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.detection import boxes as box
from vitjax.detection.choice import precedes, top_k
from vitjax.detection.results import Detections


def nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, "N"],
    threshold: float | Float[Array, ""],
    *,
    groups: Int[Array, "N"] | None = None,
    valid: Bool[Array, "N"] | None = None,
) -> Bool[Array, "N"]:
    """Compute which boxes remain of those of one image.

    By falling score, a box remains unless its IoU with one that remains exceeds the threshold. Of
    equal scores the first comes first. This is the only fixed point of "a box remains if no better
    one that remains overlaps it": started with all boxes, each pass settles at least the best
    unsettled box, and the loop ends when a pass changes nothing.

    Args:
      groups: boxes suppress those of their own group alone, their class say.
      valid: boxes that take part, and may remain; None for all.
    """
    over = (box.iou(boxes[:, None], boxes) > threshold) & precedes(scores)
    if groups is not None:
        over &= groups[:, None] == groups
    start = jnp.ones(scores.shape, bool) if valid is None else valid

    def settle(state: tuple[Array, Array]) -> tuple[Array, Array]:
        remain, _ = state
        new = start & ~(over & remain[:, None]).any(axis=0)
        return new, (new != remain).any()

    return jax.lax.while_loop(lambda state: state[1], settle, (start, jnp.array(True)))[0]


def best(
    scores: Float[Array, "N"], remain: Bool[Array, "N"], count: int
) -> tuple[Int[Array, "n"], Bool[Array, "n"]]:
    """Choose the `count` best of the remaining boxes: their indices, and which of these are any."""
    found, index = top_k(jnp.where(remain, scores, -jnp.inf), count)
    return index, found > -jnp.inf


def suppress(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, "N"],
    classes: Int[Array, "N"],
    valid: Bool[Array, "N"],
    threshold: float,
    limit: int,
) -> Detections:
    """Suppress within each class, and give the `limit` best of one image, padded."""
    remain = nms(boxes, scores, threshold, groups=classes, valid=valid)
    index, some = best(scores, remain, limit)
    room = limit - len(index)
    kept = Detections(
        jnp.where(some[:, None], boxes[index], 0),
        jnp.where(some, scores[index], 0),
        jnp.where(some, classes[index], -1),
    )
    pads = (((0, room), (0, 0)), (0, room), (0, room))
    fills = (0, 0, -1)
    return Detections(
        *(
            jnp.pad(array, pad, constant_values=fill)
            for array, pad, fill in zip(kept[:3], pads, fills, strict=True)
        )
    )
