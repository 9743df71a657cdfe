"""Conversion between published weights and parameters, on plain numpy dictionaries.

There is one table per family; model files do not import it.
"""

import contextlib
import functools
import importlib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vitjax import models
from vitjax.abstract import abstract_init
from vitjax.models import create_model, model_spec
from vitjax.models.dense import DenseModel
from vitjax.models.encoder import Encoder, stack_layers, unstack_layers
from vitjax.models.protocols import input_shape
from vitjax.weights import inputs, libraries, table

FAMILIES: dict[Any, Any] = {
    factory: importlib.import_module(f"vitjax.weights.{module}")
    for family in models.FAMILIES
    for factory, module in family.weights.items()
}
"""Factory on the menu → module with TABLE, and where a family needs them IGNORE, LIBRARIES (names
of other libraries) and `adapt(state_dict, model)`.
"""


def from_torch(
    name: str,
    state_dict: Mapping[str, Any],
    num_classes: int | None = None,
    *,
    channels: int = 3,
    **overrides: Any,
) -> dict[str, Any]:
    """Convert a PyTorch state dict of numpy arrays to variables of a model.

    The model is `create_model(name, num_classes, **overrides)`.

    Position tables of another image size are interpolated (2-D bicubic), and the first convolution
    of another number of channels is adapted (`inputs`).

    Args:
      channels: of the model's images.

    Raises:
      ValueError: lists every missing, unused and misshapen key.
    """
    model, family = create_model(name, num_classes, **overrides), FAMILIES[model_spec(name).factory]
    adapted = adapt(family, state_dict, model)
    return convert(family, rows_of(family, model), adapted, model, channels=channels)


def rows_of(family: Any, model: Any, backbone: Any = None) -> tuple[table.Row, ...]:
    """Return the table of a model: its family's, and under a dense head its backbone's too.

    Args:
      backbone: the backbone's table, if not that of PyTorch's names.
    """
    if not isinstance(model, DenseModel):
        return family.TABLE
    own, inner = family.TABLE, backbone or FAMILIES[model.encoder.factory].TABLE
    return (*own, *FEATURE_NORMS, *(under_backbone(row) for row in inner))


FEATURE_NORMS: tuple[table.Row, ...] = (("backbone.norm{i}", "backbone/feature_norm_{i}", "norm"),)
"""Norms of a backbone's maps, as mmseg names them."""


def under_backbone(row: table.Row) -> table.Row:
    """Convert a row of a backbone's table to the row of a dense model's table."""
    theirs, ours, kind, *when = row
    return (f"backbone.{theirs}", f"backbone/{ours}", kind, *(f"backbone/{w}" for w in when))  # type: ignore[return-value]


def adapt(family: Any, state_dict: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Translate a state dict to the family's canonical names and resize tables to the model's.

    Raises:
      ValueError: the weights are of an architecture that the family does not have.
    """
    names = getattr(family, "LIBRARIES", ())
    if isinstance(model, DenseModel):
        found = libraries.without_outer_prefix(dict(state_dict))
        found = libraries.rename_all(names, found, model)
    else:
        found = libraries.translate(names, state_dict, model)
    if hasattr(family, "adapt"):
        # Of another family, or damaged: `convert` lists what differs.
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
            found = family.adapt(found, model)
    if not isinstance(model, DenseModel):
        return found
    own = {k.removeprefix("backbone."): v for k, v in found.items() if _of_backbone(k)}
    inner = adapt(FAMILIES[model.encoder.factory], own, model.encoder.build())
    heads = {k: v for k, v in found.items() if not _of_backbone(k)}
    return {**heads, **{f"backbone.{k}": v for k, v in inner.items()}}


def _of_backbone(key: str) -> bool:
    """Return whether a key belongs to a backbone, except the norms of its maps."""
    return key.startswith("backbone.") and not re.match(r"backbone\.norm\d+\.", key)


def convert(
    family: Any,
    rows: Sequence[table.Row],
    state_dict: Mapping[str, Any],
    model: Any,
    fresh: Mapping[tuple[str, ...], Any] = types.MappingProxyType({}),
    channels: int = 3,
) -> dict[str, Any]:
    """Convert a state dict that `adapt` returned to variables, by one of the family's tables.

    Args:
      fresh: leaves that do not come from the state dict.
      channels: of the model's images; see `inputs.adapt_channels`.

    Raises:
      ValueError: lists every missing, unused and misshapen key.
    """
    plain = unrolled(model)
    shapes = traverse_util.flatten_dict(abstract_variables(plain, channels))
    wanted = {path: leaf for path, leaf in shapes.items() if path not in fresh}
    links = table.link(rows, list(wanted))
    if not inputs.fits(links, state_dict, wanted):
        others = traverse_util.flatten_dict(abstract_variables(plain, 4 if channels == 3 else 3))
        state_dict = inputs.adapt_channels(links, state_dict, wanted, others, channels)
    leaves = table.load(rows, state_dict, wanted, ignored_keys(family, model))
    variables = traverse_util.unflatten_dict({**leaves, **fresh})
    if plain is model:
        return variables
    params = variables["params"]
    dense = isinstance(model, DenseModel)
    inner = {**params, "backbone": stack_layers(params["backbone"])} if dense else None
    return {**variables, "params": inner or stack_layers(params)}


def unrolled(model: Any) -> Any:
    """Return the model with `scan=False`, so that its blocks' parameters are not stacked.

    A model that does not scan is returned unchanged.
    """
    dense = isinstance(model, DenseModel)
    encoder = model.encoder.build() if dense else model
    if not (isinstance(encoder, Encoder) and encoder.scan):
        return model
    return model.clone(
        **(dict(encoder=model.encoder.replace(scan=False)) if dense else dict(scan=False))
    )


def ignored_keys(family: Any, model: Any) -> tuple[str, ...]:
    """Return the regular expressions of keys that are no parameters, the backbone's too."""
    own = tuple(getattr(family, "IGNORE", ()))
    if not isinstance(model, DenseModel):
        return own
    inner = getattr(FAMILIES[model.encoder.factory], "IGNORE", ())
    return (*own, *(rf"backbone\.(?:{pattern})" for pattern in inner))


def to_torch(name: str, variables: Mapping[str, Any], **overrides: Any) -> dict[str, np.ndarray]:
    """Convert variables to a PyTorch state dict, with the names and layouts of published weights.

    It is the inverse of `from_torch`; gradients, which are shaped like parameters, pass through it
    too.

    Args:
      **overrides: of a model with a backbone, which backbone it has.
    """
    variables = {
        "params": unstack_layers(variables["params"]),
        **{k: v for k, v in variables.items() if k != "params"},
    }
    rows = rows_of(FAMILIES[model_spec(name).factory], create_model(name, **overrides))
    return table.dump(rows, traverse_util.flatten_dict(variables))


def abstract_variables(model: Any, channels: int = 3) -> Any:
    """Compute shapes and dtypes of a model's variables, without running the model.

    The image has the size `model.image_size`, with so many channels.
    """
    return _abstract_variables(model, channels)


@functools.lru_cache(maxsize=32)  # loading asks for each model several times, and tracing is slow
def _abstract_variables(model: Any, channels: int) -> Any:
    image = jax.ShapeDtypeStruct(input_shape(model, channels=channels), jnp.float32)
    return abstract_init(model.init, jax.random.key(0), image)
