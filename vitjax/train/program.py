"""Compiled programs of a run: state and steps with shardings, for real or described devices."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from vitjax.abstract import abstract_init
from vitjax.data.kinds import batch_spec
from vitjax.kernels.platform import traced_for
from vitjax.task import Task
from vitjax.train import optimizer, sharding
from vitjax.train.compiler import compiler_options, init_options
from vitjax.train.defaults import RunConfig
from vitjax.train.partition import gather_params, partition_state
from vitjax.train.state import create_state
from vitjax.train.step import make_eval_step, make_features_step, make_train_step


class Program(NamedTuple):
    """Parts of a run that depend on config, task and mesh alone.

    Attributes:
      init: jitted, key → TrainState without `frozen`.
      train_step: jitted, (state, batch, key) → (state, metrics); the state is donated.
      eval_step: jitted, (state, batch) → (sums, rows).
      features_step: jitted, (state, batch) → (no sums, features and labels of each sample).
      state: the state's shapes, dtypes and shardings.
      batch_spec: shapes, dtypes and shardings of a training batch.
      key: shape, dtype and sharding of the run's key.
      schedule: step → learning rate.
    """

    init: Callable[..., Any]
    train_step: Any
    eval_step: Any
    features_step: Any
    state: Any
    batch_spec: dict[str, jax.ShapeDtypeStruct]
    key: jax.ShapeDtypeStruct
    schedule: Callable[[Any], Any]

    @property
    def batch_sharding(self) -> NamedSharding:
        return self.batch_spec["mask"].sharding


def compile_program(config: RunConfig, task: Task, mesh: Mesh, steps: int) -> Program:
    """Build a run's programs; nothing is allocated or compiled before the first call.

    Args:
      config: resolved config of the run.
      steps: length of the run.
    """
    d, o = config.data, config.optimizer
    schedule = optimizer.make_schedule(config.schedule, steps)
    variables = abstract_init(task.init, jax.random.key(0))
    params = variables["params"]
    rules = optimizer.fitting_rules(params, task.decay_rules)
    trainable = optimizer.trainable_params(params, o.learning_rate_rules, o.freeze)
    tx = optimizer.make_optimizer(o, schedule, params, decay_rules=rules, trainable=trainable)
    everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def create(variables: Any) -> Any:
        return create_state(variables, tx, o.ema > 0, trainable)

    def draw(key: Any) -> Any:
        return create(task.init(key))

    shapes = jax.eval_shape(create, variables)
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), task.frozen)
    shapes = dataclasses.replace(shapes, frozen=frozen)
    placed = partition_state(shapes, mesh, config.sharding_rules, task.sharding_rules)
    gather = gather_params(placed.params, mesh)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed
    )
    step = make_train_step(
        task, tx, schedule, accumulate=o.accumulate, ema_decay=o.ema, ema_warmup=o.ema_warmup,
        gather=gather, trainable=trainable,
    )  # fmt: skip

    def jitted(function: Callable[..., Any], **options: Any) -> Any:
        function = sharding.constrain_activations(function, mesh, task.residual)
        return jax.jit(traced_for(mesh.devices.flat[0].platform)(function), **options)

    train_step = jitted(
        step,
        donate_argnums=0,
        compiler_options=compiler_options(list(mesh.devices.flat)),
        out_shardings=(placed, everywhere),
    )
    eval_step, features_step = (
        jitted(make(task, gather), out_shardings=(everywhere, split))
        for make in (make_eval_step, make_features_step)
    )
    batch = {
        name: jax.ShapeDtypeStruct((d.batch_size, *spec.shape), spec.dtype, sharding=split)
        for name, spec in batch_spec(task.kinds).items()
    }
    sizes = [leaf.size for leaf in jax.tree.leaves(state.params)]
    init = jax.jit(
        draw,
        out_shardings=dataclasses.replace(placed, frozen=None),
        compiler_options=init_options(list(mesh.devices.flat), sizes),
    )
    key = jax.eval_shape(jax.random.key, 0)
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere)
    return Program(init, train_step, eval_step, features_step, state, batch, key, schedule)


def with_frozen(state: Any, program: Program, task: Task) -> Any:
    """Add the task's frozen arrays to a state, with the shardings of the program."""
    if task.frozen is None:
        return state
    shardings = jax.tree.map(lambda x: x.sharding, program.state.frozen)
    return dataclasses.replace(state, frozen=jax.device_put(task.frozen, shardings))
