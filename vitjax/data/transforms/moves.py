"""Moves drawn for a sample and applied to each of its fields: crops, geometry and colour.

Every kind of field (`kinds`) follows a move in its own way: an image is interpolated, a map of
classes takes the nearest pixel, a label stays.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from vitjax.data.codecs.image import Box
from vitjax.data.transforms.crops import Window
from vitjax.data.transforms.pixels import Crop

FILL = (124, 116, 104)
"""What comes in from outside: the mean of ImageNet's pixels."""


class View(NamedTuple):
    """Crop of an image.

    Attributes:
      box: the rectangle: a Box, outside of which the image is mirrored and which may be decoded at
        a fraction of its size, or a Window, outside of which it is black and which is shown
        exactly.
      frame: height and width of the image.
      interpolation: of the image; see `crops.resize`.
      size: height and width at which it is shown, where the image is too small to fill the crop;
        None: the crop's. The rest is padded at the right and bottom when the field is encoded.
    """

    box: Box | Window
    frame: tuple[int, int]
    interpolation: str = "area"
    size: tuple[int, int] | None = None


class Flip(NamedTuple):
    """Exchange of left and right."""


class Turn(NamedTuple):
    """Quarter turns counter-clockwise; an odd number of them exchanges height and width."""

    quarters: int = 1


class Affine(NamedTuple):
    """A turn, shear, scaling or shift.

    Attributes:
      matrix: output pixel (x, y) shows the input at matrix · (x, y, 1), (0, 0) the centre of the
        first pixel.
      fill: the colour of what comes in from outside; its luma in images of other channels.
      cubic: an image mixes sixteen pixels instead of four.
    """

    matrix: Float[np.ndarray, "2 3"]
    fill: tuple[int, ...] = FILL
    cubic: bool = False


class Colour(NamedTuple):
    """A function of an image's pixels that moves none of them."""

    function: Callable[[Crop], Crop]


Move = Flip | Turn | Affine | Colour
"""One step of a transform, drawn already."""


def affine(matrix: tuple[float, ...], cubic: bool = False) -> Affine:
    """Build the move of an affine map whose origin is the corner, as Pillow has it.

    Args:
      matrix: a, b, c, d, e, f: output point (x, y) shows the input at (a·x + b·y + c,
        d·x + e·y + f).
      cubic: see `Affine`.
    """
    a, b, c, d, e, f = matrix
    centred = [[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]]
    return Affine(np.array(centred, np.float64), cubic=cubic)


def rotate(degrees: float, size: tuple[int, int], cubic: bool = False) -> Affine:
    """Build a counter-clockwise rotation about the centre of a crop of this height and width."""
    angle = -math.radians(degrees)
    cos, sin, x, y = math.cos(angle), math.sin(angle), size[1] / 2, size[0] / 2
    shift = x - (cos * x + sin * y), y - (cos * y - sin * x)
    return affine((cos, sin, shift[0], -sin, cos, shift[1]), cubic)


def random_affine(
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    degrees: float = 15.0,
    scale: tuple[float, float] = (0.85, 1.15),
    shift: float = 0.1,
) -> tuple[Affine]:
    """Draw a rotation, scaling and shift of a crop about its centre; new areas are black.

    Args:
      rng: draws the four numbers, each uniform.
      size: height and width of the crop.
      degrees: largest angle to either side.
      scale: range of the factor.
      shift: largest shift along each axis, as a share of the side.
    """
    turn, factor, x, y = rng.random(4)
    angle = math.radians(degrees) * (2 * turn - 1)
    factor = scale[0] + (scale[1] - scale[0]) * factor
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    middle = (size[1] - 1) / 2, (size[0] - 1) / 2
    right = middle[0] + shift * size[1] * (2 * x - 1)
    down = middle[1] + shift * size[0] * (2 * y - 1)
    matrix = np.array(
        [
            [cos, -sin, right - (cos * middle[0] - sin * middle[1])],
            [sin, cos, down - (sin * middle[0] + cos * middle[1])],
        ]
    )
    return (Affine(cv2.invertAffineTransform(matrix), fill=(0, 0, 0)),)
