"""Published weights ↔ parameters, on plain numpy dictionaries. One table per family; models know
nothing of it.
"""

import importlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vitjax import models
from vitjax.models import create_model, model_spec
from vitjax.models.encoder import Encoder, stack_layers, unstack_layers
from vitjax.weights import table

FAMILIES: dict[Any, Any] = {
    factory: importlib.import_module(f"vitjax.weights.{module}")
    for family in models.FAMILIES
    for factory, module in family.weights.items()
}
"""Factory on the menu → module with TABLE, and where a family needs them IGNORE and
`adapt(state_dict, model)`.
"""


def from_torch(
    name: str, state_dict: Mapping[str, Any], num_classes: int = 1000, **overrides: Any
) -> dict[str, Any]:
    """The variables of `create_model(name, num_classes, **overrides)` from a PyTorch state dict of
    numpy arrays.

    Position tables of another image size are interpolated (2-D bicubic).

    Raises:
      ValueError: lists every missing, unused and misshapen key.
    """
    model, family = create_model(name, num_classes, **overrides), FAMILIES[model_spec(name).factory]
    return convert(family, family.TABLE, adapt(family, state_dict, model), model)


def adapt(family: Any, state_dict: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The state dict under the family's canonical names, its tables resized to the model's."""
    if not hasattr(family, "adapt"):
        return dict(state_dict)
    try:
        return family.adapt(dict(state_dict), model)
    except (AttributeError, LookupError, TypeError, ValueError):
        return dict(state_dict)  # of another family, or damaged: `convert` lists what differs


def convert(
    family: Any,
    rows: Sequence[table.Row],
    state_dict: Mapping[str, Any],
    model: Any,
    fresh: Mapping[tuple[str, ...], Any] = types.MappingProxyType({}),
) -> dict[str, Any]:
    """The variables of a model from a state dict that `adapt` has seen, by one of its family's
    tables.

    Args:
      fresh: leaves that do not come from the state dict.

    Raises:
      ValueError: lists every missing, unused and misshapen key.
    """
    scanned = isinstance(model, Encoder) and model.scan  # others keep their names
    plain = model.clone(scan=False) if scanned else model
    shapes = traverse_util.flatten_dict(abstract_variables(plain))
    wanted = {path: leaf for path, leaf in shapes.items() if path not in fresh}
    leaves = table.load(rows, state_dict, wanted, getattr(family, "IGNORE", ()))
    variables = traverse_util.unflatten_dict({**leaves, **fresh})
    return {**variables, "params": stack_layers(variables["params"])} if scanned else variables


def to_torch(name: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The PyTorch state dict of these variables, names and layouts as the published weights have
    them.

    The inverse of `from_torch`; gradients, being shaped like parameters, pass through it too.
    """
    variables = {
        "params": unstack_layers(variables["params"]),
        **{k: v for k, v in variables.items() if k != "params"},
    }
    return table.dump(
        FAMILIES[model_spec(name).factory].TABLE, traverse_util.flatten_dict(variables)
    )


def abstract_variables(model: Any) -> Any:
    """Shapes and dtypes of a model's variables, with no computation; the image is that of
    `model.image_size`.
    """
    size = model.image_size
    height, width = (size, size) if isinstance(size, int) else size
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)
