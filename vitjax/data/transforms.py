"""Pictures to squares: which rectangle of them, and how it is resized. Pure functions.

An image is an array [H, W, 3] of 8 bits, at least one pixel, or a file's bytes: of a JPEG file no
more is decoded than the rectangle needs. Random ones take a numpy Generator.
"""

import math
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from vitjax.data.image import Box, Picture
from vitjax.data.resample import (
    KERNELS,
    PILLOW,
    apply_weights,
    resize_like_pillow,
    resize_weights,
)

Image: TypeAlias = UInt8[np.ndarray, "H W 3"] | bytes | Picture
Square: TypeAlias = UInt8[np.ndarray, "S S 3"]

ATTEMPTS = 10
INTERPOLATIONS = tuple(KERNELS)
LARGEST_CROP = 2.0


class Window(NamedTuple):
    """A rectangle of an image in pixels, whose edges may lie between pixels or outside of it."""

    top: float
    left: float
    height: float
    width: float


def resize(image: UInt8[np.ndarray, "H W 3"], size: int, interpolation: str = "area") -> Square:
    """Resize an image to a square.

    Args:
      image: any size.
      size: side of the result.
      interpolation: "area" averages the covered pixels when shrinking and is bilinear otherwise;
        "bilinear" mixes the four nearest pixels at any scale, as `tf.image.resize` does; "bicubic"
        and "antialias" are Pillow's bicubic and bilinear, which widen when shrinking.
    """
    if interpolation in PILLOW:
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
) -> Square:
    """Cut a rectangle out of an image and resize it; outside of the image lies its mirror image.

    Pixels beside the rectangle do not count, as in training crops elsewhere.

    Args:
      image: any size.
      box: the rectangle.
      size: side of the result.
      interpolation: see `resize`.
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
        part = cv2.copyMakeBorder(part, above, below, before, after, cv2.BORDER_REFLECT_101)
    return resize(part, size, interpolation)


def centre_window(height: int, width: int, size: int, fraction: float = 1.0) -> Window:
    """Find what a centre crop of the resized image shows.

    The window is that of torchvision's Resize(int(size / fraction)) and CenterCrop(size) for every
    size of image: the short side is resized to int(size / fraction) pixels, the long side in
    proportion and rounded down, and `size` of the pixels of each are kept.

    Args:
      height, width: of the image.
      size: side of the square.
      fraction: share of the short side that is seen; beyond 1 the window is larger than the image.
    """
    short, resized = min(height, width), max(int(size / fraction), 1)

    def along(old: int) -> tuple[float, float]:
        new = int(resized * old / short)
        first = round((new - size) / 2) if new >= size else -((size - new) // 2)
        return first * old / new, size * old / new

    (top, rows), (left, columns) = along(height), along(width)
    return Window(top, left, rows, columns)


def show_window(image: Image, window: Window, size: int, interpolation: str = "area") -> Square:
    """Resize a window of an image to a square; what lies outside of the image is black.

    Pixels beside the window count where the kernel reaches them, as if the image had been resized
    before it was cropped. No more of a JPEG file is decoded than those.
    """
    picture = image if isinstance(image, Picture) else Picture(image)
    height, width = picture.height, picture.width
    if window == (0, 0, height, width):
        return resize(picture.part(Box(0, 0, height, width)), size, interpolation)
    rows = resize_weights(interpolation, height, size, window.top, window.height)
    columns = resize_weights(interpolation, width, size, window.left, window.width)
    box = Box(rows.first, columns.first, rows.end - rows.first, columns.end - columns.first)
    return apply_weights(picture.part(box), rows, columns)


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


def check_crop(crop: float) -> None:
    """Refuse a crop of evaluation that is out of range.

    Raises:
      ValueError: it is negative or larger than LARGEST_CROP.
    """
    if not 0 <= crop <= LARGEST_CROP:
        raise ValueError(
            f"Evaluation cannot crop {crop:g} of the short side (data.eval_crop); give a number "
            f"above 0 and at most {LARGEST_CROP:g}, such as 0.875, or 0 to squeeze the whole image "
            f"into a square."
        )


def view(image: Image, size: int, crop: float = 1.0, interpolation: str = "area") -> Square:
    """Resize an image as evaluation sees it.

    Args:
      image: any size.
      size: side of the square.
      crop: share of the short side that is seen (see `centre_window`); beyond 1 the image stands in
        black; 0 squeezes the whole image into the square, whatever its proportions.
      interpolation: see `resize`.

    Raises:
      ValueError: see `check_crop`.
    """
    check_crop(crop)
    picture = image if isinstance(image, Picture) else Picture(image)
    height, width = picture.height, picture.width
    whole = Window(0, 0, height, width)
    window = centre_window(height, width, size, crop) if crop else whole
    return show_window(picture, window, size, interpolation)


def random_resized_crop(
    image: Image,
    rng: np.random.Generator,
    size: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "area",
) -> Square:
    """Crop a random rectangle (see `random_box`) and resize it to a square."""
    picture = image if isinstance(image, Picture) else Picture(image)
    box = random_box(picture.height, picture.width, rng, area, ratio)
    return cut_out(picture, box, size, interpolation, exact=False)
