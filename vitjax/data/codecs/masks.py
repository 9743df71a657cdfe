"""Masks of objects as annotations store them: polygons, run lengths and bitmaps, drawn when needed.

A point (x, y) is continuous: the image covers 0 to its width and 0 to its height, and the first
pixel's centre is (0.5, 0.5).
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float64, UInt8

FINER = 4
"""Samples along each axis of a drawn pixel, of which half must be covered."""
_SHIFT = 8  # fractional bits of the corners that OpenCV draws
Matrix = Float[np.ndarray, "2 3"]
"""Affine map of points: (x, y) becomes matrix · (x, y, 1)."""


class Polygons(NamedTuple):
    """Union of the areas inside closed lines, in pixels or in shares of the image.

    Attributes:
      rings: corners (x, y) of each line.
    """

    rings: tuple[Float64[np.ndarray, "_ 2"], ...]


class RunLengths(NamedTuple):
    """Mask as COCO's run lengths, of columns of the whole image, beginning with those outside.

    Attributes:
      size: height and width of the image.
      counts: the lengths, or their compressed form.
    """

    size: tuple[int, int]
    counts: tuple[int, ...] | bytes


class Bitmap(NamedTuple):
    """Mask of a rectangle of the image, 0 or 1; outside of it lies nothing.

    Attributes:
      pixels: of the rectangle.
      left, top: its corner.
    """

    pixels: UInt8[np.ndarray, "h w"]
    left: int = 0
    top: int = 0


Mask = Polygons | RunLengths | Bitmap


def draw(mask: Mask, matrix: Matrix, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Draw a moved mask: 1 for each pixel of which half is covered.

    Args:
      mask: of the image.
      matrix: from the mask's points to those of the result.
      size: height and width of the result.
    """
    height, width = (FINER * n for n in size)
    fine = np.zeros((height, width), np.uint8)
    if isinstance(mask, Polygons):
        for ring in mask.rings:  # one by one: together, OpenCV would exclude what two cover
            points = FINER * _moved(ring, matrix) - 0.5
            corners = np.rint(points * 2**_SHIFT).clip(-(2**30), 2**30).astype(np.int32)
            cv2.fillPoly(fine, [corners], FINER**2, shift=_SHIFT)
    else:
        bitmap = decode(mask) if isinstance(mask, RunLengths) else mask
        centres = FINER * np.asarray(matrix, np.float64)
        # From the centres of the bitmap's pixels to those of the samples.
        start = np.array([bitmap.left + 0.5, bitmap.top + 0.5])
        centres[:, 2] += centres[:, :2] @ start - 0.5
        levels, flags = FINER**2 * bitmap.pixels, cv2.INTER_NEAREST
        cv2.warpAffine(levels, centres, (width, height), fine, flags=flags)
    covered = cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA)  # exact: means of blocks
    return (2 * covered >= FINER**2).astype(np.uint8)


def decode(mask: RunLengths) -> Bitmap:
    """Decode run lengths to the mask of the whole image.

    Raises:
      ValueError: they are not those of an image of this size.
    """
    counts = _numbers(mask.counts) if isinstance(mask.counts, bytes) else mask.counts
    height, width = mask.size
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(
            f"the run lengths of a mask make {sum(counts)} pixels, and its image has "
            f"{height}×{width}"
        )
    values = np.arange(len(counts), dtype=np.uint8) % 2
    return Bitmap(np.ascontiguousarray(np.repeat(values, counts).reshape(width, height).T))


def encode(mask: Mask, size: tuple[int, int]) -> bytes:
    """Encode a mask of an image of this height and width as COCO's compressed run lengths."""
    counts = _coco(mask, size)["counts"]
    return counts if isinstance(counts, bytes) else counts.encode()


def scaled(mask: Mask, factors: tuple[float, float]) -> Mask:
    """Scale the corners of polygons along x and y; other masks have the image's pixels."""
    if not isinstance(mask, Polygons):
        return mask
    return Polygons(tuple(ring * np.array(factors) for ring in mask.rings))


def _numbers(text: bytes) -> list[int]:
    """Read the numbers of compressed run lengths.

    A character less 48 has five bits of a number, the lowest first, and a sixth that says that
    more follow; the last has the sign. From the fourth on it is the difference to the number two
    before.
    """
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        numbers.append(value + numbers[-2] if len(numbers) > 2 else value)
        value = shift = 0
    return numbers


def coco_masks() -> Any:
    """Import the functions of run lengths, or raise an error that says how to install them."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ValueError(
            "Run lengths of masks, and COCO's measures, need the extra: pip install 'vitjax[coco]'."
        ) from error
    return mask


def _coco(mask: Mask, size: tuple[int, int]) -> dict[str, Any]:
    """Convert a mask to compressed run lengths as pycocotools has them, polygons by its rules."""
    functions = coco_masks()
    if isinstance(mask, Polygons):
        lines = [ring.ravel().tolist() for ring in mask.rings]
        return functions.merge(functions.frPyObjects(lines, *size))
    if isinstance(mask, RunLengths):
        height, width = mask.size
        if isinstance(mask.counts, bytes):
            return {"size": [height, width], "counts": mask.counts}
        stored = {"size": [height, width], "counts": list(mask.counts)}
        return functions.frPyObjects(stored, height, width)
    whole = np.zeros(size, np.uint8, order="F")
    height, width = mask.pixels.shape
    whole[mask.top : mask.top + height, mask.left : mask.left + width] = mask.pixels
    return functions.encode(whole)


def _moved(points: Float64[np.ndarray, "n 2"], matrix: Matrix) -> Float64[np.ndarray, "n 2"]:
    return points @ matrix[:, :2].T + matrix[:, 2]
