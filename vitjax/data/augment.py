"""What training does to an image, written as one line: `crop | flip | randaugment(m=9)`.

The first part says which rectangle is cut out, the others change the square it becomes, in order:

  centre(fraction=1.0)  crop(area=(0.08, 1.0), ratio=(0.75, 1.33), interpolation='bicubic')
  simple_crop(pad=4)  flip(p=0.5)  affine(degrees=15, …)  three_augment  jitter(brightness=0.4, …)
  randaugment(n=2, m=9, mstd=0.5, p=0.5, interpolation='random')  autoaugment
"""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from vitjax.data import policies, transforms
from vitjax.data.image import Box, Picture
from vitjax.data.pixels import random_affine
from vitjax.data.transforms import Image, Square, Window
from vitjax.names import unknown

AUGMENTATIONS = {
    "none": "centre",  # as in evaluation with eval_crop=1.0, the default
    "digits": "centre | affine",  # for writing: neither mirrored nor cropped
    "crop_flip": "crop | flip",  # for photos
    "deit": "crop(interpolation='bicubic') | flip"
    " | randaugment(n=2, m=9, mstd=0.5, interpolation='bicubic')",
    "deit3": "simple_crop(interpolation='bicubic') | flip | three_augment"
    " | jitter(brightness=0.3, contrast=0.3, saturation=0.3)",
}
"""Name → what it is short for."""


def _centre(
    height: int, width: int, rng: np.random.Generator, size: int, *, fraction: float = 1.0
) -> Window:
    del rng
    return transforms.centre_window(height, width, size, fraction)


def _crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    size: int,
    *,
    area: tuple = (0.08, 1.0),
    ratio: tuple = (3 / 4, 4 / 3),
) -> Box:
    del size
    return transforms.random_box(height, width, rng, area, ratio)


def flip(image: Square, rng: np.random.Generator, *, p: float = 0.5) -> Square:
    """Mirrors left and right with probability p."""
    return cv2.flip(image, 1) if rng.random() < p else image


FRAMES = {"centre": _centre, "crop": _crop, "simple_crop": transforms.shifted_box}
CHANGES = {
    "flip": flip,
    "affine": random_affine,
    "randaugment": policies.rand_augment,
    "autoaugment": policies.auto_augment,
    "three_augment": policies.three_augment,
    "jitter": policies.jitter,
}


class Placement(NamedTuple):
    """Where in its image a square lies; turns, shears and shifts of policies are not told.

    Attributes:
      box: top, left, height, width, as shares of the image; beyond 0 to 1 it is its mirror image.
      mirrored: left and right are exchanged.
    """

    box: tuple[float, float, float, float]
    mirrored: bool


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A pure function of (image, generator, size): cuts a rectangle out, then changes the square.

    Attributes:
      frame: (height, width, generator, size) → the rectangle: a Box, which may be decoded at a
        fraction of its size, or a Window, which is shown exactly.
      changes: (square, generator) → square, one after the other.
      interpolation: see `transforms.resize`.
    """

    frame: Callable[..., Box | Window]
    changes: tuple[Callable[..., Square], ...] = ()
    interpolation: str = "area"

    def __call__(self, image: Image, rng: np.random.Generator, size: int) -> Square:
        return self.placed(image, rng, size)[0]

    def placed(self, image: Image, rng: np.random.Generator, size: int) -> tuple[Square, Placement]:
        """The square, and where in the image it lies."""
        picture = image if isinstance(image, Picture) else Picture(image)
        height, width = picture.height, picture.width
        box = self.frame(height, width, rng, size)
        if isinstance(box, Window):
            square = transforms.show_window(picture, box, size, self.interpolation)
        else:
            square = transforms.cut_out(picture, box, size, self.interpolation, exact=False)
        mirrored = False
        for change in self.changes:
            before, square = square, change(square, rng)
            mirrored ^= getattr(change, "func", change) is flip and square is not before
        top, left, rows, columns = box
        shares = top / height, left / width, rows / height, columns / width
        return square, Placement(shares, mirrored)


@functools.lru_cache(maxsize=16)
def parse_augmentation(text: str) -> Augmentation:
    """Reads a name of AUGMENTATIONS, or a line as this module's docstring shows.

    Raises:
      ValueError: an unknown part or option (the nearest is named), or a line that does not parse.
    """
    if text.isidentifier() and text not in (*AUGMENTATIONS, *FRAMES):
        raise ValueError(unknown("augmentation", text, [*AUGMENTATIONS, *FRAMES]))
    first, *others = (_part(part, text) for part in AUGMENTATIONS.get(text, text).split("|"))
    name, options = first
    if name not in FRAMES:
        raise ValueError(
            f"An augmentation begins with the rectangle that is cut out ({', '.join(FRAMES)}); "
            f"{text!r} begins with {name!r}. Write 'crop | {name}'."
        )
    interpolation = options.pop("interpolation", "area")
    if interpolation not in transforms.INTERPOLATIONS:
        raise ValueError(unknown("interpolation", interpolation, transforms.INTERPOLATIONS))
    frame = _bind(FRAMES[name], name, options)
    for other, _ in others:
        if other not in CHANGES:
            raise ValueError(unknown("change of an augmentation", other, CHANGES))
    changes = tuple(_bind(CHANGES[name], name, options) for name, options in others)
    return Augmentation(frame, changes, interpolation)


def _part(part: str, text: str) -> tuple[str, dict[str, Any]]:
    """A name and its options, which are literals."""
    try:
        tree = ast.parse(part.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        assert isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args
        return tree.func.id, {k.arg or "**": ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise ValueError(
            f"Augmentation {text!r} does not parse at {part.strip()!r}; write parts such as "
            f"crop, flip(p=0.5) or randaugment(n=2, m=9), with '|' between them."
        ) from None


def _bind(function: Callable[..., Any], name: str, options: dict[str, Any]) -> Callable[..., Any]:
    keywords = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is not inspect.Parameter.empty
    ]
    for option in options:
        if option not in keywords:
            raise ValueError(unknown(f"option of {name}", option, keywords))
    kind = options.get("interpolation", "random")  # a frame's is read before
    if kind not in policies.INTERPOLATIONS:
        raise ValueError(unknown(f"interpolation of {name}", str(kind), policies.INTERPOLATIONS))
    fraction = options.get("fraction", 1.0)
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise ValueError(
            f"{name}(fraction={fraction!r}) must be a number above 0 and at most 1, the share of "
            f"the short side that is shown, such as 0.875."
        )
    return functools.partial(function, **options) if options else function
