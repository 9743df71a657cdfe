"""Photographs that come with installed packages: `photos://`, to try restoration offline.

Two come with scikit-learn (CC BY), the others with scikit-image (each with its license in the
package's `data/README.txt`). The splits have different photographs.
"""

import importlib.util
import pathlib

from vitjax.data.codecs.image import read_file
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.names import check_no_path

PHOTOGRAPHS = {
    "train": (
        *(f"sklearn/datasets/images/{name}.jpg" for name in ("china", "flower")),
        *(f"skimage/data/{name}.png" for name in ("astronaut", "brick", "grass", "gravel")),
        *(f"skimage/data/{name}.jpg" for name in ("hubble_deep_field", "rocket")),
        "skimage/data/motorcycle_left.png",
    ),
    "test": ("skimage/data/chelsea.png", "skimage/data/coffee.png"),
}
"""Split → files, below the folders of their packages."""


class Photos:
    """Photographs of one split, repeated, so that an epoch has many crops of each."""

    def __init__(self, files: list[pathlib.Path], count: int):
        data = [read_file(str(file)) for file in files]
        self.info = DataInfo((), short_sha256([*data, str(count).encode()]), frozenset(("image",)))
        self._names, self._data, self._count = [file.name for file in files], data, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Sample:
        return {"image": self._data[i % len(self._data)]}

    def example_name(self, i: int) -> str:
        return self._names[i % len(self._names)]


def open_photos(path: str, split: str, count: int = 0) -> Photos:
    """Open one split of the photographs.

    Args:
      count: of the training samples, each a photograph in turn; 0 for one each.

    Raises:
      ValueError: a path is given, the count is negative, or scikit-image is not installed.
    """
    check_no_path("photos", path)
    files = [_file(name) for name in PHOTOGRAPHS[split]]
    if count < 0:
        raise ValueError(f"photos://?count={count} must be 0 or more.")
    return Photos(files, count if count and split == "train" else len(files))


def _file(name: str) -> pathlib.Path:
    package, _, rest = name.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(
            "photos:// needs scikit-image's photographs: pip install 'vitjax[photos]'."
        )
    return pathlib.Path(found.origin).parent / rest
