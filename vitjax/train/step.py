"""Optimizer step and evaluation step: pure functions of (state, batch)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from vitjax.task import Batch, Keys, Task
from vitjax.train.state import EVERY, Trainable, TrainState


def make_train_step(
    task: Task,
    tx: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    *,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    ema_warmup: bool = True,
    gather: Callable[[Any], Any] = lambda params: params,
    trainable: Trainable = EVERY,
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, Array]]]:
    """Build `(state, batch, key) → (state, metrics)`, to be jitted with the state donated.

    The key is that of the run, the same at every step; random draws depend on it and on the state's
    step. It is an argument so that runs with other seeds share the compiled program.

    Args:
      schedule: learning rate by step, the same as in `tx`; it is reported.
      accumulate: the batch is cut into as many parts whose gradients are summed, so that the
        result is that of the whole batch in less memory (batch norms see the parts).
      ema_decay: decay of the averaged parameters and running statistics, if the state has them.
      ema_warmup: the decay is at most (1 + t) / (10 + t), as in TensorFlow, so that the first
        parameters are forgotten quickly; 0.9999 is reached at step 90,000. False: as in timm.
      gather: gathers the parameters before their use; see `partition.gather_params`.
      trainable: parameters that `tx` updates; the others get no gradients.
    """

    def loss_sum(
        trained: Any, params: Any, collections: Any, batch: Batch, keys: Keys, frozen: Any
    ) -> Any:
        params = gather(trainable.put(params, trained))
        loss = task.loss(params, collections, batch, keys, frozen)
        mask = batch["mask"]
        terms = {name: jnp.sum(term * mask) for name, term in loss.terms.items()}
        sums = {"weight": jnp.sum(loss.weight * mask), "terms": terms}
        return jnp.sum(loss.value * mask), (loss.collections, sums)

    grad = jax.value_and_grad(loss_sum, has_aux=True)

    def gradients(state: TrainState, batch: Batch, keys: Keys) -> tuple[Any, Any, Any, Any]:
        trained, params = trainable.of(state.params), state.params
        if accumulate == 1:
            (loss, (collections, sums)), grads = grad(
                trained, params, state.collections, batch, keys, state.frozen
            )
            return loss, collections, sums, grads

        def part(carry: Any, given: Any) -> tuple[Any, None]:
            collections, totals = carry
            number, slice_ = given
            keyed = keys._replace(part=number)
            (loss, (collections, sums)), grads = grad(
                trained, params, collections, slice_, keyed, state.frozen
            )
            return (collections, jax.tree.map(jnp.add, totals, (loss, sums, grads))), None

        # Strided parts: each device keeps the samples that it has.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )
        first = jax.tree.map(lambda x: x[0], parts)
        (loss, (_, sums)), grads = jax.eval_shape(
            grad, trained, params, state.collections, first, keys, state.frozen
        )
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, sums, grads))
        given = (jnp.arange(accumulate), parts)
        (collections, totals), _ = jax.lax.scan(part, (state.collections, zero), given)
        loss, sums, grads = totals
        return loss, collections, sums, grads

    def train_step(
        state: TrainState, batch: Batch, key: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        loss, collections, sums, grads = gradients(state, batch, Keys(key, state.step))
        weight = jnp.where(sums["weight"] > 0, sums["weight"], 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
        trained = trainable.of(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, trained)
        params = trainable.put(state.params, optax.apply_updates(trained, updates))
        averages = move_averages(state, params, collections, ema_decay, ema_warmup)
        count = jnp.maximum(batch["mask"].sum(), 1.0)
        metrics = {
            "loss": loss / weight,
            **{name: term / count for name, term in sums["terms"].items()},
            "learning_rate": schedule(state.step),
            "grad_norm": optax.tree.norm(grads),
            "skipped_images": batch["mask"].size - batch["mask"].sum(),
        }
        state = TrainState(
            state.step + 1, params, collections, opt_state, *averages, frozen=state.frozen
        )
        return state, metrics

    return train_step


def move_averages(
    state: TrainState, params: Any, collections: Any, decay: float, warmup: bool
) -> tuple[Any, Any]:
    """Update `ema` and `ema_collections`: decay · average + (1 - decay) · value."""
    if state.ema is None:
        return None, None
    share = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step)) if warmup else decay
    values = (params, {name: collections[name] for name in state.ema_collections})
    averages = (state.ema, state.ema_collections)
    return jax.tree.map(lambda e, p: share * e + (1 - share) * p, averages, values)


def gathered(state: TrainState, gather: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the variables of a state, with its parameters gathered."""
    variables = state.variables()
    return {**variables, "params": gather(variables["params"])}


def make_eval_step(
    task: Task, gather: Callable[[Any], Any] = lambda params: params
) -> Callable[[TrainState, Batch], tuple[Any, Any]]:
    """Build `(state, batch) → (sums, rows)`: see `Task.measure` and `Task.rows`."""

    def eval_step(state: TrainState, batch: Batch) -> tuple[Any, Any]:
        prediction = task.predict(gathered(state, gather), batch)
        rows = task.rows(prediction, batch) if task.rows else None
        return task.measure(prediction, batch), rows

    return eval_step


def make_features_step(
    task: Task, gather: Callable[[Any], Any] = lambda params: params
) -> Callable[[TrainState, Batch], tuple[Any, Any]]:
    """Build `(state, batch) → (no sums, rows)`, with `Task.features` and labels as rows."""

    def features_step(state: TrainState, batch: Batch) -> tuple[Any, Any]:
        assert task.features is not None  # checked when the run begins
        return {}, (task.features(gathered(state, gather), batch), batch["label"])

    return features_step
