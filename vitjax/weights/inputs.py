"""Published weights for images of another number of channels.

The first convolution is what timm's `adapt_input_conv` makes of it: summed over its inputs for one
channel, repeated and scaled by 3 / n for n. A model that gives images has a last convolution
besides, whose outputs are averaged or repeated.
"""

import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vitjax.weights import table

log = logging.getLogger(__name__)

_MOST = 16  # channels of an image
_OUT = -1  # the axis of a kernel that gives channels; the one before it reads them


def adapt_channels(
    links: Mapping[tuple[str, ...], table.Link],
    state_dict: Mapping[str, Any],
    shapes: Mapping[tuple[str, ...], Any],
    others: Mapping[tuple[str, ...], Any],
    channels: int,
) -> dict[str, Any]:
    """Adapt the first convolution of a state dict to images of so many channels.

    Args:
      links: of the model's leaves to keys.
      shapes: of the model's leaves.
      others: of its leaves for other channels; leaves that are the same depend on no image.
      channels: of the images.

    Raises:
      ValueError: the weights have other channels than 1 or 3, and the model several.
    """
    found = dict(state_dict)
    for path, leaf in shapes.items():
        own, (key, transform) = tuple(leaf.shape), links[path]
        differing = [i for i, (a, b) in enumerate(zip(own, others[path].shape)) if a != b]
        if not differing or key not in found:
            continue
        axis = differing[0] - len(own)
        for theirs in range(1, _MOST + 1):
            shape = tuple(theirs if i == differing[0] else side for i, side in enumerate(own))
            if theirs != channels and (value := _load(transform, found[key], shape)) is not None:
                found[key] = transform.dump(_adapted(value, axis, channels, key))
                break
    return found


def check_grid(source: str, image_size: Any, shapes: Mapping[tuple[str, ...], Any]) -> None:
    """Check that a run's flattened position tables have the rows and columns of the model.

    Such a table does not state its grid, and is taken for a square elsewhere.

    Args:
      source: the run's folder, or what else weights are read from.
      image_size: the model's.
      shapes: of the model's leaves.

    Raises:
      ValueError: so it is.
    """
    path = pathlib.Path(source) / "config.json"
    if not path.is_file():
        return
    content = json.loads(path.read_text())
    if "data" not in content:  # another library's
        return
    size = content["data"].get("image_size", 224)
    own = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
    flat = any(
        "pos" in p[-1] and leaf.shape[:1] == (1,) and len(leaf.shape) == 3
        for p, leaf in shapes.items()
    )
    if flat and not isinstance(size, int) and size[0] != size[1] and tuple(size) != own:
        raise ValueError(
            f"The run {source!r} has position tables for images of {size[0]}×{size[1]}, and the "
            f"model's are {own[0]}×{own[1]}: tables of other than squares are not resized. Give "
            f"the same image_size, or a model without such tables."
        )


def fits(
    links: Mapping[tuple[str, ...], table.Link],
    state_dict: Mapping[str, Any],
    shapes: Mapping[tuple[str, ...], Any],
) -> bool:
    """Return whether all kernels of convolutions that are there have the model's shapes."""
    return all(
        _load(transform, state_dict[key], tuple(shapes[path].shape)) is not None
        for path, (key, transform) in links.items()
        if path in shapes and key in state_dict and len(shapes[path].shape) >= 4
    )


def _load(transform: table.Transform, array: Any, shape: tuple[int, ...]) -> Any:
    """Convert an array to our layout; None unless it then has the shape."""
    try:
        value = transform.load(np.asarray(array), shape)
    except (ValueError, IndexError):
        return None
    return value if value.shape == shape else None


def _adapted(
    value: Shaped[np.ndarray, "..."], axis: int, channels: int, key: str
) -> Shaped[np.ndarray, "..."]:
    theirs = value.shape[axis]
    if channels > 1 and theirs not in (1, 3):
        raise ValueError(
            f"These weights read images of {theirs} channels ({key}), and the model {channels}: "
            f"those of 1 or 3 channels are adapted to any number, and those of others to 1. Set "
            f"data.channels={theirs}, or give other weights."
        )
    if axis == _OUT:
        how = "averaged over its outputs" if channels == 1 else "repeated"
    else:
        how = (
            "summed over its inputs"
            if channels == 1
            else (f"repeated and scaled by {theirs}/{channels}")
        )
    log.warning(
        "The weights' images have %d channel(s), and the model's %d: %s is %s.",
        theirs,
        channels,
        key,
        how,
    )
    if channels == 1:
        reduce = np.mean if axis == _OUT else np.sum
        return reduce(value, axis=axis, keepdims=True)
    repeated = np.take(value, np.arange(channels) % theirs, axis=axis)
    return repeated if axis == _OUT else repeated * np.asarray(theirs / channels, value.dtype)
