"""YOLO's layout: `yolo:///traffic`, `data.yaml`, `images/` and a text file of boxes for each image.

A line of `labels/…/a.txt` is `class x y width height`, the box's centre and sides as shares of the
image, or `class x y x y x y …`, the corners of a polygon. An image without such a file has no
objects.
"""

import os
from typing import Any

import numpy as np

from vitjax.data.codecs.image import EXTENSIONS, read_file
from vitjax.data.codecs.masks import Polygons
from vitjax.data.objects import Objects
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources import remote
from vitjax.data.sources.folders import find_root
from vitjax.names import unknown

SPLITS = {"train": ("train",), "test": ("val", "valid", "test"), "val": ("val", "valid")}
"""Split → its keys in `data.yaml`, the first one that is there."""


class YoloFolder:
    """Images of one split, and their boxes or polygons, read when they are asked for.

    Args:
      root: the folder.
      images: paths of the images below it.
      labels: paths of the label files; "" where an image has none.
      classes: their names.
      fingerprint: of all files.
    """

    def __init__(
        self,
        root: str,
        images: list[str],
        labels: list[str],
        classes: tuple[str, ...],
        fingerprint: str,
    ):
        self.info = DataInfo(classes, fingerprint, frozenset(("image", "objects")))
        self._root, self._images, self._labels = root, images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> Sample:
        name, label = self._images[i], self._labels[i]
        text = ""
        if label:
            with open(os.path.join(self._root, label), encoding="utf-8") as file:
                text = file.read()
        objects = parse_labels(text, label, len(self.info.classes))
        image = read_file(os.path.join(self._root, name), name)
        return {"image": image, "objects": objects._replace(number=i)}

    def example_name(self, i: int) -> str:
        return self._images[i]


def parse_labels(text: str, name: str, num_classes: int) -> Objects:
    """Parse a label file.

    Args:
      name: what an error calls it.

    Raises:
      ValueError: a line is none of a box or polygon, or its class is not listed; names it.
    """
    boxes, labels, masks = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not (words := line.split()):
            continue
        where = f"line {number} of its label file {name!r}"
        try:
            label, *values = int(words[0]), *map(float, words[1:])
        except ValueError:
            raise ValueError(f"{where} is {line[:60]!r}, and must be numbers") from None
        if not 0 <= label < num_classes:
            raise ValueError(
                f"{where} has class {label}, and data.yaml lists {num_classes}, 0 to "
                f"{num_classes - 1}"
            )
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise ValueError(
                f"{where} has {len(values)} numbers behind the class; a box has four, x y width "
                f"height, and a polygon x and y of three corners or more"
            )
        points = np.array(values)
        if len(values) == 4:
            box = np.concatenate([points[:2] - points[2:] / 2, points[:2] + points[2:] / 2])
            masks.append(None)
        else:
            corners = points.reshape(-1, 2)
            box = np.concatenate([corners.min(0), corners.max(0)])
            masks.append(Polygons((corners,)))
        boxes.append(box)
        labels.append(label)
    count = len(labels)
    return Objects(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(labels, np.int64),
        np.zeros(count, bool),
        np.full(count, np.nan),
        tuple(masks),
        relative=True,
    )


def open_yolo(path: str, split: str) -> YoloFolder:
    """Open one split of YOLO's layout.

    `path/data.yaml` has `names`, and for each split the folder of its images (`images/train` or
    `train/images`), or a text file that lists them. Label files lie in the folder whose path has
    `labels` in the place of the last `images`.

    Raises:
      ValueError: the folder is not arranged like this; says what is missing.
    """
    root = find_root(path)
    if remote.is_remote(root):
        raise ValueError(f"yolo:// reads disks, and {path!r} is a remote store; copy it.")
    said = _read_yaml(os.path.join(root, "data.yaml"))
    classes = _class_names(said.get("names"), root)
    keys = SPLITS.get(split, (split,))
    key = next((key for key in keys if said.get(key)), None)
    if key is None:
        known = [k for k, v in said.items() if isinstance(v, str | list) and k != "names"]
        raise ValueError(unknown(f"split of {root!r} (data.yaml)", split, known))
    images, folders = _images_of(said[key], root, str(said.get("path") or ""))
    labels, sizes = _labels_of(images, root, folders)
    text = "".join(f"{a}\0{b}\0{n}\n" for a, b, n in zip(images, labels, sizes))
    fingerprint = short_sha256((f"{classes}\n{text}".encode(),))
    return YoloFolder(root, images, labels, classes, fingerprint)


def _read_yaml(file: str) -> dict[str, Any]:
    import yaml

    if not os.path.isfile(file):
        raise ValueError(
            f"{file!r} does not exist; write it, with names: [cat, dog] and train: images/train."
        )
    try:
        said = yaml.safe_load(read_file(file))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file!r} is no valid YAML: {reason}") from None
    if not isinstance(said, dict):
        raise ValueError(f"{file!r} has no keys; it needs names: and train:.")
    return said


def _class_names(names: Any, root: str) -> tuple[str, ...]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list) or not names or len({*map(str, names)}) < len(names):
        raise ValueError(
            f"names: in {root}/data.yaml must be a list of different names, or numbers from 0 with "
            f"names, such as names: [cat, dog]."
        )
    return tuple(map(str, names))


def _images_of(entry: Any, root: str, base: str) -> tuple[list[str], list[str]]:
    """List images below the root, by name, and the folders that hold them."""
    images, folders = [], []
    for name in entry if isinstance(entry, list) else [entry]:
        place = _place(str(name), root, base)
        if os.path.isdir(place):
            found = [os.path.join(place, file) for file in _files(place, EXTENSIONS)]
        else:
            with open(place, encoding="utf-8") as file:
                lines = [line.strip() for line in file if line.strip()]
            found = [os.path.normpath(os.path.join(os.path.dirname(place), n)) for n in lines]
        if not found:
            raise ValueError(f"{place!r} has no images.")
        images += [os.path.relpath(file, root) for file in found]
    for file in images:
        folder = os.path.dirname(file)
        if folder not in folders:
            folders.append(folder)
    return sorted(images), folders


def _place(name: str, root: str, base: str) -> str:
    """Find a folder or list that data.yaml names, from its `path`, or from where it lies."""
    for start in (os.path.join(root, base), root):
        for tried in (name, name.removeprefix("../")):  # Roboflow's names begin one folder deeper
            place = os.path.normpath(os.path.join(start, tried))
            if os.path.exists(place):
                return place
    raise ValueError(
        f"{root}/data.yaml names {name!r}, which does not exist in {root!r}; write the folder of "
        f"images from there, such as images/train."
    )


def _labels_of(images: list[str], root: str, folders: list[str]) -> tuple[list[str], list[int]]:
    """Find the label file of each image, "" for none, and their sizes."""
    listed = {folder: _label_folder(folder) for folder in folders}
    found: dict[str, int] = {}
    for below in listed.values():
        place = os.path.join(root, below)
        if os.path.isdir(place):
            found |= {os.path.join(below, n): size or 0 for n, size in remote.listing(place)}
    if not any(name.endswith(".txt") for name in found):
        folder = next(iter(listed))
        raise ValueError(
            f"The images of {folder!r} have no label files: {listed[folder]!r} in {root!r} has no "
            f".txt, or is not there."
        )
    labels = []
    for name in images:
        folder, file = os.path.split(name)
        label = os.path.join(listed[folder], os.path.splitext(file)[0] + ".txt")
        labels.append(label if label in found else "")
    return labels, [found.get(label, 0) for label in labels]


def _label_folder(folder: str) -> str:
    """Return the folder of labels: `labels` in the place of the last `images`."""
    before, name, after = f"/{folder}/".rpartition("/images/")
    return (f"{before}/labels/{after}" if name else folder).strip("/")


def _files(folder: str, kinds: frozenset[str]) -> list[str]:
    """List files below a folder with these extensions, by their names."""
    found, pending = [], [""]
    while pending:
        inner = pending.pop()
        for name, size in remote.listing(os.path.join(folder, inner)):
            path = os.path.join(inner, name)
            if size is None and not name.startswith("."):
                pending.append(path)
            elif name.rpartition(".")[2].lower() in kinds and not name.startswith("."):
                found.append(path)
    return sorted(found)
