"""Objects of an image as a source gives them, and their boxes.

Boxes are (x0, y0, x1, y1), continuous and without +1: the image covers 0 to its width and 0 to its
height. So a box of one pixel has the sides 1, and a mirrored box is W - x1 to W - x0.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from vitjax.data.codecs.masks import Mask, scaled

Boxes = Float64[np.ndarray, "n 4"]
Size = tuple[int, int]
"""Height and width."""


class Objects(NamedTuple):
    """Objects of an image as a source gives them.

    Attributes:
      boxes: (x0, y0, x1, y1), in pixels of the image, or in shares of its sides.
      classes: number of the class of each.
      crowd: whether it is a group without bounds, which is no target, and where detections are no
        errors (COCO's `iscrowd`).
      areas: pixels of each, by which COCO tells small from large; NaN for those of its box.
      masks: of each object, None where an object has none; () for none at all.
      relative: whether boxes and corners of polygons are shares of the image's sides.
      size: height and width of the image as the annotation says; None if it does not.
      number: of the sample in its source.
    """

    boxes: Float[np.ndarray, "n 4"]
    classes: Int[np.ndarray, "n"]
    crowd: Bool[np.ndarray, "n"]
    areas: Float[np.ndarray, "n"]
    masks: tuple[Mask | None, ...] = ()
    relative: bool = False
    size: Size | None = None
    number: int = 0


def absolute(value: Objects, frame: Size) -> Objects:
    """Return the objects with boxes and masks in pixels of their image.

    Args:
      frame: height and width of the image.

    Raises:
      ValueError: see `in_pixels`.
    """
    boxes = in_pixels(value, frame)
    if value.relative:
        sides = frame[1], frame[0]
        there = tuple(mask and scaled(mask, sides) for mask in value.masks)
        value = value._replace(masks=there)
    return value._replace(boxes=boxes, size=frame, relative=False)


def in_pixels(value: Objects, frame: Size) -> Boxes:
    """Return the boxes in pixels of an image of this size.

    Raises:
      ValueError: the annotation is of another size, or a box is inverted or outside of the image.
    """
    height, width = frame
    if value.size is not None and value.size != frame:
        raise ValueError(
            f"its annotation is of {value.size[0]}×{value.size[1]} pixels, and the image has "
            f"{height}×{width}; they must be the same"
        )
    sides = (width, height) * 2 if value.relative else (1, 1, 1, 1)
    boxes = np.asarray(value.boxes, np.float64).reshape(-1, 4) * sides
    if (wrong := wrong_box(boxes, frame)) is not None:
        raise ValueError(
            f"the box of its object {wrong} (from 0), x {boxes[wrong, 0]:g} to "
            f"{boxes[wrong, 2]:g} and y {boxes[wrong, 1]:g} to {boxes[wrong, 3]:g}, is inverted or "
            f"outside of the image, which is {width} wide and {height} high; repair it"
        )
    return boxes


def wrong_box(boxes: Boxes, frame: Size | Int[np.ndarray, "n 2"]) -> int | None:
    """Return the number of the first box that is inverted, no number or outside of its image.

    A box that is partly outside, or has no area, is none of these.

    Args:
      frame: height and width of the image, or of each box's.
    """
    limits = np.asarray(frame, np.float64)[..., ::-1]
    fine = (boxes[:, :2] <= boxes[:, 2:]) & (boxes[:, :2] <= limits) & (boxes[:, 2:] >= 0)
    wrong = np.flatnonzero(~fine.all(-1))
    return int(wrong[0]) if len(wrong) else None


def clip(boxes: Boxes, size: tuple[float, float]) -> Boxes:
    """Cut boxes to an image of this size; those outside have no area then."""
    limits = np.array([size[1], size[0]] * 2)
    return np.clip(boxes, 0, limits)


def areas(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n"]:
    """Compute the areas of boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
