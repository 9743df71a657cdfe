"""Published weights ↔ parameters, on plain numpy dictionaries. One table per family; models know
nothing of it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vitjax.models import create_model, model_spec
from vitjax.models.vit import ViT, stack_layers, unstack_layers
from vitjax.weights import table, vit

FAMILIES: dict[Any, Any] = {ViT: vit}
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
    scanned = getattr(model, "scan", False)
    plain = model.clone(scan=False) if scanned else model
    shapes = traverse_util.flatten_dict(abstract_variables(plain))
    if hasattr(family, "adapt"):
        state_dict = family.adapt(dict(state_dict), plain)
    leaves = table.load(family.TABLE, state_dict, shapes, getattr(family, "IGNORE", ()))
    variables = traverse_util.unflatten_dict(leaves)
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
