"""Digits to be found on photographs: `boxes://`, a small set for detection with no download.

A scene is a part of a photograph on which one to six scans are painted, opaque, each at a random
place and in a random size (uniform in its logarithm, from a quarter to half of a side), in a random
colour that differs from what it covers. An object is a digit; its mask is the ink that is seen, and
its box is that of the mask. Later digits cover earlier ones, each by a fifth of a scan at most; one
that is hidden by several is no object. Photographs and scans are those of `scenes://`, split in the
same way. Scene i is a function of (seed, i), for any i.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from vitjax.data.codecs.masks import Bitmap
from vitjax.data.objects import Objects
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources.digits import open_digits
from vitjax.data.sources.scenes import background
from vitjax.names import check_no_path

NUM_TRAIN, NUM_TEST = 100_000, 1000
"""Scenes of the splits, unless a count is given."""
LEAST = 64
"""Pixels of a side."""
SIDES = (1 / 4, 1 / 2)
"""Of a scan, as shares of a side of the scene."""
CONTRAST = 64
"""Of 255, at least, between a digit's colour and the mean of what it covers, in each channel."""
COVERED = 0.2
"""Of the smaller one of two painted squares, at most."""
ATTEMPTS = 10
"""Draws of a place; a digit that finds none is left out."""
Square = tuple[int, int, int]
"""Row and column of the corner, and side, of a painted scan."""


class DigitBoxes:
    """Scenes of one split, made when they are asked for.

    Args:
      split: "train" or "test", which have other scans and other parts of the photographs.
      count: length that the source tells; any index from 0 on can be asked for.
      size: pixels of a side.
      digits: most of them in a scene.
      seed: of the sequence.
    """

    def __init__(self, split: str, count: int, size: int, digits: int, seed: int):
        self._split, self._count, self._size, self._seed = split, count, size, seed
        self._most, self._digits = digits, open_digits("", split)
        info = self._digits.info
        text = f"boxes 2 {split} {count} {size} {digits} {seed} {info.fingerprint}"
        fields = frozenset(("image", "objects"))
        self.info = DataInfo(info.classes, short_sha256((text.encode(),)), fields)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Sample:
        rng = np.random.Generator(np.random.PCG64([self._seed, self._split == "train", i]))
        image = background(rng, self._split, self._size)
        owners = np.full(image.shape[:2], -1)
        squares: list[Square] = []
        labels = []
        for _ in range(int(rng.integers(1, self._most + 1))):
            scan = self._digits[int(rng.integers(len(self._digits)))]
            square = self._free(rng, squares)
            if square is None:
                continue
            top, left, side = square
            place = np.s_[top : top + side, left : left + side]
            ink = cv2.resize(scan["image"][..., 0], (side, side), interpolation=cv2.INTER_CUBIC)
            seen = np.asarray(ink) > 127
            image[place][seen] = contrasting(rng, image[place][seen])
            owners[place][seen] = len(labels)
            squares.append(square)
            labels.append(scan["label"])
        pixels = np.rint(image).astype(np.uint8)
        return {"image": pixels, "objects": _objects(owners, squares, labels, i)}

    def _free(self, rng: np.random.Generator, squares: list[Square]) -> Square | None:
        """Draw a square that covers little of the others; None if none is found."""
        logs = np.log(self._size * np.array(SIDES))
        for _ in range(ATTEMPTS):
            side = round(float(np.exp(rng.uniform(*logs))))
            top, left = (int(n) for n in rng.integers(self._size - side + 1, size=2))
            square = (top, left, side)
            if all(_covered(square, other) <= COVERED for other in squares):
                return square
        return None

    def example_name(self, i: int) -> str:
        return f"scene {i} of {self._split}, seed {self._seed}"


def open_boxes(
    path: str, split: str, size: int = 128, count: int = 0, digits: int = 6, seed: int = 0
) -> DigitBoxes:
    """Open one split of the scenes.

    Args:
      size: pixels of a side.
      count: of scenes; 0 for 100,000 of "train" and 1,000 of "test".
      digits: most of them in a scene, at least one.
      seed: of the sequence: other seeds have other scenes.

    Raises:
      ValueError: a path is given, or a number is too small.
    """
    check_no_path("boxes", path)
    if size < LEAST or digits < 1 or min(count, seed) < 0:
        raise ValueError(
            f"boxes:// needs a size of {LEAST} or more, 1 digit or more, and a count and seed of 0 "
            f"or more; size={size}, digits={digits}, count={count}, seed={seed} are given."
        )
    count = count or (NUM_TRAIN if split == "train" else NUM_TEST)
    return DigitBoxes(split, count, size, digits, seed)


def contrasting(
    rng: np.random.Generator, covered: Float32[np.ndarray, "n 3"]
) -> Float[np.ndarray, "3"]:
    """Draw a colour each of whose channels differs from the mean of covered pixels by CONTRAST."""
    mean, steps = np.rint(covered.mean(axis=0)), rng.integers(CONTRAST, 257 - CONTRAST, size=3)
    return (mean + steps) % 256


def _covered(one: Square, other: Square) -> float:
    """Compute the common area of two squares, as a share of the smaller one."""
    (top, left, side), (y, x, length) = one, other
    height = min(top + side, y + length) - max(top, y)
    width = min(left + side, x + length) - max(left, x)
    return max(height, 0) * max(width, 0) / min(side, length) ** 2


def _objects(
    owners: Int[np.ndarray, "S S"], squares: list[Square], labels: list[int], number: int
) -> Objects:
    """Describe the objects whose numbers stand in a map, each within its square."""
    boxes, there, classes = [], [], []
    for k, (top, left, side) in enumerate(squares):
        seen = owners[top : top + side, left : left + side] == k
        rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
        if not len(rows):
            continue
        pixels = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
        x, y = left + int(columns[0]), top + int(rows[0])
        boxes.append((x, y, x + pixels.shape[1], y + pixels.shape[0]))
        there.append(Bitmap(pixels, x, y))
        classes.append(labels[k])
    return Objects(
        np.array(boxes, np.float64),
        np.array(classes),
        np.zeros(len(boxes), bool),
        np.array([mask.pixels.sum() for mask in there], np.float64),
        tuple(there),
        size=owners.shape,
        number=number,
    )
