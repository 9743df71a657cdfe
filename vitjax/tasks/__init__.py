"""A task is a model, a loss and metrics as pure functions; the loop knows no more of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from vitjax.models.pyramid import KERNELS, DecayRules


class Task(NamedTuple):
    """What the training loop is handed.

    A batch is a dict of arrays with `mask` `[B]`: 1 for a sample that counts, 0 for padding. The
    loop averages over samples; the functions give a value for each.

    Attributes:
      init: key → variables.
      loss: (params, other variables, batch, key) → (loss per sample `[B]`, updated other
        variables).
      predict: (variables, images) → predictions.
      metrics: (predictions, batch) → name → value per sample `[B]`.
      headline: the metric by which checkpoints are compared; larger is better.
      decay_rules: which parameters decay, (regular expression, factor), unless the config says it.
    """

    init: Callable[[Array], dict[str, Any]]
    loss: Callable[[Any, Any, dict[str, Array], Array], tuple[Float[Array, "B"], Any]]
    predict: Callable[[Any, Array], Array]
    metrics: Callable[[Array, dict[str, Array]], dict[str, Float[Array, "B"]]]
    headline: str
    decay_rules: DecayRules = KERNELS
