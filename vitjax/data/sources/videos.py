"""Video files as a data set: a folder per class (`folder://…?files=videos`), or a table of files
and labels for each split (`kinetics://`).
"""

import csv
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vitjax.data.codecs.video import VideoFile
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources import remote
from vitjax.data.sources.folders import VALIDATION, check_folder
from vitjax.names import unknown

COLUMNS = ("path", "label")


class Videos:
    """Videos below `root`, decoded when they are asked for."""

    def __init__(
        self,
        root: str,
        names: Sequence[str],
        labels: Int[np.ndarray, "N"],
        classes: tuple[str, ...],
        fingerprint: str,
    ):
        self.info = DataInfo(classes, fingerprint, frozenset(("clip", "label")))
        self._root, self._names, self._labels = root, names, labels

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> Sample:
        name = self._names[i]
        clip = VideoFile(os.path.join(self._root, name), name)
        return {"clip": clip, "label": int(self._labels[i])}

    def example_name(self, i: int) -> str:
        return self._names[i]

    def labels(self) -> Int[np.ndarray, "N"]:
        return self._labels


def open_kinetics(path: str, split: str) -> Videos:
    """Open one split of a folder with `train.csv` and `test.csv` or `val.csv`.

    A table has a line for each video, with the columns `path`, below the folder, and `label`, the
    name of its class; others are left out. Without a line of names they are the first two. Classes
    are the labels of `train.csv` in alphabetical order, and numbers by their value.

    Raises:
      ValueError: a table is missing or empty, or has a label that `train.csv` lacks.
    """
    root = os.path.expanduser(path)
    root = root.rstrip("/") or root
    check_local(root)
    check_folder(root)
    tables = sorted(name[:-4] for name in os.listdir(root) if name.endswith(".csv"))
    if "train" not in tables:
        raise ValueError(f"Folder {path!r} has no train.csv, a table with the columns path, label.")
    if split == "test" and "test" not in tables:
        split = next((name for name in VALIDATION if name in tables), split)
    if split not in tables:
        raise ValueError(unknown(f"split of {path!r}", split, tables))
    classes = _classes({label for _, label in _rows(os.path.join(root, "train.csv"))})
    number = {name: i for i, name in enumerate(classes)}
    file = os.path.join(root, f"{split}.csv")
    rows = _rows(file)
    for name, label in rows:
        if label not in number:
            raise ValueError(
                f"{file!r} gives {name!r} the label {label!r}, which no line of train.csv has; "
                f"its {len(classes)} classes are {', '.join(classes[:3])} …."
            )
    text = "".join(f"{name}\0{label}\n" for name, label in rows)
    labels = np.array([number[label] for _, label in rows], np.int32)
    return Videos(root, [name for name, _ in rows], labels, classes, short_sha256((text.encode(),)))


def check_local(path: str) -> None:
    """Raise ValueError unless videos below a path can be decoded: from disks alone."""
    if remote.is_remote(path):
        raise ValueError(f"Videos are decoded from disks, not from {path!r}: copy or mount them.")


def _rows(file: str) -> list[tuple[str, str]]:
    """Read the path and the label of each line of a table."""
    with open(file, newline="", encoding="utf-8-sig") as lines:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if any(row)]
    places = [0, 1]
    if rows and set(COLUMNS) <= set(rows[0]):
        places = [rows[0].index(name) for name in COLUMNS]
        rows = rows[1:]
    if not rows:
        raise ValueError(f"{file!r} is empty: give it a line path,label for each video.")
    short = next((row for row in rows if len(row) <= max(places)), None)
    if short is not None:
        raise ValueError(
            f"A line of {file!r} has {len(short)} columns, {','.join(short)!r}; it needs a path "
            f"and a label, between which stands a comma."
        )
    return [(row[places[0]], row[places[1]]) for row in rows]


def _classes(labels: set[str]) -> tuple[str, ...]:
    numbers = all(label.isdecimal() for label in labels)
    return tuple(sorted(labels, key=int) if numbers else sorted(labels))
