"""Label maps of a training set: the classes that an annotator found in each cell of each image.

`vitjax token-labels` writes them to a folder: `classes.npy` and `scores.npy`, [N, k, h, w], in the
order of the images, and `labels.json` with their origin. The files are memory mapped.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float16, UInt16

from vitjax.data.source import Source, WithField, short_sha256

ABOUT = "labels.json"


class LabelMaps:
    """Label maps of one folder.

    Attributes:
      fingerprint: fingerprint of their origin: data, annotator and its options.
      shape: k, h, w.
    """

    classes: UInt16[np.ndarray, "N k h w"]
    scores: Float16[np.ndarray, "N k h w"]

    def __init__(self, folder: pathlib.Path, about: Mapping[str, Any]):
        self.folder, self.about = folder, about
        self.fingerprint = short_sha256((json.dumps(about, sort_keys=True).encode(),))
        self.classes, self.scores = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("classes", "scores")
        )
        self.shape = tuple(self.classes.shape[1:])

    def __len__(self) -> int:
        return len(self.classes)

    def __reduce__(self) -> Any:
        return LabelMaps, (self.folder, self.about)  # another process maps the files itself

    def __getitem__(
        self, i: int
    ) -> tuple[UInt16[np.ndarray, "k h w"], Float16[np.ndarray, "k h w"]]:
        """Return classes and scores of the cells of image i."""
        return self.classes[i], self.scores[i]


def read_label_maps(folder: str) -> LabelMaps:
    """Open the label maps in a folder.

    Raises:
      ValueError: there are none, or they are incomplete.
    """
    path = pathlib.Path(folder)
    if not (path / ABOUT).is_file():
        raise ValueError(
            f"{folder!r} holds no label maps: it has no {ABOUT}. `vitjax token-labels TEACHER "
            f"--data=URI --to={folder}` makes them."
        )
    about = json.loads((path / ABOUT).read_text())
    if not about["complete"]:
        raise ValueError(
            f"The label maps in {folder!r} are incomplete; run the `vitjax token-labels` command "
            f"that began them again to finish them."
        )
    return LabelMaps(path, about)


def with_label_maps(source: Source, maps: LabelMaps) -> Source:
    """Add label maps to the training set as the field `map`, of kind `kinds.TokenScores`.

    Raises:
      ValueError: the maps belong to other images.
    """
    about, info = maps.about, source.info
    if (about["fingerprint"], about["images"]) != (info.fingerprint, len(source)):
        raise ValueError(
            f"The label maps in {str(maps.folder)!r} are of other images: they were made for "
            f"{about['data']}, split {about['split']!r} ({about['images']:,} images, fingerprint "
            f"{about['fingerprint']}), and the training data has {len(source):,} images "
            f"(fingerprint {info.fingerprint}). Train on those, or make maps of these."
        )
    return WithField(source, "map", maps, maps.fingerprint)
