"""Video Swin: the authors' names, as mmaction has them, and torchvision's; Swin's of images, which
are inflated.
"""

import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.layers.position import resize_grid
from vitjax.models.pyramid import Pyramid
from vitjax.weights import swin
from vitjax.weights.libraries import Names
from vitjax.weights.torchvision import SWIN_BLOCK

TABLE = swin.TABLE
IGNORE = swin.IGNORE


def _stage(match: re.Match[str]) -> str:
    """Translate `features.{n}` to a stage or a downsampling, which alternate from 0."""
    stage, halving = divmod(int(match[1]), 2)
    return f"layers.{stage}." + ("downsample." if halving else "blocks.")


TORCHVISION = Names("torchvision", r"^features\.0\.0\.attn\.", (
    (r"^features\.(\d+)\.", _stage), *SWIN_BLOCK,
))  # fmt: skip
LIBRARIES = (TORCHVISION, *swin.LIBRARIES)


def adapt(state_dict: dict[str, Any], model: Pyramid) -> dict[str, Any]:
    """Interpolate the position tables of another window, and inflate weights of images.

    As in the authors' code the patch embedding is repeated over the frames of a patch and divided
    by their number, and the position table is repeated over displacements in time.
    """
    found = swin.authors_names(state_dict, len(model.depths))
    frames = dict(model.stem.kwargs)["patch_frames"]
    kernel = np.asarray(found.get("patch_embed.proj.weight", ()))
    of_images = kernel.ndim == 4
    if of_images:
        found["patch_embed.proj.weight"] = np.repeat(kernel[:, :, None], frames, axis=2) / frames
    for key, table in found.items():
        match = re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\..*position_bias_table", key)
        window = match and _window(model, *map(int, match.groups()))
        if window and of_images:
            side = math.isqrt(np.shape(table)[0])
            table = np.tile(np.asarray(table), (2 * window[0] - 1, 1))
            found[key] = resize_bias_table(table, (window[0], (side + 1) // 2), window)
    return found


def resize_bias_table(table: Any, made_for: tuple[int, int], window: tuple[int, int]) -> np.ndarray:
    """Interpolate a table of relative positions for another window, (frames, side) (cubic)."""
    if made_for == window:
        return np.asarray(table)
    old, new = (tuple(2 * n - 1 for n in (w[0], w[1], w[1])) for w in (made_for, window))
    grid = jnp.asarray(table).reshape(*old, -1)
    return np.asarray(resize_grid(grid, new, antialias=False).reshape(math.prod(new), -1))


def _window(model: Pyramid, stage: int, block: int) -> tuple[int, int] | None:
    """Return frames and side of a block's window, or None where it has no such mixer."""
    if stage >= len(model.mixers):
        return None
    mixers = model.mixers[stage]
    options = dict(mixers[block % len(mixers)].at(stage).kwargs)
    if "window_size_t" not in options:
        return None
    return options["window_size_t"], options["window_size"]
