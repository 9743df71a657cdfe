"""Policies that draw operations on a crop: RandAugment, AutoAugment, 3-Augment, colour jitter.

Magnitudes run from 0 to 10, or beyond where that is asked for, and mean what they mean in timm,
whose strings the recipes quote.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from vitjax.data.transforms import moves, pixels
from vitjax.data.transforms.moves import Affine, Colour, Move
from vitjax.data.transforms.pixels import Crop
from vitjax.names import unknown

_LEVELS = 10.0  # the magnitude at which an operation's range ends
INTERPOLATIONS = ("random", "bilinear", "bicubic")
"""Of turns, shears and shifts; "random" draws one of the others each time."""
Size = tuple[int, int]
Drawn = Callable[[float, np.random.Generator, Size], Move]
"""(magnitude, generator, height and width) → the move."""


def _sign(rng: np.random.Generator) -> float:
    return -1.0 if rng.random() < 0.5 else 1.0


def _colour(function: Callable[[Crop, float], Crop]) -> Drawn:
    """Build a change of colour that depends on the magnitude alone."""
    return lambda level, rng, size: Colour(lambda image: function(image, level))


def _enhance(function: Callable[[Crop, float], Crop]) -> Drawn:
    """Build a change by a factor of 1 ± 0.09 · level, at least 0.1."""

    def draw(level: float, rng: np.random.Generator, size: Size) -> Move:
        factor = max(0.1, 1.0 + _sign(rng) * 0.9 * level / _LEVELS)
        return Colour(lambda image: function(image, factor))

    return draw


def _enhance_over(function: Callable[[Crop, float], Crop]) -> Drawn:
    """Build a change by AutoAugment's factor: 0.1 at level 0 to 1.9 at level 10."""
    return _colour(lambda image, level: function(image, 0.1 + 1.8 * level / _LEVELS))


def _geometric(interpolation: str) -> dict[str, Drawn]:
    """Build the operations that move pixels."""

    def cubic(rng: np.random.Generator) -> bool:
        if interpolation == "random":
            return bool(rng.random() < 0.5)
        return interpolation == "bicubic"

    def rotate(level: float, rng: np.random.Generator, size: Size) -> Affine:
        degrees = _sign(rng) * 30.0 * level / _LEVELS
        return moves.rotate(degrees, size, cubic(rng))

    def affine(unit: float, matrix: Callable[[float, Size], tuple[float, ...]]) -> Drawn:
        def draw(level: float, rng: np.random.Generator, size: Size) -> Affine:
            amount = _sign(rng) * unit * level / _LEVELS
            return moves.affine(matrix(amount, size), cubic(rng))

        return draw

    return {
        "rotate": rotate,
        "shear_x": affine(0.3, lambda s, size: (1, s, 0, 0, 1, 0)),
        "shear_y": affine(0.3, lambda s, size: (1, 0, 0, s, 1, 0)),
        "translate_x": affine(0.45, lambda s, size: (1, 0, s * size[1], 0, 1, 0)),
        "translate_y": affine(0.45, lambda s, size: (1, 0, 0, 0, 1, s * size[0])),
    }


_GEOMETRIC = {interpolation: _geometric(interpolation) for interpolation in INTERPOLATIONS}
_SHARED: dict[str, Drawn] = {
    "auto_contrast": _colour(lambda image, level: pixels.auto_contrast(image)),
    "equalize": _colour(lambda image, level: pixels.equalize(image)),
    "invert": _colour(lambda image, level: pixels.invert(image)),
    **_GEOMETRIC["random"],
}
RAND_AUGMENT: dict[str, Drawn] = _SHARED | {
    "posterize": _colour(
        lambda im, level: pixels.posterize(im, max(0, 4 - int(4 * level / _LEVELS)))
    ),
    "solarize": _colour(lambda im, level: pixels.solarize(im, 256 - min(256, int(25.6 * level)))),
    "solarize_add": _colour(lambda im, level: pixels.solarize_add(im, min(128, int(11 * level)))),
    "color": _enhance(pixels.color),
    "contrast": _enhance(pixels.contrast),
    "brightness": _enhance(pixels.brightness),
    "sharpness": _enhance(pixels.sharpness),
}
"""Operations whose strength rises with the magnitude ("increasing"), of RandAugment."""
AUTO_AUGMENT: dict[str, Drawn] = _SHARED | {
    "posterize": _colour(lambda im, level: pixels.posterize(im, 4 + int(4 * level / _LEVELS))),
    "solarize": _colour(lambda im, level: pixels.solarize(im, min(256, int(25.6 * level)))),
    "color": _enhance_over(pixels.color),
    "contrast": _enhance_over(pixels.contrast),
    "sharpness": _enhance_over(pixels.sharpness),
}
"""Operations of AutoAugment, whose posterize and solarize are strongest at level 0."""

_POLICY = """
posterize .4 8 rotate .6 9 | solarize .6 5 auto_contrast .6 5 | equalize .8 8 equalize .6 3
posterize .6 7 posterize .6 6 | equalize .4 7 solarize .2 4 | equalize .4 4 rotate .8 8
solarize .6 3 equalize .6 7 | posterize .8 5 equalize 1 2 | rotate .2 3 solarize .6 8
equalize .6 8 posterize .4 6 | rotate .8 8 color .4 0 | rotate .4 9 equalize .6 2
equalize 0 7 equalize .8 8 | invert .6 4 equalize 1 8 | color .6 4 contrast 1 8
rotate .8 8 color 1 2 | color .8 8 solarize .8 7 | sharpness .4 7 invert .6 8
shear_x .6 5 equalize 1 9 | color .4 0 equalize .6 3 | equalize .4 7 solarize .2 4
solarize .6 5 auto_contrast .6 5 | invert .6 4 equalize 1 8 | color .6 4 contrast 1 8
equalize .8 8 equalize .6 3
"""
IMAGENET_POLICY = tuple(
    ((a, float(p), float(m)), (b, float(q), float(n)))
    for a, p, m, b, q, n in (x.split() for x in _POLICY.strip().replace("\n", "|").split("|"))
)
"""The 25 pairs of (operation, probability, magnitude) of arXiv:1805.09501, table 9."""


def _with(operations: dict[str, Drawn], interpolation: str) -> dict[str, Drawn]:
    """Set the interpolation of the operations that move pixels; the order stays."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(unknown("interpolation", interpolation, INTERPOLATIONS))
    return operations | _GEOMETRIC[interpolation]


def rand_augment(
    rng: np.random.Generator,
    size: Size,
    *,
    n: int = 2,
    m: float = 9.0,
    mstd: float = 0.5,
    mmax: float = _LEVELS,
    p: float = 0.5,
    interpolation: str = "random",
) -> Iterator[Move]:
    """Draw RandAugment (arXiv:1909.13719) as timm has it: `rand-m9-mstd0.5-inc1`.

    Args:
      rng: draws all.
      size: height and width of the crop.
      n: operations, drawn with replacement.
      m: magnitude.
      mstd: standard deviation of each operation's magnitude around it.
      mmax: where magnitudes are cut, as timm's `mmax`; beyond 10 the ranges go on.
      p: probability that an operation is applied.
      interpolation: of turns, shears and shifts: "bicubic" in the training of DeiT and Swin, whose
        interpolation timm hands on to RandAugment; "bilinear", or one of both at "random", as timm
        does where it is told none.

    Raises:
      ValueError: an unknown interpolation.
    """
    names, operations = list(RAND_AUGMENT), _with(RAND_AUGMENT, interpolation)
    for choice in rng.integers(len(names), size=n):
        level = min(max(m + mstd * rng.standard_normal(), 0.0), mmax)
        if rng.random() < p:
            yield operations[names[choice]](level, rng, size)


def auto_augment(
    rng: np.random.Generator, size: Size, *, interpolation: str = "random"
) -> Iterator[Move]:
    """Draw from AutoAugment's policy for ImageNet (arXiv:1805.09501): one of 25 pairs.

    Args:
      rng: draws all.
      size: height and width of the crop.
      interpolation: of turns and shears, see `rand_augment`.

    Raises:
      ValueError: an unknown interpolation.
    """
    operations = _with(AUTO_AUGMENT, interpolation)
    for name, probability, level in IMAGENET_POLICY[rng.integers(len(IMAGENET_POLICY))]:
        if rng.random() < probability:
            yield operations[name](level, rng, size)


def three_augment(rng: np.random.Generator, size: Size) -> Iterator[Move]:
    """Draw 3-Augment (DeiT III, arXiv:2204.07118): one of gray, solarized and blurred."""
    del size
    choice = rng.integers(3)
    if choice == 0:
        yield Colour(pixels.gray)
    elif choice == 1:
        yield Colour(lambda image: pixels.solarize(image, 128))
    else:
        sigma = rng.uniform(0.1, 2.0)
        yield Colour(lambda image: pixels.blur(image, sigma))


def jitter(
    rng: np.random.Generator,
    size: Size,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.0,
) -> Iterator[Move]:
    """Draw changes of colour in random order.

    Args:
      rng: draws all.
      size: height and width of the crop.
      brightness, contrast, saturation: a factor from 1 - x to 1 + x, uniform.
      hue: a turn by -x to x of the circle, uniform.
    """
    del size
    spreads = (brightness, contrast, saturation, hue)
    functions = (pixels.brightness, pixels.contrast, pixels.color, pixels.hue)
    for i in rng.permutation(4):
        if spreads[i]:
            centre = 0.0 if i == 3 else 1.0
            amount = max(centre + spreads[i] * rng.uniform(-1, 1), -0.5 if i == 3 else 0.0)
            yield Colour(functools.partial(_apply, functions[i], amount))


def photometric(
    rng: np.random.Generator,
    size: Size,
    *,
    brightness: float = 32.0,
    contrast: float = 0.5,
    saturation: float = 0.5,
    hue: float = 0.1,
    p: tuple = (0.5, 0.5, 0.5, 0.5),
) -> Iterator[Move]:
    """Draw changes of colour, each with its own probability (mmsegmentation's documentation).

    It is their `PhotoMetricDistortion`. Brightness comes first, then saturation and hue; contrast
    before these two or after them, with probability ½ each.

    Args:
      rng: draws all.
      size: height and width of the crop.
      brightness: adds -x to x grey levels, uniform.
      contrast: multiplies every channel by 1 - x to 1 + x, uniform.
      saturation: multiplies that of HSV by 1 - x to 1 + x, uniform.
      hue: turns it by -x to x of the circle, uniform.
      p: the probabilities of the four, in this order.
    """
    del size
    drawn, amounts = rng.random(4) < np.array(p), rng.uniform(-1, 1, 4)
    steps = [
        (drawn[0], pixels.shift, brightness * amounts[0]),
        (drawn[2], pixels.hsv_saturation, max(1 + saturation * amounts[2], 0.0)),
        (drawn[3], pixels.hue, hue * amounts[3]),
    ]
    scale = max(1 + contrast * amounts[1], 0.0)
    steps.insert(int(rng.choice((1, 3))), (drawn[1], pixels.brightness, scale))
    for applied, function, amount in steps:
        if applied:
            yield Colour(functools.partial(_apply, function, amount))


def _apply(function: Callable[[Crop, float], Crop], amount: float, image: Crop) -> Crop:
    return function(image, amount)
