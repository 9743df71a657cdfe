"""ViViT: ViT's names, and transformers'; those of a ViT of images, which begin its training."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.position import resize_positions
from vitjax.models.vivit import ViViT
from vitjax.weights import transformers, vit

TABLE = vit.TABLE
LIBRARIES = (transformers.VIT._replace(preprocessing={}),)


def adapt(state_dict: dict[str, Any], model: ViViT) -> dict[str, Any]:
    """Interpolate positions of clips of another size, and inflate weights of images.

    The embedding of an image's patches becomes that of the middle frame of tubelets, whose other
    frames are 0, and positions are repeated over time (arXiv:2103.15691, section 3.4).
    """
    found, frames = dict(state_dict), model.patch_frames
    kernel = np.asarray(found.get("patch_embed.proj.weight", ()))
    positions, of_images = found.get("pos_embed"), kernel.ndim == 4
    if of_images:
        inflated = np.zeros((*kernel.shape[:2], frames, *kernel.shape[2:]), np.float32)
        inflated[:, :, frames // 2] = kernel
        found["patch_embed.proj.weight"] = inflated
    if positions is None:
        return found
    times, rows, columns = model.grid
    if of_images:
        table = jnp.asarray(positions)
        table = resize_positions(table, (rows, columns), num_prefix=1)
        token, patches = np.split(np.asarray(table), [1], axis=1)
        found["pos_embed"] = np.concatenate([token, np.tile(patches, (1, times, 1))], axis=1)
    elif np.shape(positions)[1] != 1 + math.prod(model.grid):
        found["pos_embed"] = _resized(positions, model)
    return found


def _resized(positions: Any, model: ViViT) -> np.ndarray:
    """Interpolate a table of as many tubelets along time, whose frames are squares."""
    times = model.grid[0]
    side = math.isqrt((np.shape(positions)[1] - 1) // times)
    table = resize_positions(
        jnp.asarray(positions), model.grid, num_prefix=1, source_grid=(times, side, side)
    )
    return np.asarray(table)
