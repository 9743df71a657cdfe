"""Crops of detectors' training: the whole image, or a part of it, at one of several scales."""

import numpy as np

from vitjax.data.codecs.image import Box
from vitjax.data.transforms.crops import Part, Size, height_and_width


def multi_scale(
    height: int,
    width: int,
    rng: np.random.Generator,
    size: Size,
    *,
    short_sides: tuple[int, int, int] = (480, 800, 32),
    long_side: int = 1333,
    part: float = 0.5,
    seen_sides: tuple[int, int, int] = (400, 600, 100),
    part_sides: tuple[int, int] = (384, 600),
) -> Part:
    """Draw a crop as DETR does (arXiv:2005.12872, appendix A.4); it keeps proportions.

    It stands at the top left, and what is beside it becomes padding after all other steps.

    Args:
      height, width: of the image.
      rng: draws scale, and place of a part.
      size: of the crop; what is larger is resized to fit.
      short_sides: pixels of the crop's short side: least, most and step, of which one is drawn; at
        most `long_side` of its long side.
      part: probability of a part instead of the whole.
      seen_sides: the same of the image when a part is cut; `part_sides`: range of the part's sides
        then.
    """
    box = Box(0, 0, height, width)
    if rng.random() < part:
        seen = _factor(height, width, _step(rng, seen_sides), long_side)
        rows, columns = (
            min(max(round(_draw(rng, side * seen, part_sides) / seen), 1), side)
            for side in (height, width)
        )
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        box = Box(top, left, rows, columns)
    most = height_and_width(size)
    factor = _factor(box.height, box.width, _step(rng, short_sides), long_side)
    factor = min(factor, most[0] / box.height, most[1] / box.width)
    shown = (min(max(round(n * factor), 1), m) for n, m in zip((box.height, box.width), most))
    return Part(box, tuple(shown))  # type: ignore[arg-type]


def _factor(height: int, width: int, short: int, long: int) -> float:
    """Compute the scale at which the short side is `short`, and the long one `long` at most."""
    return min(short / min(height, width), long / max(height, width))


def _draw(rng: np.random.Generator, side: float, sides: tuple[int, int]) -> int:
    """Draw a side of a part, of a range that is cut to the side of the whole."""
    low, high = (min(limit, round(side)) for limit in sides)
    return int(rng.integers(low, high + 1))


def _step(rng: np.random.Generator, sides: tuple[int, int, int]) -> int:
    """Draw one of the sides from the least to the most, by steps."""
    least, most, step = sides
    return int(rng.choice(np.arange(least, most + 1, step)))
