"""First stage of Deformable DETR (arXiv:2010.04159, appendix A.4): every position of the maps
proposes a box, and the best become queries.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vitjax.detection.choice import top_k
from vitjax.heads.blocks import at_least_float32
from vitjax.heads.queries import norm
from vitjax.heads.set_prediction import SetBoxes
from vitjax.layers.position import sine_features

SIDE = 0.05
"""Of the finest map's boxes, as a share of the image's; each coarser map's are twice as large."""
BORDER = 0.01
"""Boxes whose coordinates are not further from 0 and 1 are none."""
NOWHERE = 1e4
"""Logit of the coordinates of positions without a box: their sigmoid is 1, without a gradient."""


class Proposals(NamedTuple):
    """Proposals of the first stage.

    Attributes:
      every: class logits and boxes of every position, as one layer.
      queries: positions and contents of the best.
      boxes: of the best, without a gradient.
    """

    every: SetBoxes
    queries: Float[Array, "B Q C"]
    boxes: Float[Array, "B Q 4"]


def first_boxes(
    inside: list[Bool[Array, "B _ _"]],
) -> tuple[Float[Array, "B N 4"], Bool[Array, "B N"]]:
    """Compute the logits of each position's box, and which positions have one."""
    boxes, valid = [], []
    for level, mask in enumerate(inside):
        height, width = mask.shape[1:]
        y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
        rows, columns = mask[:, :, 0].sum(axis=1), mask[:, 0].sum(axis=1)
        center = jnp.stack([x / columns[:, None, None], y / rows[:, None, None]], axis=-1)
        box = jnp.concatenate([center, jnp.full_like(center, SIDE * 2**level)], axis=-1)
        some = mask & ((box > BORDER) & (box < 1 - BORDER)).all(axis=-1)
        boxes.append(box.reshape(len(mask), -1, 4))
        valid.append(some.reshape(len(mask), -1))
    box, some = jnp.concatenate(boxes, axis=1), jnp.concatenate(valid, axis=1)
    sound = jnp.where(some[..., None], box, 0.5)
    return jnp.where(some[..., None], jnp.log(sound / (1 - sound)), NOWHERE), some


def propose(
    head: Any,
    levels: list[Float[Array, "B _ _ C"]],
    inside: list[Bool[Array, "B _ _"]],
    classify: nn.Module,
    shift: nn.Module,
) -> Proposals:
    """Compute proposals in the compact method of a head, whose `num_queries` best are chosen.

    Args:
      classify, shift: layers that compute class logits, of which the first counts, and boxes.
    """
    x = jnp.concatenate([v.reshape(v.shape[0], -1, v.shape[-1]) for v in levels], axis=1)
    start, some = first_boxes(inside)
    init, width = head.param_init, x.shape[-1]
    dense = nn.Dense(width, **init.of_mlp(width, width), dtype=head.dtype, name="encoded")
    x = norm(head, "encoded_norm")(dense(jnp.where(some[..., None], x, 0)))
    logits = at_least_float32(classify(x))
    boxes = shift(x) + start
    _, best = jax.vmap(partial(top_k, count=head.num_queries))(logits[..., 0])
    chosen = nn.sigmoid(jax.lax.stop_gradient(jnp.take_along_axis(boxes, best[..., None], axis=1)))
    turns = sine_features(2 * jnp.pi * chosen, width // 2)
    turns = turns.reshape(*chosen.shape[:2], -1).astype(x.dtype)
    place = nn.Dense(
        2 * width, **init.of_mlp(2 * width, 2 * width), dtype=head.dtype, name="placed"
    )
    queries = norm(head, "placed_norm")(place(turns))
    every = SetBoxes(logits[:, None], nn.sigmoid(boxes)[:, None])
    return Proposals(every, queries, chosen)
