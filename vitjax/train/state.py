"""What a step changes: data only."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util


@struct.dataclass
class TrainState:
    """Everything that the next step depends on, besides the config and the batch.

    Attributes:
      step: optimizer steps taken, an int32 scalar.
      params: float32 parameters.
      rest: the model's other variables (running statistics of batch norms).
      opt_state: the optimizer's.
      ema: exponential moving average of the parameters, or None.
    """

    step: Any
    params: Any
    rest: Any
    opt_state: Any
    ema: Any

    def variables(self) -> dict[str, Any]:
        """What to evaluate: the averaged parameters if there are any."""
        return {"params": self.params if self.ema is None else self.ema, **self.rest}


def create_state(
    variables: dict[str, Any], tx: optax.GradientTransformation, ema: bool
) -> TrainState:
    """The state before the first step."""
    params = variables["params"]
    rest = {k: v for k, v in variables.items() if k != "params"}
    copy = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, rest, tx.init(params), copy)


def with_variables(state: TrainState, variables: dict[str, Any]) -> TrainState:
    """The state with other parameters, averages and running statistics, placed as its own are.

    Args:
      variables: whole arrays, the same on every process.
    """

    def place(like: Any, value: Any) -> Any:
        value = np.asarray(value, like.dtype)
        return jax.make_array_from_callback(like.shape, like.sharding, lambda i: value[i])

    params = jax.tree.map(place, state.params, variables["params"])
    rest = jax.tree.map(place, state.rest, {k: variables[k] for k in state.rest})
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return dataclasses.replace(state, params=params, rest=rest, ema=ema)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by path, "block_0/mixer/qkv/kernel", in the order of the paths."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return dict(
        sorted((jax.tree_util.keystr(path, simple=True, separator="/"), v) for path, v in flat)
    )


def sha256(params: Any) -> str:
    """SHA-256 of the parameters' bytes: little-endian, row-major, one after the other by path."""
    digest = hashlib.sha256()
    for leaf in named_leaves(params).values():
        digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return digest.hexdigest()


def map_named(function: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Applies `function(path, leaf)` to a tree of nested dicts."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return traverse_util.unflatten_dict({k: function(k, v) for k, v in flat.items()}, sep="/")
