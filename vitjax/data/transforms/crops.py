"""Crops of pictures and their resizing. Pure functions.

An image is an array [H, W, c] of 8 bits, at least one pixel, or a file's bytes: of a JPEG file no
more is decoded than the rectangle needs. Random crops take a numpy Generator.
"""

import math
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from vitjax.data.channels import RGB, by_planes
from vitjax.data.codecs.image import Box, Picture
from vitjax.data.transforms.resample import (
    KERNELS,
    PILLOW,
    apply_weights,
    resize_like_pillow,
    resize_weights,
)

Image: TypeAlias = UInt8[np.ndarray, "H W c"] | bytes | Picture
Crop: TypeAlias = UInt8[np.ndarray, "h w c"]
Size: TypeAlias = int | tuple[int, int]
"""Height and width of a crop, or the side of a square."""

ATTEMPTS = 10
INTERPOLATIONS = tuple(KERNELS)
LARGEST_CROP = 2.0


class Window(NamedTuple):
    """A rectangle of an image in pixels, whose edges may lie between pixels or outside of it."""

    top: float
    left: float
    height: float
    width: float


class Part(NamedTuple):
    """A rectangle inside of an image that is too small for the crop.

    Attributes:
      box: the rectangle.
      size: height and width at which it is shown, of which one at least is below the crop's.
    """

    box: Box
    size: tuple[int, int]


def resize(image: UInt8[np.ndarray, "H W c"], size: Size, interpolation: str = "area") -> Crop:
    """Resize an image.

    Args:
      image: any size.
      size: of the result.
      interpolation: "area" averages the covered pixels when shrinking and is bilinear otherwise;
        "bilinear" mixes the four nearest pixels at any scale, as `tf.image.resize` does; "bicubic"
        and "antialias" are Pillow's bicubic and bilinear, which widen when shrinking.
    """
    height, width = height_and_width(size)
    if interpolation in PILLOW:
        return resize_like_pillow(image, (height, width), interpolation)
    if interpolation == "area" and height < image.shape[0] and width < image.shape[1]:
        kernel = cv2.INTER_AREA
    else:
        # OpenCV reads a part of a larger image more slowly than it is copied and then read.
        image, kernel = np.ascontiguousarray(image), cv2.INTER_LINEAR
    if image.shape[2] == RGB:  # the usual case, straight
        return cv2.resize(image, (width, height), interpolation=kernel)
    return by_planes(cv2.resize, image, (width, height), interpolation=kernel)


def height_and_width(size: Size) -> tuple[int, int]:
    """Return both sides of a crop."""
    return (size, size) if isinstance(size, int) else size


def crop_and_resize(
    image: Image,
    box: Box,
    size: Size,
    interpolation: str = "area",
    *,
    exact: bool = True,
) -> Crop:
    """Crop a rectangle out of an image and resize it; outside lies the mirror image.

    Pixels beside the rectangle do not count, as in training crops elsewhere.

    Args:
      image: any size.
      box: the rectangle.
      size: of the result.
      interpolation: see `resize`.
      exact: False lets a JPEG file be decoded at ½, ¼ or ⅛ of its size where the rectangle shrinks
        by as much: for training, where the kernel matters less than the time.
    """
    picture = image if isinstance(image, Picture) else Picture(image)
    rows, columns = height_and_width(size)
    reduce, shrinks = 1, min(box.height / rows, box.width / columns)
    while not exact and reduce < 8 and shrinks >= 2 * reduce:
        reduce *= 2
    top, left = max(box.top, 0), max(box.left, 0)
    bottom = min(box.top + box.height, picture.height)
    right = min(box.left + box.width, picture.width)
    inner = Box(top, left, bottom - top, right - left)
    part = picture.part(inner, reduce)
    if inner != box:
        above, below = (top - box.top) // reduce, (box.top + box.height - bottom) // reduce
        before, after = (left - box.left) // reduce, (box.left + box.width - right) // reduce
        part = by_planes(
            cv2.copyMakeBorder, part, above, below, before, after, cv2.BORDER_REFLECT_101
        )
    return resize(part, size, interpolation)


def centre_window(height: int, width: int, size: Size, fraction: float = 1.0) -> Window:
    """Compute the window that a centre crop of the resized image shows.

    The window is that of torchvision's Resize(int(size / fraction)) and CenterCrop(size) for every
    size of image: the short side is resized to int(size / fraction) pixels, the long side in
    proportion and rounded down, and `size` of the pixels of each are kept.

    Args:
      height, width: of the image.
      size: of the crop; where its sides differ, the image is resized by the shorter one.
      fraction: share of the short side that is seen; beyond 1 the window is larger than the image.
    """
    sides = height_and_width(size)
    short, resized = min(height, width), max(int(min(sides) / fraction), 1)

    def along(old: int, side: int) -> tuple[float, float]:
        new = int(resized * old / short)
        first = round((new - side) / 2) if new >= side else -((side - new) // 2)
        return first * old / new, side * old / new

    (top, rows), (left, columns) = along(height, sides[0]), along(width, sides[1])
    return Window(top, left, rows, columns)


def show_window(image: Image, window: Window, size: Size, interpolation: str = "area") -> Crop:
    """Resize a window of an image; the area outside of the image is black.

    Pixels beside the window count where the kernel reaches them, as if the image had been resized
    before it was cropped. No more of a JPEG file is decoded than those.
    """
    picture = image if isinstance(image, Picture) else Picture(image)
    height, width = picture.height, picture.width
    if window == (0, 0, height, width):
        return resize(picture.part(Box(0, 0, height, width)), size, interpolation)
    sides = height_and_width(size)
    rows = resize_weights(interpolation, height, sides[0], window.top, window.height)
    columns = resize_weights(interpolation, width, sides[1], window.left, window.width)
    box = Box(rows.first, columns.first, rows.end - rows.first, columns.end - columns.first)
    return apply_weights(picture.part(box), rows, columns)


def random_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draw a random rectangle (Szegedy et al., arXiv:1409.4842, section 6).

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


def shifted_box(height: int, width: int, rng: np.random.Generator, size: Size, pad: int = 4) -> Box:
    """Draw a square of the image's short side, up to `pad` pixels of the result outside.

    The simple random crop of DeiT III (arXiv:2204.07118, section 3.2): the short side becomes the
    side of the result, padded by mirroring.
    """
    short = min(height, width)
    margin = min(pad * short // min(height_and_width(size)), short - 1)
    top = rng.integers(-margin, height - short + margin + 1)
    left = rng.integers(-margin, width - short + margin + 1)
    return Box(int(top), int(left), short, short)


def scaled_window(
    height: int,
    width: int,
    rng: np.random.Generator,
    size: Size,
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    short_side: float = 0,
    pad_last: bool = False,
) -> Box | Window | Part:
    """Draw a crop of the image at a random scale, as segmentation does; it keeps proportions.

    Where the scaled image is smaller than the crop, it stands somewhere in black, unless
    `pad_last`.

    Args:
      height, width: of the image.
      rng: draws scale and place.
      size: of the crop.
      scale: range of the factor, uniform; (1, 1) for none.
      short_side: pixels of the image's short side at factor 1; 0: its own.
      pad_last: the smaller image stands at the top left, and what is beside it becomes padding
        after all other steps, as in mmsegmentation.
    """
    factor = rng.uniform(*scale) * (short_side / min(height, width) if short_side else 1.0)
    sides = height_and_width(size)
    rows, columns = (side / factor for side in sides)
    place = rng.random(2)
    top, left = place[0] * (height - rows), place[1] * (width - columns)
    fits = rows <= height and columns <= width
    if not fits and not pad_last:
        return Window(top, left, rows, columns)
    h, w = min(round(rows), height) or 1, min(round(columns), width) or 1
    top, left = max(round(top), 0), max(round(left), 0)
    box = Box(min(top, height - h), min(left, width - w), h, w)
    if fits:
        return box
    shown = (min(side, round(old * factor) or 1) for side, old in zip(sides, (height, width)))
    return Part(box, tuple(shown))  # type: ignore[arg-type]


def large_scale_jitter(
    height: int,
    width: int,
    rng: np.random.Generator,
    size: Size,
    *,
    scale: tuple[float, float] = (0.1, 2.0),
) -> Box | Window | Part:
    """Draw a crop by large-scale jitter (Ghiasi et al., arXiv:2012.07177, section 3).

    At factor 1 the whole image just fits into the crop. A smaller image stands at the top left, and
    what is beside it is padding.

    Args:
      height, width: of the image.
      rng: draws scale and place.
      size: of the crop.
      scale: range of the factor, uniform.
    """
    rows, columns = height_and_width(size)
    fitting = min(rows / height, columns / width) * min(height, width)
    return scaled_window(height, width, rng, size, scale=scale, short_side=fitting, pad_last=True)


def check_crop(crop: float) -> None:
    """Check that a crop of evaluation is in range.

    Raises:
      ValueError: it is negative or larger than LARGEST_CROP.
    """
    if not 0 <= crop <= LARGEST_CROP:
        raise ValueError(
            f"Evaluation cannot crop {crop:g} of the short side (data.eval_crop); give a number "
            f"above 0 and at most {LARGEST_CROP:g}, such as 0.875, or 0 to squeeze the whole image "
            f"into a square."
        )


def eval_window(height: int, width: int, rng: Any, size: Size, *, fraction: float = 1.0) -> Window:
    """Compute the window of evaluation: see `view`."""
    del rng
    whole = Window(0, 0, height, width)
    return centre_window(height, width, size, fraction) if fraction else whole


def view(image: Image, size: Size, crop: float = 1.0, interpolation: str = "area") -> Crop:
    """Resize an image as evaluation sees it.

    Args:
      image: any size.
      size: of the result.
      crop: share of the short side that is seen (see `centre_window`); beyond 1 the image stands in
        black; 0 resizes the whole image, whatever its proportions.
      interpolation: see `resize`.

    Raises:
      ValueError: see `check_crop`.
    """
    check_crop(crop)
    picture = image if isinstance(image, Picture) else Picture(image)
    window = eval_window(picture.height, picture.width, None, size, fraction=crop)
    return show_window(picture, window, size, interpolation)
