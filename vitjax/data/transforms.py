"""Pictures to what the model sees: pure functions of (image, numpy Generator, size).

All take any height and width of at least one pixel and give [size, size, 3], 8 bits.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "H W 3"]
Square = UInt8[np.ndarray, "S S 3"]
Augmentation = Callable[[np.ndarray, np.random.Generator, int], np.ndarray]

CROP_FRACTION = 0.875  # of the short side: 224 of 256, the usual centre crop of ImageNet
ATTEMPTS = 10


def resize(image: Image, size: int) -> Square:
    """Resizes to a square: averages the covered pixels when shrinking, else bilinear."""
    shrinks = size < min(image.shape[:2])
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation)


def resize_and_centre_crop(image: Image, size: int) -> Square:
    """What evaluation sees: the central square, resized.

    The square's side is the image's short side when that is at most `size` (small images lose
    nothing but what does not fit the square), and 0.875 of the short side otherwise.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    side = short if short <= size else max(round(CROP_FRACTION * short), 1)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[top : top + side, left : left + side], size)


def random_resized_crop(
    image: Image,
    rng: np.random.Generator,
    size: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Square:
    """Crops a random rectangle and resizes it (Szegedy et al., arXiv:1409.4842, section 6).

    Args:
      image: any size.
      rng: draws the rectangle.
      size: of the result.
      area: range of the rectangle's share of the image, uniform.
      ratio: range of its width over height, log-uniform. Where ten draws do not fit into the
        image, the largest central rectangle within this range is taken.
    """
    height, width = image.shape[:2]
    areas = height * width * rng.uniform(*area, ATTEMPTS)
    ratios = np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), ATTEMPTS))
    widths = np.rint(np.sqrt(areas * ratios)).astype(int)
    heights = np.rint(np.sqrt(areas / ratios)).astype(int)
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    if fits.any():
        h, w = int(heights[fits.argmax()]), int(widths[fits.argmax()])
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    else:
        h = min(height, max(round(width / ratio[0]), 1))
        w = min(width, max(round(height * ratio[1]), 1))
        top, left = (height - h) // 2, (width - w) // 2
    return resize(image[top : top + h, left : left + w], size)


def random_affine(
    image: Square,
    rng: np.random.Generator,
    *,
    degrees: float = 15.0,
    scale: tuple[float, float] = (0.85, 1.15),
    shift: float = 0.1,
) -> Square:
    """Turns, scales and shifts a square about its centre; what comes in from outside is black.

    Args:
      image: the square.
      rng: draws the four numbers, each uniform.
      degrees: largest angle to either side.
      scale: range of the factor.
      shift: largest shift along each axis, as a share of the side.
    """
    size = image.shape[0]
    turn, factor, x, y = rng.random(4)
    angle = math.radians(degrees) * (2 * turn - 1)
    factor = scale[0] + (scale[1] - scale[0]) * factor
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    centre = (size - 1) / 2
    right, down = centre + shift * size * (2 * x - 1), centre + shift * size * (2 * y - 1)
    matrix = np.array(
        [
            [cos, -sin, right - (cos - sin) * centre],
            [sin, cos, down - (sin + cos) * centre],
        ]
    )
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def _plain(image: Image, rng: np.random.Generator, size: int) -> Square:
    del rng
    return resize_and_centre_crop(image, size)


def _affine(image: Image, rng: np.random.Generator, size: int) -> Square:
    return random_affine(resize_and_centre_crop(image, size), rng)


def _crop_and_flip(image: Image, rng: np.random.Generator, size: int) -> Square:
    square = random_resized_crop(image, rng, size)
    return cv2.flip(square, 1) if rng.random() < 0.5 else square


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": _plain,  # as in evaluation
    "digits": _affine,  # for writing: neither mirrored nor cropped
    "crop_flip": _crop_and_flip,  # for photos
}
"""Name → what training does to an image."""
