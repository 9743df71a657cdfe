"""Images of any number of channels, for functions that accept one to four channels."""

import itertools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

RGB = 3
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R 601)."""
MOST = 16
"""Channels that an image may have."""


def by_planes(
    function: Callable[..., Any], image: UInt8[np.ndarray, "H W c"], *arguments: Any, **options: Any
) -> UInt8[np.ndarray, "h w c"]:
    """Apply a function of OpenCV that treats channels alike, to three or one at a time.

    Some functions of OpenCV reject more than four channels, some round two channels differently,
    and an axis of one channel is dropped.
    """
    channels = image.shape[2]
    if channels == RGB:
        return function(image, *arguments, **options)
    whole = channels - channels % RGB
    steps = [*range(0, whole, RGB), *range(whole, channels + 1)]
    parts = [
        function(np.ascontiguousarray(image[..., i:j]), *arguments, **options)
        for i, j in itertools.pairwise(steps)
    ]
    return np.concatenate([p if p.ndim == 3 else p[..., None] for p in parts], axis=2)


def luma(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 1"]:
    """Compute the luma of RGB (ITU-R 601), within 1 of Pillow's mode "L"; gray is unchanged."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]


def fit_channels(
    image: Shaped[np.ndarray, "..."], channels: int, name: str = ""
) -> Shaped[np.ndarray, "H W c"]:
    """Convert an image to a number of channels: gray to RGB, or RGB to gray; no others.

    Args:
      image: `[H, W]` or `[H, W, C]`.
      channels: 1 to MOST.
      name: name of the image in errors.

    Raises:
      ValueError: the image has another number of channels.
    """
    image = image[..., None] if image.ndim == 2 else image
    found = image.shape[2]
    if found == channels:
        return image
    if (found, channels) == (1, RGB):
        return np.repeat(image, RGB, axis=2)
    if (found, channels) == (RGB, 1):
        return luma(image)
    whose = f"Image {name!r}: it" if name else "it"
    raise ValueError(
        f"{whose} has {found} channel{'s' * (found != 1)}, and data.channels={channels}; set "
        f"data.channels={found}, or give images of {channels}. Gray and RGB are made of each "
        f"other, and no others"
    )
