"""The embedded data set: 1,797 scans of handwritten digits, 8×8, that come with scikit-learn.

They are the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits"
(UCI, 1998).

The split is fixed: `numpy.random.Generator(numpy.random.PCG64(0)).permutation(1797)` numbers the
scans; the first 360 (20 %) are "test", the other 1,437 are "train", each in the data set's order.
Classes are not balanced by hand; they are nearly equal.
"""

import importlib.util
import pathlib

import numpy as np
from jaxtyping import Int, UInt8

from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.names import check_no_path

NUM_TEST = 360


class Digits:
    """One split of the scans, as gray in three channels, ink 255 on paper 0."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "N 8 8"],
        labels: Int[np.ndarray, "N"],
        numbers: Int[np.ndarray, "N"],
    ):
        fingerprint = short_sha256((images.tobytes(), labels.astype("<i4").tobytes()))
        self.info = DataInfo(tuple("0123456789"), fingerprint)
        self._images, self._labels, self._numbers = images, labels, numbers

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: int) -> Sample:
        image = np.repeat(self._images[i][..., None], 3, axis=-1)
        return {"image": image, "label": int(self._labels[i])}

    def example_name(self, i: int) -> str:
        return f"digits/{self._numbers[i]:04d}"

    def labels(self) -> Int[np.ndarray, "N"]:
        return self._labels


def split_indices(split: str) -> Int[np.ndarray, "N"]:
    """Return the indices of the 1,797 scans that belong to "train" or "test"."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(1797)
    return np.sort(order[:NUM_TEST] if split == "test" else order[NUM_TEST:])


def open_digits(path: str, split: str) -> Digits:
    """Open one split, "train" or "test"; the URI `digits://` has no path."""
    check_no_path("digits", path)
    # The file of `sklearn.datasets.load_digits`, whose import takes a second for all else in it.
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None
    file = pathlib.Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    values, labels = np.split(np.loadtxt(file, delimiter=","), [64], axis=1)
    labels = labels[:, 0].astype(np.int64)
    images = np.rint(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    chosen = split_indices(split)
    return Digits(images[chosen], labels[chosen], chosen)
