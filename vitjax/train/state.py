"""State of training: the data that a step changes."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util

AVERAGED = ("batch_stats",)
"""Collections besides the parameters of which a moving average is kept, as timm keeps it."""


@struct.dataclass
class TrainState:
    """State on which the next step depends, besides the config and the batch.

    Attributes:
      step: optimizer steps taken, an int32 scalar.
      params: float32 parameters.
      collections: the model's other variables (running statistics of batch norms).
      opt_state: state of the optimizer.
      ema: exponential moving average of the parameters, or None.
      ema_collections: moving averages of the running statistics, by collection; None without
        averages.
      frozen: arrays that the task's loss reads and nothing changes; no checkpoint holds them.
    """

    step: Any
    params: Any
    collections: Any
    opt_state: Any
    ema: Any
    ema_collections: Any = None
    frozen: Any = None

    def variables(self) -> dict[str, Any]:
        """Return the variables to evaluate: the averages if there are any."""
        if self.ema is None:
            return {"params": self.params, **self.collections}
        return {"params": self.ema, **self.collections, **(self.ema_collections or {})}


class Trainable(NamedTuple):
    """Selection of the trained parameters; the others have no gradients and no moments.

    Attributes:
      paths: paths of the trained parameters; None for all.
    """

    paths: frozenset[str] | None = None

    def of(self, params: Any) -> Any:
        """Select the trained parameters of a tree of nested dicts like the parameters."""
        if self.paths is None:
            return params
        flat = traverse_util.flatten_dict(params, sep="/")
        return traverse_util.unflatten_dict(
            {path: leaf for path, leaf in flat.items() if path in self.paths}, sep="/"
        )

    def put(self, params: Any, trained: Any) -> Any:
        """Return all parameters with the trained ones replaced."""
        if self.paths is None:
            return trained
        flat = traverse_util.flatten_dict(params, sep="/")
        flat |= traverse_util.flatten_dict(trained, sep="/")
        return traverse_util.unflatten_dict(flat, sep="/")


EVERY = Trainable()
"""All parameters are trained."""


def create_state(
    variables: dict[str, Any],
    tx: optax.GradientTransformation,
    ema: bool,
    trainable: Trainable = EVERY,
) -> TrainState:
    """Create the state before the first step.

    Args:
      tx: optimizer of the trained parameters.
    """
    params = variables["params"]
    collections = {k: v for k, v in variables.items() if k != "params"}
    averages = _averages(params, collections) if ema else (None, None)
    opt_state = tx.init(trainable.of(params))
    return TrainState(jnp.zeros((), jnp.int32), params, collections, opt_state, *averages)


def _averages(params: Any, collections: dict[str, Any]) -> tuple[Any, Any]:
    """Initialise `ema` and `ema_collections`."""
    averaged = {k: v for k, v in collections.items() if k in AVERAGED}
    return jax.tree.map(jnp.copy, (params, averaged))


def with_variables(state: TrainState, variables: dict[str, Any]) -> TrainState:
    """Replace parameters, averages and running statistics of a state, with the same shardings.

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
    """Collect the leaves by path, such as "block_0/mixer/qkv/kernel", sorted by path."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return dict(
        sorted((jax.tree_util.keystr(path, simple=True, separator="/"), v) for path, v in flat)
    )


def sha256(params: Any) -> str:
    """Compute the SHA-256 of the parameters' bytes: little-endian, row-major, sorted by path."""
    digest = hashlib.sha256()
    for leaf in named_leaves(params).values():
        digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return digest.hexdigest()


def map_named(function: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Apply `function(path, leaf)` to a tree of nested dicts."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return traverse_util.unflatten_dict({k: function(k, v) for k, v in flat.items()}, sep="/")
