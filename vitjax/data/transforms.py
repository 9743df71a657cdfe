"""Pictures to squares: which rectangle of them, and how it is resized. Pure functions.

An image is an array [H, W, 3] of 8 bits, at least one pixel, or a file's bytes: of a JPEG file no
more is decoded than the rectangle needs. Random ones take a numpy Generator.
"""

import math
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from vitjax.data.image import Box, Picture
from vitjax.data.resample import KERNELS, resize_like_pillow

Image: TypeAlias = UInt8[np.ndarray, "H W 3"] | bytes | Picture
Square: TypeAlias = UInt8[np.ndarray, "S S 3"]

CROP_FRACTION = 0.875  # of the short side: 224 of 256, the usual centre crop of ImageNet
ATTEMPTS = 10
INTERPOLATIONS = ("area", "bilinear", *KERNELS)


def resize(image: UInt8[np.ndarray, "H W 3"], size: int, interpolation: str = "area") -> Square:
    """Resizes to a square.

    Args:
      image: any size.
      size: side of the result.
      interpolation: "area" averages the covered pixels when shrinking and is bilinear otherwise;
        "bilinear" mixes the four nearest pixels at any scale, as `tf.image.resize` does; "bicubic"
        and "antialias" are Pillow's bicubic and bilinear, which widen when shrinking.
    """
    if interpolation in KERNELS:
        return resize_like_pillow(image, size, interpolation)
    if interpolation == "area" and size < min(image.shape[:2]):
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    # OpenCV reads a part of a larger image more slowly than it is copied and then read.
    whole = np.ascontiguousarray(image)
    return cv2.resize(whole, (size, size), interpolation=cv2.INTER_LINEAR)


def cut_out(
    image: Image,
    box: Box,
    size: int,
    interpolation: str = "area",
    *,
    exact: bool = True,
    border: int = cv2.BORDER_REFLECT_101,
) -> Square:
    """The rectangle `box` of an image, resized.

    Args:
      border: what lies outside of the image: its mirror, or with cv2.BORDER_CONSTANT black.
      exact: False lets a JPEG file be decoded at ½, ¼ or ⅛ of its size where the rectangle shrinks
        by as much: for training, where the kernel matters less than the time.
    """
    picture = image if isinstance(image, Picture) else Picture(image)
    reduce = 1
    while not exact and reduce < 8 and min(box.height, box.width) >= 2 * reduce * size:
        reduce *= 2
    top, left = max(box.top, 0), max(box.left, 0)
    bottom = min(box.top + box.height, picture.height)
    right = min(box.left + box.width, picture.width)
    inner = Box(top, left, bottom - top, right - left)
    part = picture.part(inner, reduce)
    if inner != box:
        above, below = (top - box.top) // reduce, (box.top + box.height - bottom) // reduce
        before, after = (left - box.left) // reduce, (box.left + box.width - right) // reduce
        part = cv2.copyMakeBorder(part, above, below, before, after, border)
    return resize(part, size, interpolation)


def centre_box(height: int, width: int, size: int, fraction: float = CROP_FRACTION) -> Box:
    """The central square, of side `fraction` of the image's short side; beyond 1 it is larger.

    Small images, whose short side is at most `size`, lose nothing but what does not fit the square.
    """
    short = min(height, width)
    side = short if short <= size and fraction < 1 else max(round(fraction * short), 1)
    return Box((height - side) // 2, (width - side) // 2, side, side)


def random_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random rectangle (Szegedy et al., arXiv:1409.4842, section 6).

    Args:
      height, width: of the image.
      rng: draws the rectangle.
      area: range of the rectangle's share of the image, uniform.
      ratio: range of its width over height, log-uniform. Where ten draws do not fit into the
        image, the largest central rectangle within this range is taken.
    """
    areas = height * width * rng.uniform(*area, ATTEMPTS)
    ratios = rng.uniform(math.log(ratio[0]), math.log(ratio[1]), ATTEMPTS)
    for size, log in zip(areas.tolist(), ratios.tolist()):
        h, w = round(math.sqrt(size / math.exp(log))), round(math.sqrt(size * math.exp(log)))
        if 1 <= w <= width and 1 <= h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return Box(int(top), int(left), h, w)
    h = min(height, max(round(width / ratio[0]), 1))
    w = min(width, max(round(height * ratio[1]), 1))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def shifted_box(height: int, width: int, rng: np.random.Generator, size: int, pad: int = 4) -> Box:
    """A square of the image's short side, anywhere, up to `pad` pixels of the result outside.

    The simple random crop of DeiT III (arXiv:2204.07118, section 3.2): the short side becomes the
    side of the result, padded by mirroring.
    """
    short = min(height, width)
    margin = min(pad * short // size, short - 1)
    top = rng.integers(-margin, height - short + margin + 1)
    left = rng.integers(-margin, width - short + margin + 1)
    return Box(int(top), int(left), short, short)


def resize_and_centre_crop(
    image: Image, size: int, fraction: float = CROP_FRACTION, interpolation: str = "area"
) -> Square:
    """What evaluation sees: the central square (see `centre_box`), resized; black beside it."""
    picture = image if isinstance(image, Picture) else Picture(image)
    box = centre_box(picture.height, picture.width, size, fraction)
    return cut_out(picture, box, size, interpolation, border=cv2.BORDER_CONSTANT)


def squeeze(image: Image, size: int, interpolation: str = "area") -> Square:
    """The whole image, whatever its proportions, resized to a square."""
    picture = image if isinstance(image, Picture) else Picture(image)
    return cut_out(picture, Box(0, 0, picture.height, picture.width), size, interpolation)


def random_resized_crop(
    image: Image,
    rng: np.random.Generator,
    size: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "area",
) -> Square:
    """Crops a random rectangle (see `random_box`) and resizes it."""
    picture = image if isinstance(image, Picture) else Picture(image)
    box = random_box(picture.height, picture.width, rng, area, ratio)
    return cut_out(picture, box, size, interpolation, exact=False)
