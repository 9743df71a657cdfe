"""Losses and accuracies of the early exits of a model."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.models.protocols import GivesExits
from vitjax.task import Sums


def exit_weights(model: Any, given: Sequence[float]) -> tuple[float, ...]:
    """Return the loss weights of the exits, in order; () for a model without exits.

    Args:
      given: weights of the config; empty for 1 each, as in the code of RANet's authors (main.py).

    Raises:
      ValueError: their number is not that of the exits, one is negative, or the last one is 0.
    """
    if not isinstance(model, GivesExits) or not model.num_exits:
        if given:
            raise ValueError(
                f"loss.exit_weights={tuple(given)} needs a model with early exits, and this one "
                f"has none; choose a RANet, a ViT with model.exits, or leave exit_weights out."
            )
        return ()
    weights = tuple(float(w) for w in given) or (1.0,) * model.num_exits
    if len(weights) != model.num_exits or min(weights) < 0 or weights[-1] <= 0:
        raise ValueError(
            f"loss.exit_weights={weights}: the model has {model.num_exits} exits; give one number "
            f"for each, none below 0, and the last one above 0."
        )
    return weights


def exit_losses(
    cost: Callable[[Array], Float[Array, "B"]], logits: Sequence[Array], weights: Sequence[float]
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """Compute the weighted sum of the exits' losses, and the loss of each exit by name.

    Args:
      cost: logits of an exit → its loss, sample by sample.
    """
    losses = [cost(z) for z in logits]
    total = sum(w * x for w, x in zip(weights, losses, strict=True))
    return jnp.asarray(total), {f"loss_exit{k + 1}": x for k, x in enumerate(losses)}


def exit_sums(
    logits: Float[Array, "B E K"], labels: Float[Array, "B K"], mask: Float[Array, "B"]
) -> Sums:
    """Count the images that each exit classifies correctly.

    Args:
      labels: weights of the classes; those above 0 are right.
    """
    right = jnp.take_along_axis(labels[:, None], logits.argmax(axis=-1)[..., None], axis=-1) > 0
    counts = (right[..., 0] * mask[:, None]).sum(axis=0)
    return {f"top1_exit{k + 1}": counts[k] for k in range(logits.shape[1])}
