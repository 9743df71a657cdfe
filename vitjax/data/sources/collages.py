"""Digits composed to images without end: `collages://`, for experiments that need more data.

A collage is a part of a darkened photograph on which up to two small scans and one large one are
painted, each at a random place, in a random bright colour and size; the large one is on top, and
its digit is the image's class. Noise makes classes ambiguous, so that the loss of a perfect model
is above 0, as on photographs. Photographs and scans are those of `scenes://`, split in the same
way. Collage i is a function of (seed, i), for any i: the first thousand images of a larger set are
those of a smaller.
"""

import numpy as np

from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources.digits import open_digits
from vitjax.data.sources.scenes import background, paint
from vitjax.names import check_no_path

NUM_TEST = 2000
"""Collages of the test split, unless a count is given."""
LEAST = 16
"""Pixels of a side."""


class Collages:
    """Collages of one split, made when they are asked for.

    Args:
      split: "train" or "test", which have other scans and other parts of the photographs.
      count: length that the source tells; any index from 0 on can be asked for.
      size: pixels of a side.
      clutter: small scans at most.
      noise: largest standard deviation of an image's Gaussian noise, in levels of 255; each
        image has its own, from 0 on.
      seed: of the sequence.
    """

    def __init__(self, split: str, count: int, size: int, clutter: int, noise: int, seed: int):
        self._split, self._count, self._size, self._seed = split, count, size, seed
        self._clutter, self._noise = clutter, noise
        self._digits = open_digits("", split)
        text = (
            f"collages {split} {count} {size} {clutter} {noise} {seed} "
            f"{self._digits.info.fingerprint}"
        )
        self.info = DataInfo(self._digits.info.classes, short_sha256((text.encode(),)))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Sample:
        rng = np.random.Generator(np.random.PCG64([self._seed, self._split == "train", i]))
        size = self._size
        # Resizing takes most of the time: parts of up to four times the size look alike.
        image = background(rng, self._split, size, sides=(size, 4 * size)) / 3
        lengths = rng.integers(size // 4, size // 2, size=rng.integers(self._clutter + 1))
        lengths = [*lengths, rng.integers(2 * size // 3, size + 1)]
        label = -1
        for length in lengths:
            scan = self._digits[int(rng.integers(len(self._digits)))]
            paint(rng, image, scan["image"][..., 0], int(length), darkest=128)
            label = scan["label"]  # of the last one, which is the largest
        image += rng.uniform(0, self._noise) * rng.standard_normal(image.shape, np.float32)
        return {"image": np.rint(image.clip(0, 255)).astype(np.uint8), "label": label}

    def example_name(self, i: int) -> str:
        return f"collage {i} of {self._split}, seed {self._seed}"


def open_collages(
    path: str,
    split: str,
    size: int = 24,
    count: int = 0,
    clutter: int = 2,
    noise: int = 0,
    seed: int = 0,
) -> Collages:
    """Open one split of the collages.

    Args:
      size: pixels of a side.
      count: of images; 0 for 100,000 of "train" and 2,000 of "test".
      clutter: small scans at most.
      noise: largest standard deviation of an image's noise, in levels of 255.
      seed: of the sequence: other seeds have other images.

    Raises:
      ValueError: a path is given, or a number is too small.
    """
    check_no_path("collages", path)
    if size < LEAST or min(count, clutter, noise, seed) < 0:
        raise ValueError(
            f"collages:// needs a size of {LEAST} or more, and a count, clutter, noise and "
            f"seed of 0 or more; size={size}, count={count}, clutter={clutter}, noise={noise}, "
            f"seed={seed} are given."
        )
    count = count or (100_000 if split == "train" else NUM_TEST)
    return Collages(split, count, size, clutter, noise, seed)
