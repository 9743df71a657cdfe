"""What augmentation does to a crop: pure functions of an 8-bit image, with Pillow's definitions.

Results differ from Pillow's by 1/255 at most; turned and sheared images by its other rounding of
positions.
"""

import cv2
import numpy as np
from jaxtyping import UInt8

Crop = UInt8[np.ndarray, "h w 3"]


def blend(first: Crop, second: Crop, factor: float) -> Crop:
    """Gives first + factor · (second - first), cut at 0 and 255; beyond 1 it exaggerates."""
    mixed = cv2.addWeighted(first, 1 - factor, second, factor, 0.0, dtype=cv2.CV_32F)
    return np.clip(mixed, 0, 255).astype(np.uint8)  # Pillow cuts fractions off


def gray(image: Crop) -> Crop:
    """Luma (ITU-R 601) in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def color(image: Crop, factor: float) -> Crop:
    """Saturation: 0 is gray, 1 the image."""
    return blend(gray(image), image, factor)


def contrast(image: Crop, factor: float) -> Crop:
    """0 is the mean gray everywhere, 1 the image."""
    mean = int(gray(image)[..., 0].mean() + 0.5)
    return blend(np.full_like(image, mean), image, factor)


def brightness(image: Crop, factor: float) -> Crop:
    """0 is black, 1 the image."""
    return blend(np.zeros_like(image), image, factor)


def sharpness(image: Crop, factor: float) -> Crop:
    """0 is a smoothed image, 1 the image; its border stays."""
    kernel = np.ones((3, 3), np.float32) / 13
    kernel[1, 1] = 5 / 13
    smooth = cv2.filter2D(image, -1, kernel)
    smooth[[0, -1]], smooth[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return blend(smooth, image, factor)


def hue(image: Crop, shift: float) -> Crop:
    """Turns the hue by `shift` of the full circle, from -0.5 to 0.5."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 255) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def invert(image: Crop) -> Crop:
    """255 minus each value."""
    return 255 - image


def solarize(image: Crop, threshold: int) -> Crop:
    """Inverts the values from `threshold` on."""
    return np.where(image < threshold, image, 255 - image)


def solarize_add(image: Crop, amount: int, threshold: int = 128) -> Crop:
    """Brightens the values below `threshold`."""
    return np.where(image < threshold, cv2.add(image, np.full_like(image, amount)), image)


def posterize(image: Crop, bits: int) -> Crop:
    """Keeps the upper `bits` of each value's eight."""
    return image & np.uint8(256 - (1 << (8 - bits)))


def auto_contrast(image: Crop) -> Crop:
    """Stretches each channel to the full range."""
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1.0)
    low = np.where(high > low, low, 0.0)
    values = np.arange(256)[:, None]
    table = np.clip((values * scale - low * scale + 1e-9), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, 3))


def equalize(image: Crop) -> Crop:
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


def blur(image: Crop, sigma: float) -> Crop:
    """Gaussian, of this standard deviation in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)
