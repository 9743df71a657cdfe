"""Digits placed on photographs: `scenes://`, a small set for segmentation with no download.

The photographs are the two that come with scikit-learn (a palace in China, a flower), the digits
its 8×8 scans. A scene is a part of a photograph, on which two to four scans are painted in random
colours and sizes; a pixel's class is the digit whose ink covers it, or "background". So labels are
exact, and colours do not tell classes apart. Scene i of a split is a function of i alone. The
scans of the splits are those of `digits://`; "train" shows the left three quarters of the
photographs, and "test" the rest.
"""

import functools
import importlib.util
import pathlib

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from vitjax.data.codecs.image import read_image
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources.digits import Digits, open_digits
from vitjax.names import check_no_path

CLASSES = (*"0123456789", "background")
BACKGROUND = len(CLASSES) - 1
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
SHARE = 0.75
"""Of the width of a photograph, for training."""


class Scenes:
    """Scenes of one split, made when they are asked for."""

    def __init__(self, split: str, count: int, size: int):
        self._split, self._count, self._size = split, count, size
        self._digits: Digits = open_digits("", split)
        text = f"scenes {split} {count} {size} {self._digits.info.fingerprint}"
        self.info = DataInfo(CLASSES, short_sha256((text.encode(),)), frozenset(("image", "map")))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Sample:
        rng = np.random.Generator(np.random.PCG64([self._split == "train", i]))
        size, image = self._size, background(rng, self._split, self._size)
        labels = np.full((size, size), BACKGROUND, np.int32)
        for _ in range(int(rng.integers(2, 5))):
            scan = self._digits[int(rng.integers(len(self._digits)))]
            length = int(rng.integers(size // 3, size // 2 + 1))
            place, ink = paint(rng, image, scan["image"][..., 0], length)
            labels[place] = np.where(ink > 127, scan["label"], labels[place])
        return {"image": np.rint(image).astype(np.uint8), "map": labels}

    def example_name(self, i: int) -> str:
        return f"scene {i} of {self._split}"


def open_scenes(path: str, split: str, size: int = 64, count: int = 2000) -> Scenes:
    """Open one split of the scenes; "test" has a tenth of them.

    Args:
      size: pixels of a side.
      count: of training scenes.

    Raises:
      ValueError: a path is given, or a number is too small.
    """
    check_no_path("scenes", path)
    if size < 32 or count < 1:
        raise ValueError(
            f"scenes:// needs a size of 32 or more and a count of 1 or more; "
            f"size={size}, count={count} are given."
        )
    return Scenes(split, count if split == "train" else max(count // 10, 1), size)


def background(
    rng: np.random.Generator, split: str, size: int, sides: tuple[int, int] = (64, 10_000)
) -> Float32[np.ndarray, "S S 3"]:
    """Draw a square part of a split's photographs, resized to `size` pixels a side.

    Args:
      sides: smallest and largest side of the part, in pixels of the photograph; at most all of it.
    """
    photographs = _photographs(split)
    photograph = photographs[rng.integers(len(photographs))]
    least, most = (min(*photograph.shape[:2], side) for side in sides)
    side = int(rng.integers(least, most + 1))
    top = int(rng.integers(photograph.shape[0] - side + 1))
    left = int(rng.integers(photograph.shape[1] - side + 1))
    part = np.ascontiguousarray(photograph[top : top + side, left : left + side])
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)


def paint(
    rng: np.random.Generator,
    image: Float32[np.ndarray, "S S 3"],
    scan: UInt8[np.ndarray, "8 8"],
    length: int,
    darkest: int = 0,
) -> tuple[tuple[slice, slice], UInt8[np.ndarray, "L L"]]:
    """Paint a scan into the image, at a random place and in a random colour.

    Args:
      length: side of the painted square, in pixels.
      darkest: least value of a channel of the colour.

    Returns:
      The place, and the scan's ink there, 255 where it covers the image.
    """
    row, column = (int(at) for at in rng.integers(len(image) - length + 1, size=2))
    colour = rng.integers(darkest, 256, 3).astype(np.float32)
    ink = np.asarray(cv2.resize(scan, (length, length), interpolation=cv2.INTER_CUBIC))
    place = np.s_[row : row + length, column : column + length]
    share = (ink.astype(np.float32) / 255)[..., None]
    image[place] = (1 - share) * image[place] + share * colour
    return place, ink


@functools.cache
def _photographs(split: str) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Read the part of each photograph that belongs to a split."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None
    folder = pathlib.Path(package.origin).parent / "datasets" / "images"
    parts = []
    for name in PHOTOGRAPHS:
        image = read_image(str(folder / name))
        border = int(SHARE * image.shape[1])
        parts.append(image[:, :border] if split == "train" else image[:, border:])
    return parts
