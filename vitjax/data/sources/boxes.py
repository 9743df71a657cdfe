"""Digits to be found on photographs: `boxes://`, a small set for detection with no download.

A scene is a part of a photograph on which one to six scans are painted, each at a random place, in
a random colour and size (uniform in its logarithm, from an eighth to half of a side). An object is
a digit; its mask is the ink that is seen, and its box is that of the mask. Later digits cover
earlier ones, each by a fifth of a scan at most; one that is hidden by several is no object.
Photographs and scans are those of `scenes://`, split in the same way. Scene i is a function of
(seed, i), for any i.
"""

import numpy as np
from jaxtyping import Int

from vitjax.data.codecs.masks import Bitmap
from vitjax.data.objects import Objects
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources.digits import open_digits
from vitjax.data.sources.scenes import background, paint_at
from vitjax.names import check_no_path

NUM_TRAIN, NUM_TEST = 100_000, 1000
"""Scenes of the splits, unless a count is given."""
LEAST = 64
"""Pixels of a side."""
COVERED = 0.2
"""Of the smaller one of two painted squares, at most."""
ATTEMPTS = 10
"""Draws of a place; a digit that finds none is left out."""
Square = tuple[int, np.ndarray]
"""Side and corner (row, column) of a painted scan."""


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
        text = f"boxes {split} {count} {size} {digits} {seed} {info.fingerprint}"
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
            colour = rng.integers(256, size=3)
            if square is None:
                continue
            place, ink = paint_at(image, scan["image"][..., 0], *square, colour)
            owners[place] = np.where(ink > 127, len(labels), owners[place])
            squares.append(square)
            labels.append(scan["label"])
        pixels = np.rint(image).astype(np.uint8)
        return {"image": pixels, "objects": _objects(owners, labels, i)}

    def _free(self, rng: np.random.Generator, squares: list[Square]) -> Square | None:
        """Draw a side and a corner that cover little of the others; None if none is found."""
        for _ in range(ATTEMPTS):
            log = rng.uniform(np.log(self._size / 8), np.log(self._size / 2))
            side = round(float(np.exp(log)))
            corner = rng.integers(self._size - side + 1, size=2)
            if all(_covered((side, corner), other) <= COVERED for other in squares):
                return side, corner
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


def _covered(one: Square, other: Square) -> float:
    """Compute the common area of two squares, as a share of the smaller one."""
    (side, corner), (length, at) = one, other
    common = np.minimum(corner + side, at + length) - np.maximum(corner, at)
    return float(np.prod(common.clip(0))) / min(side, length) ** 2


def _objects(owners: Int[np.ndarray, "S S"], labels: list[int], number: int) -> Objects:
    """Describe the objects whose numbers stand in a map."""
    boxes, there, seen = [], [], [k for k in range(len(labels)) if (owners == k).any()]
    for k in seen:
        rows, columns = (np.flatnonzero((owners == k).any(axis)) for axis in (1, 0))
        left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        pixels = (owners[top:bottom, left:right] == k).astype(np.uint8)
        boxes.append((left, top, right, bottom))
        there.append(Bitmap(pixels, int(left), int(top)))
    return Objects(
        np.array(boxes, np.float64),
        np.array(labels)[seen],
        np.zeros(len(seen), bool),
        np.array([mask.pixels.sum() for mask in there], np.float64),
        tuple(there),
        size=owners.shape,
        number=number,
    )
