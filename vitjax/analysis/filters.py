"""What a ViT has learnt before its first block: principal components of the patch filters, and the
similarity of position embeddings (arXiv:2010.11929, figures 7 and 10).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from vitjax.layers.patch_embed import patch_grid


class Components(NamedTuple):
    """Principal components of patch filters.

    Attributes:
      filters: unit vectors `[n, p, p, c]`, those of the largest variance first. Each one's sign is
        such that its largest entry is positive.
      variance: share of the filters' variance along each.
    """

    filters: Float[np.ndarray, "n p p c"]
    variance: Float[np.ndarray, "n"]


def filter_components(variables: Mapping[str, Any], count: int = 28) -> Components:
    """Compute the principal components of the filters of the first convolution.

    Each of its output channels is one sample, and their mean is subtracted.

    Raises:
      ValueError: the model has no convolution of the image.
    """
    found = (
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables["params"])[0]
    )
    kernel = next((k for name, k in found if re.search(_FIRST, name) and k.ndim == 4), None)
    if kernel is None:
        raise ValueError(
            "This model has no stem whose convolution reads the image, so there are no patch "
            "filters to show."
        )
    filters = np.moveaxis(np.asarray(kernel, np.float64), -1, 0)  # [C, p, p, c]
    flat = filters.reshape(filters.shape[0], -1)
    _, scale, directions = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    largest = np.argmax(np.abs(directions), axis=1, keepdims=True)
    directions *= np.sign(np.take_along_axis(directions, largest, axis=1))
    share = scale**2 / max(np.sum(scale**2), np.finfo(float).tiny)
    count = min(count, len(share))
    shaped = directions.reshape(-1, *filters.shape[1:])
    return Components(shaped[:count].astype(np.float32), share[:count].astype(np.float32))


_FIRST = r"(^|/)(patch_embed|stem(_0)?)/(?!.*(stage_|block)).*kernel$"
"""The first of these is the layer that reads the image, in every family."""


def position_similarity(
    model: nn.Module, variables: Mapping[str, Any]
) -> Float[np.ndarray, "h w h w"]:
    """Compute the cosine similarity of the position embeddings of every two patches.

    The first axes are the rows and columns of one patch, the last those of the other.

    Raises:
      ValueError: the model has no learned table of positions of its patches.
    """
    params = variables["params"]
    if "pos_embed" not in params or not hasattr(model, "patch_size"):
        raise ValueError(
            f"This {type(model).__name__} has no learned table of its patches' positions "
            f"('pos_embed'), so there is no similarity to show."
        )
    own: Any = model
    rows, columns = patch_grid(own.image_size, own.patch_size)
    table = np.asarray(params["pos_embed"], np.float64)[0, -rows * columns :]
    length = np.linalg.norm(table, axis=1, keepdims=True)
    table = table / np.maximum(length, np.finfo(float).tiny)
    return (table @ table.T).reshape(rows, columns, rows, columns).astype(np.float32)
