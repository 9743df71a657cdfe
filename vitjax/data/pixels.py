"""What augmentation does to a square: pure functions of an 8-bit image, with Pillow's definitions.

Results differ from Pillow's by 1/255 at most; turned and sheared images by its other rounding of
positions.
"""

import math

import cv2
import numpy as np
from jaxtyping import UInt8

Square = UInt8[np.ndarray, "S S 3"]
FILL = (124, 116, 104)  # what comes in from outside: the mean of ImageNet's pixels


def blend(first: Square, second: Square, factor: float) -> Square:
    """Gives first + factor · (second - first), cut at 0 and 255; beyond 1 it exaggerates."""
    mixed = cv2.addWeighted(first, 1 - factor, second, factor, 0.0, dtype=cv2.CV_32F)
    return np.clip(mixed, 0, 255).astype(np.uint8)  # Pillow cuts fractions off


def gray(image: Square) -> Square:
    """Luma (ITU-R 601) in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def color(image: Square, factor: float) -> Square:
    """Saturation: 0 is gray, 1 the image."""
    return blend(gray(image), image, factor)


def contrast(image: Square, factor: float) -> Square:
    """0 is the mean gray everywhere, 1 the image."""
    mean = int(gray(image)[..., 0].mean() + 0.5)
    return blend(np.full_like(image, mean), image, factor)


def brightness(image: Square, factor: float) -> Square:
    """0 is black, 1 the image."""
    return blend(np.zeros_like(image), image, factor)


def sharpness(image: Square, factor: float) -> Square:
    """0 is a smoothed image, 1 the image; its border stays."""
    kernel = np.ones((3, 3), np.float32) / 13
    kernel[1, 1] = 5 / 13
    smooth = cv2.filter2D(image, -1, kernel)
    smooth[[0, -1]], smooth[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return blend(smooth, image, factor)


def hue(image: Square, shift: float) -> Square:
    """Turns the hue by `shift` of the full circle, from -0.5 to 0.5."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 255) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def invert(image: Square) -> Square:
    """255 minus each value."""
    return 255 - image


def solarize(image: Square, threshold: int) -> Square:
    """Inverts the values from `threshold` on."""
    return np.where(image < threshold, image, 255 - image)


def solarize_add(image: Square, amount: int, threshold: int = 128) -> Square:
    """Brightens the values below `threshold`."""
    return np.where(image < threshold, cv2.add(image, np.full_like(image, amount)), image)


def posterize(image: Square, bits: int) -> Square:
    """Keeps the upper `bits` of each value's eight."""
    return image & np.uint8(256 - (1 << (8 - bits)))


def auto_contrast(image: Square) -> Square:
    """Stretches each channel to the full range."""
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1.0)
    low = np.where(high > low, low, 0.0)
    values = np.arange(256)[:, None]
    table = np.clip((values * scale - low * scale + 1e-9), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, 3))


def equalize(image: Square) -> Square:
    """Spreads each channel's values evenly over the full range."""
    tables = []
    for channel in range(3):
        histogram = np.bincount(image[..., channel].ravel(), minlength=256)
        filled = histogram[histogram > 0]
        step = (filled.sum() - filled[-1]) // 255
        if len(filled) < 2 or not step:
            tables.append(np.arange(256))
            continue
        before = np.cumsum(histogram) - histogram
        tables.append(np.minimum((before + step // 2) // step, 255))
    return cv2.LUT(image, np.stack(tables, -1).astype(np.uint8).reshape(1, 256, 3))


def blur(image: Square, sigma: float) -> Square:
    """Gaussian, of this standard deviation in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def affine(
    image: Square, matrix: tuple[float, ...], fill: tuple[int, ...] = FILL, cubic: bool = False
) -> Square:
    """Output pixel (x, y) shows the input at (a·x + b·y + c, d·x + e·y + f), (0, 0) the corner.

    Args:
      matrix: a, b, c, d, e, f.
      fill: the colour of what lies outside.
      cubic: mixes sixteen pixels instead of four.
    """
    a, b, c, d, e, f = matrix  # OpenCV's origin is the centre of the first pixel
    centred = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
    flags = (cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    size = image.shape[1], image.shape[0]
    return cv2.warpAffine(
        image, centred, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
    )


def rotate(
    image: Square, degrees: float, fill: tuple[int, ...] = FILL, cubic: bool = False
) -> Square:
    """Turns counter-clockwise about the centre."""
    angle = -math.radians(degrees)
    cos, sin, centre = math.cos(angle), math.sin(angle), image.shape[0] / 2
    shift = centre - (cos + sin) * centre, centre - (cos - sin) * centre
    return affine(image, (cos, sin, shift[0], -sin, cos, shift[1]), fill, cubic)


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
