"""Moving digits: `moving://`, a small set of clips with no download, whose class is a direction.

A scan of `digits://` moves over a black square at a constant speed, and comes in again where it
leaves. It begins anywhere, so that each frame alone has the same distribution for all directions:
what a single frame shows tells nothing of the class. Clip i of a split is a function of (seed, i).
The scans of the splits are those of `digits://`.
"""

import cv2
import numpy as np
from jaxtyping import Int, UInt8

from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources.digits import open_digits
from vitjax.names import check_no_path

DIRECTIONS = {
    "right": (0, 1), "down right": (1, 1), "down": (1, 0), "down left": (1, -1),
    "left": (0, -1), "up left": (-1, -1), "up": (-1, 0), "up right": (-1, 1),
}  # fmt: skip
"""Class → pixels (down, right) of a step at speed 1."""
SPEEDS = (1, 2)
"""Pixels of a frame, along each axis that it moves on."""


class Moving:
    """Clips of one split, made when they are asked for."""

    def __init__(self, split: str, count: int, size: int, frames: int, seed: int):
        self._split, self._count, self._shape, self._seed = split, count, (frames, size), seed
        self._digits = open_digits("", split)
        text = f"moving {split} {count} {size} {frames} {seed} {self._digits.info.fingerprint}"
        fields = frozenset(("clip", "label"))
        self.info = DataInfo(tuple(DIRECTIONS), short_sha256((text.encode(),)), fields)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Sample:
        rng = np.random.Generator(np.random.PCG64([self._seed, self._split == "train", i]))
        frames, size = self._shape
        label = i % len(DIRECTIONS)
        scan = self._digits[int(rng.integers(len(self._digits)))]["image"][..., 0]
        colour = rng.integers(128, 256, 3)
        start, speed = rng.integers(size, size=2), int(rng.choice(SPEEDS))
        step = speed * np.array(list(DIRECTIONS.values())[label])
        return {"clip": move(scan, size, frames, start, step, colour), "label": label}

    def example_name(self, i: int) -> str:
        return f"clip {i} of {self._split}"

    def labels(self) -> Int[np.ndarray, "N"]:
        return np.arange(self._count) % len(DIRECTIONS)


def move(
    scan: UInt8[np.ndarray, "8 8"],
    size: int,
    frames: int,
    start: Int[np.ndarray, "2"],
    step: Int[np.ndarray, "2"],
    colour: Int[np.ndarray, "3"],
) -> UInt8[np.ndarray, "T S S 3"]:
    """Draw a scan of half the square's side, whose corner is at start + t · step in frame t."""
    ink = np.asarray(cv2.resize(scan, (size // 2, size // 2), interpolation=cv2.INTER_LINEAR))
    square = np.zeros((size, size, 3), np.uint8)
    square[: size // 2, : size // 2] = ink[..., None].astype(np.int64) * colour // 255
    places = [tuple(int(p) for p in start + t * step) for t in range(frames)]
    return np.stack([np.roll(square, place, axis=(0, 1)) for place in places])


def open_moving(
    path: str, split: str, size: int = 32, frames: int = 24, count: int = 4000, seed: int = 0
) -> Moving:
    """Open one split of the clips; "test" has a tenth of them.

    Args:
      size: pixels of a side; `frames`: of a clip.
      count: of training clips.
      seed: of the clips.

    Raises:
      ValueError: a path is given, or a number is too small.
    """
    check_no_path("moving", path)
    if size < 8 or frames < 1 or count < 1 or seed < 0:
        raise ValueError(
            f"moving:// needs a size of 8 or more, frames and a count of 1 or more and a seed of 0 "
            f"or more; size={size}, frames={frames}, count={count}, seed={seed} are given."
        )
    return Moving(split, count if split == "train" else max(count // 10, 1), size, frames, seed)
