"""Degradations of an image, for learning to restore it, as one line: `noise(sigma=25) | jpeg`.

  noise(sigma=25)  blur(sigma=(0.5, 2.0))  motion(length=(7, 21))  rain(amount=(50, 200))
  jpeg(quality=(20, 60))  down_up(scale=2)

A pair of numbers is a range, of which one is drawn, uniformly. The random numbers of an image are a
function of its pixels: a run that goes on sees what it would have seen, and an image of an
evaluation is always spoilt alike.
"""

import functools
import inspect
import math
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from vitjax.data.channels import RGB, by_planes
from vitjax.names import parse_call, unknown

Pixels = UInt8[np.ndarray, "H W c"]
Number = float | int | tuple


def degrade(text: str, image: Pixels) -> Pixels:
    """Degrade an image as a line says; the line may be empty.

    Raises:
      ValueError: see `parse_degradations`.
    """
    if not text:
        return image
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(image.tobytes())))
    for step in parse_degradations(text):
        image = step(image, rng)
    return image


@functools.lru_cache(maxsize=16)
def parse_degradations(text: str) -> tuple[Callable[[Pixels, np.random.Generator], Pixels], ...]:
    """Parse a line of degradations, such as "noise(sigma=(0, 50)) | jpeg(quality=30)".

    Raises:
      ValueError: an unknown part or option (the nearest is named), or a line that does not parse.
    """
    steps = []
    for part in text.split("|") if text else ():
        call = parse_call(part)
        if call is None:
            raise ValueError(
                f"Degradation {text!r} does not parse at {part.strip()!r}; write parts such as "
                f"noise(sigma=25) or jpeg(quality=(20, 60)), with '|' between them."
            )
        name, options = call
        if name not in DEGRADATIONS:
            raise ValueError(unknown("degradation", name, DEGRADATIONS))
        function = DEGRADATIONS[name]
        known = [p for p in inspect.signature(function).parameters if p not in ("image", "rng")]
        for option, value in options.items():
            if option not in known:
                raise ValueError(unknown(f"option of {name}", option, known))
            several = value if isinstance(value, tuple) else (value, value)
            if len(several) != 2 or not all(isinstance(n, int | float) for n in several):
                raise ValueError(f"{name}({option}={value!r}) must be a number, or a pair of them.")
            if not 0 <= several[0] <= several[1]:
                raise ValueError(
                    f"{name}({option}={value!r}) must be 0 or more, the smaller number first."
                )
        steps.append(functools.partial(function, **options))
    return tuple(steps)


def noise(image: Pixels, rng: np.random.Generator, sigma: Number = 25) -> Pixels:
    """Add Gaussian noise of a standard deviation in gray levels, rounded and clipped."""
    strength = np.float32(_draw(rng, sigma))
    noisy = image + strength * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def blur(image: Pixels, rng: np.random.Generator, sigma: Number = (0.5, 2.0)) -> Pixels:
    """Blur with a Gaussian of a standard deviation in pixels."""
    strength = _draw(rng, sigma)
    if strength < 1e-3:
        return image
    border = cv2.BORDER_REFLECT_101
    return by_planes(cv2.GaussianBlur, image, (0, 0), strength, borderType=border)


def motion(image: Pixels, rng: np.random.Generator, length: Number = (7, 21)) -> Pixels:
    """Blur along a line of a length in pixels and a random direction."""
    size, angle = max(round(_draw(rng, length)), 1), rng.uniform(0, math.pi)
    radius = size // 2 + 1
    kernel = np.zeros((2 * radius + 1,) * 2, np.float32)
    half = np.array([math.cos(angle), math.sin(angle)]) * (size - 1) / 2
    ends = [tuple(int(v) for v in np.rint(16 * (radius + s * half))) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, shift=4)
    kernel /= kernel.sum()
    return by_planes(cv2.filter2D, image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def rain(image: Pixels, rng: np.random.Generator, amount: Number = (50, 200)) -> Pixels:
    """Draw bright streaks of one direction, so many for 256×256 pixels."""
    height, width = image.shape[:2]
    count = round(_draw(rng, amount) * height * width / 256**2)
    slant, streaks = rng.uniform(-0.4, 0.4), np.zeros((height, width), np.float32)
    for _ in range(count):
        x, y, length = rng.uniform(0, width), rng.uniform(-20, height), rng.uniform(8, 24)
        begin = (round(16 * x), round(16 * y))
        end = (round(16 * (x + slant * length)), round(16 * (y + length)))
        cv2.line(streaks, begin, end, float(rng.uniform(60, 160)), 1, cv2.LINE_AA, shift=4)
    streaks = cv2.GaussianBlur(streaks, (0, 0), 0.6)
    return np.clip(np.rint(image + streaks[..., None]), 0, 255).astype(np.uint8)


def jpeg(image: Pixels, rng: np.random.Generator, quality: Number = (20, 60)) -> Pixels:
    """Compress and decompress as JPEG of a quality from 0 to 100; RGB or gray."""
    if image.shape[2] not in (1, RGB):
        raise ValueError(
            f"the degradation jpeg is defined for RGB and gray, and the image has {image.shape[2]} "
            f"channels; leave it out"
        )
    flags = [cv2.IMWRITE_JPEG_QUALITY, min(round(_draw(rng, quality)), 100)]
    data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), flags)[1]
    if image.shape[2] == 1:
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))[..., None]
    return cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


def down_up(image: Pixels, rng: np.random.Generator, scale: Number = 2) -> Pixels:
    """Shrink by a factor, with Pillow's bicubic filter, and enlarge again."""
    from vitjax.data.transforms.resample import resize_like_pillow

    factor = max(_draw(rng, scale), 1.0)
    size = tuple(max(round(n / factor), 1) for n in image.shape[:2])
    small = resize_like_pillow(image, size, "bicubic")  # type: ignore[arg-type]
    return resize_like_pillow(small, image.shape[:2], "bicubic")


DEGRADATIONS: dict[str, Callable[..., Pixels]] = {
    "noise": noise,
    "blur": blur,
    "motion": motion,
    "rain": rain,
    "jpeg": jpeg,
    "down_up": down_up,
}


def _draw(rng: np.random.Generator, value: Any) -> float:
    """Draw from a range, or return the number."""
    return float(rng.uniform(*value)) if isinstance(value, tuple) else float(value)
