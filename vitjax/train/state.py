"""What a step changes: data only."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util

AVERAGED = ("batch_stats",)
"""Collections besides the parameters of which a moving average is kept, as timm keeps it."""


@struct.dataclass
class TrainState:
    """Everything that the next step depends on, besides the config and the batch.

    Attributes:
      step: optimizer steps taken, an int32 scalar.
      params: float32 parameters.
      collections: the model's other variables (running statistics of batch norms).
      opt_state: the optimizer's.
      ema: exponential moving average of the parameters, or None.
      ema_collections: that of the running statistics, by collection; None without averages.
      frozen: what the task's loss reads and nothing changes; no checkpoint holds it.
    """

    step: Any
    params: Any
    collections: Any
    opt_state: Any
    ema: Any
    ema_collections: Any = None
    frozen: Any = None

    def variables(self) -> dict[str, Any]:
        """Give what to evaluate: the averages if there are any."""
        if self.ema is None:
            return {"params": self.params, **self.collections}
        return {"params": self.ema, **self.collections, **(self.ema_collections or {})}


def create_state(
    variables: dict[str, Any], tx: optax.GradientTransformation, ema: bool
) -> TrainState:
    """The state before the first step."""
    params = variables["params"]
    collections = {k: v for k, v in variables.items() if k != "params"}
    averages = _averages(params, collections) if ema else (None, None)
    return TrainState(jnp.zeros((), jnp.int32), params, collections, tx.init(params), *averages)


def _averages(params: Any, collections: dict[str, Any]) -> tuple[Any, Any]:
    """Give the first values of `ema` and `ema_collections`."""
    averaged = {k: v for k, v in collections.items() if k in AVERAGED}
    return jax.tree.map(jnp.copy, (params, averaged))


def with_variables(state: TrainState, variables: dict[str, Any]) -> TrainState:
    """The state with other parameters, averages and running statistics, placed as its own are.

    Args:
      variables: whole arrays, the same on every process.
    """

    def place(like: Any, value: Any) -> Any:
        value = np.asarray(value, like.dtype)
        return jax.make_array_from_callback(like.shape, like.sharding, lambda i: value[i])

    params = jax.tree.map(place, state.params, variables["params"])
    own = {k: variables[k] for k in state.collections}
    collections = jax.tree.map(place, state.collections, own)
    ema, averages = (None, None) if state.ema is None else _averages(params, collections)
    return dataclasses.replace(
        state, params=params, collections=collections, ema=ema, ema_collections=averages
    )


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
