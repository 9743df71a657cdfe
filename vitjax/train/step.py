"""One optimizer step, and one evaluation step: pure functions of (state, batch)."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vitjax.train.state import TrainState

Batch = dict[str, Array]
DROPOUT = 1
"""The stream of random numbers that a step draws; others would take other numbers."""


@runtime_checkable
class Task(Protocol):
    """What training asks of a task: values per sample, which the step masks and averages."""

    @property
    def init(self) -> Callable[..., Any]: ...
    @property
    def loss(self) -> Callable[..., tuple[Array, Any]]: ...
    @property
    def predict(self) -> Callable[..., Array]: ...
    @property
    def metrics(self) -> Callable[..., dict[str, Array]]: ...
    @property
    def headline(self) -> str: ...
    @property
    def decay_rules(self) -> tuple[tuple[str, float], ...]: ...


def make_train_step(
    task: Task,
    tx: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    *,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    ema_warmup: bool = True,
    gather: Callable[[Any], Any] = lambda params: params,
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, Array]]]:
    """`(state, batch, key) → (state, metrics)`, to be jitted with the state donated.

    The key is the run's, the same at every step; what a step draws depends on it and on the
    state's step. It is an argument so that runs with other seeds share what was compiled.

    Args:
      schedule: learning rate by step, as `tx` has it; it is reported.
      accumulate: the batch is cut into as many parts whose gradients are summed, so that the
        result is that of the whole batch in less memory (batch norms see the parts).
      ema_decay: of the averaged parameters and running statistics, where the state has them.
      ema_warmup: the decay is at most (1 + t) / (10 + t), as TensorFlow has it, so that the first
        parameters are forgotten quickly; 0.9999 is reached at step 90,000. False: as timm has it.
      gather: brings the parameters to where they are used; see `partition.gather_params`.
    """

    def loss_sum(params: Any, rest: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        losses, rest = task.loss(gather(params), rest, batch, key)
        return jnp.sum(losses * batch["mask"]), rest

    def gradients(params: Any, rest: Any, batch: Batch, key: Array) -> tuple[Array, Any, Any]:
        grad = jax.value_and_grad(loss_sum, has_aux=True)
        if accumulate == 1:
            (loss, rest), grads = grad(params, rest, batch, key)
            return loss, rest, grads

        def part(carry: Any, slice_: Any) -> tuple[Any, None]:
            loss, rest, grads = carry
            (more, rest), new = grad(params, rest, slice_[0], slice_[1])
            return (loss + more, rest, jax.tree.map(jnp.add, grads, new)), None

        # Strided parts: each device keeps the samples that it has.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )
        zero = (jnp.zeros(()), rest, jax.tree.map(jnp.zeros_like, params))
        keys = jax.random.split(key, accumulate)
        return jax.lax.scan(part, zero, (parts, keys))[0]

    def train_step(
        state: TrainState, batch: Batch, key: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.fold_in(key, DROPOUT), state.step)
        loss, rest, grads = gradients(state.params, state.rest, batch, key)
        count = jnp.maximum(batch["mask"].sum(), 1.0)
        grads = jax.tree.map(lambda g: g / count, grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averages = move_averages(state, params, rest, ema_decay, ema_warmup)
        metrics = {
            "loss": loss / count,
            "learning_rate": schedule(state.step),
            "grad_norm": optax.tree.norm(grads),
            "skipped_images": batch["mask"].size - batch["mask"].sum(),
        }
        return TrainState(state.step + 1, params, rest, opt_state, *averages), metrics

    return train_step


def move_averages(
    state: TrainState, params: Any, rest: Any, decay: float, warmup: bool
) -> tuple[Any, Any]:
    """Give the next `ema` and `ema_rest`: decay · average + (1 - decay) · value."""
    if state.ema is None:
        return None, None
    share = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step)) if warmup else decay
    values = (params, {name: rest[name] for name in state.ema_rest})
    averages = (state.ema, state.ema_rest)
    return jax.tree.map(lambda e, p: share * e + (1 - share) * p, averages, values)


def make_eval_step(
    task: Task, gather: Callable[[Any], Any] = lambda params: params
) -> Callable[[TrainState, Batch], dict[str, Array]]:
    """`(state, batch) → sums over the batch's samples`, with their number under "count"."""

    def eval_step(state: TrainState, batch: Batch) -> dict[str, Float[Array, ""]]:
        variables = state.variables()
        variables["params"] = gather(variables["params"])
        values = task.metrics(task.predict(variables, batch["image"]), batch)
        values["count"] = jnp.ones_like(batch["mask"])
        return {name: jnp.sum(v * batch["mask"]) for name, v in values.items()}

    return eval_step
