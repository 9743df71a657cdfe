"""Pixel operations of augmentation: pure functions of 8-bit images, with Pillow's definitions.

Results differ from Pillow's by 1/255 at most; turned and sheared images by its other rounding of
positions. Images are RGB; `contrast` and `brightness` take any number of channels.
"""

import cv2
import numpy as np
from jaxtyping import UInt8

from vitjax.data.channels import RGB

Crop = UInt8[np.ndarray, "h w c"]


def blend(first: Crop, second: Crop, factor: float) -> Crop:
    """Compute first + factor · (second - first), clipped to 0 and 255; above 1 it exaggerates."""
    mixed = cv2.addWeighted(first, 1 - factor, second, factor, 0.0, dtype=cv2.CV_32F)
    mixed = np.clip(mixed, 0, 255).astype(np.uint8)  # Pillow cuts fractions off
    return mixed.reshape(first.shape)  # OpenCV drops an axis of one channel


def gray(image: Crop) -> Crop:
    """Compute luma (ITU-R 601), repeated in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def color(image: Crop, factor: float) -> Crop:
    """Change the saturation: 0 is gray, 1 the image."""
    return blend(gray(image), image, factor)


def contrast(image: Crop, factor: float) -> Crop:
    """Change the contrast: 0 is the mean gray (of RGB; of others the mean of all), 1 the image."""
    grays = gray(image)[..., 0] if image.shape[2] == RGB else image
    mean = int(grays.mean() + 0.5)
    return blend(np.full_like(image, mean), image, factor)


def brightness(image: Crop, factor: float) -> Crop:
    """Change the brightness: 0 is black, 1 the image."""
    return blend(np.zeros_like(image), image, factor)


def sharpness(image: Crop, factor: float) -> Crop:
    """Change the sharpness: 0 is a smoothed image, 1 the image; its border stays."""
    kernel = np.ones((3, 3), np.float32) / 13
    kernel[1, 1] = 5 / 13
    smooth = cv2.filter2D(image, -1, kernel)
    smooth[[0, -1]], smooth[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return blend(smooth, image, factor)


def hue(image: Crop, shift: float) -> Crop:
    """Turn the hue by `shift` of the full circle, from -0.5 to 0.5."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 255) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def shift(image: Crop, amount: float) -> Crop:
    """Add gray levels, clipped to 0 and 255."""
    return np.clip(image + np.float32(amount), 0, 255).astype(np.uint8)


def hsv_saturation(image: Crop, factor: float) -> Crop:
    """Multiply the saturation of HSV, (max - min) / max; 0 keeps the maximum of the channels."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(factor), 0, 255)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def invert(image: Crop) -> Crop:
    """Compute 255 minus each value."""
    return 255 - image


def solarize(image: Crop, threshold: int) -> Crop:
    """Invert the values from `threshold` on."""
    return np.where(image < threshold, image, 255 - image)


def solarize_add(image: Crop, amount: int, threshold: int = 128) -> Crop:
    """Brighten the values below `threshold`."""
    return np.where(image < threshold, cv2.add(image, np.full_like(image, amount)), image)


def posterize(image: Crop, bits: int) -> Crop:
    """Keep the upper `bits` of each value's eight."""
    return image & np.uint8(256 - (1 << (8 - bits)))


def auto_contrast(image: Crop) -> Crop:
    """Stretch each channel to the full range."""
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1.0)
    low = np.where(high > low, low, 0.0)
    values = np.arange(256)[:, None]
    table = np.clip((values * scale - low * scale + 1e-9), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, 3))


def equalize(image: Crop) -> Crop:
    """Spread each channel's values evenly over the full range."""
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
    """Blur with a Gaussian of this standard deviation in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)
