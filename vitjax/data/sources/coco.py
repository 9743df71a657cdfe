"""COCO's layout: `coco:///coco`, images and one JSON file of objects for each split.

Categories become classes in the order of their ids. Masks are made of the file's numbers when an
image is asked for.
"""

import logging
import os
import re

from vitjax.data.codecs.image import read_file
from vitjax.data.objects import Objects
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources import remote
from vitjax.data.sources.coco_annotations import Annotations, parse_annotations
from vitjax.data.sources.folders import find_root
from vitjax.names import unknown

_log = logging.getLogger(__name__)

SPLITS = {
    "train": ("train", "training"),
    "test": ("val", "valid", "validation", "test"),
    "val": ("val", "valid", "validation"),
}
"""Split → names of its files, the first one that is there."""
INSIDE = "_annotations.coco.json"
"""Roboflow's name of a file of annotations beside the images."""
LARGE = 50_000_000
"""Bytes of a file that takes seconds to read, which is logged."""


class CocoFolder:
    """Images of one split, read when they are asked for, and their objects."""

    def __init__(self, folder: str, annotations: Annotations, fingerprint: str):
        self.info = DataInfo(annotations.classes, fingerprint, frozenset(("image", "objects")))
        self._folder, self._annotations = folder, annotations

    def __len__(self) -> int:
        return len(self._annotations.files)

    def __getitem__(self, i: int) -> Sample:
        a = self._annotations
        own, name = slice(a.starts[i], a.starts[i + 1]), a.files[i]
        masks = tuple(a.masks[row] for row in a.rows[own].tolist())
        height, width = a.sizes[i].tolist()
        objects = Objects(
            a.boxes[own], a.labels[own], a.crowd[own], a.areas[own], masks,
            size=(height, width), number=i,
        )  # fmt: skip
        return {"image": read_file(os.path.join(self._folder, name), name), "objects": objects}

    def example_name(self, i: int) -> str:
        return self._annotations.files[i]


def open_coco(path: str, split: str, annotations: str = "", images: str = "") -> CocoFolder:
    """Open one split of COCO's layout.

    `path/annotations/instances_train2017.json` and `path/train2017/` (or `path/images/train2017/`),
    or `path/train/_annotations.coco.json` beside the images, as Roboflow writes it.

    Args:
      split: "train", "test" (which is `val`, where there is one), or a name such as "val2017".
      annotations, images: the file and the folder, below `path`, where they are called otherwise.

    Raises:
      ValueError: they are not there, or the annotations are not as they must be; says what.
    """
    root = find_root(path)
    file, folder = _places(root, split, annotations, images)
    name = os.path.relpath(file, root) if file.startswith(root) else file
    data = read_file(file, name)
    if len(data) > LARGE:
        _log.info("Reading %r, %d MB.", name, len(data) // 1_000_000)
    found = parse_annotations(data, name)
    sizes = _check_files(found.files, folder, name)
    text = "".join(f"{file}\0{size}\n" for file, size in zip(found.files, sizes))
    return CocoFolder(folder, found, short_sha256((data, text.encode())))


def _check_files(files: list[str], folder: str, name: str) -> list[int]:
    """Return the files' sizes; ValueError if one is missing."""
    sizes: dict[str, int] = {}
    for below in sorted({os.path.dirname(file) for file in files}):
        place = os.path.join(folder, below) if below else folder
        if remote.is_remote(place) or os.path.isdir(place):
            listed = remote.listing(place)
            sizes |= {os.path.join(below, n): size for n, size in listed if size is not None}
    missing = [file for file in files if file not in sizes]
    if missing:
        more = f" and {len(missing) - 1:,} other images" if missing[1:] else ""
        raise ValueError(
            f"{name!r} names {missing[0]!r}{more}, not to be found in {folder!r}; copy them there, "
            f"or say where they lie with ?images=FOLDER."
        )
    return [sizes[file] for file in files]


def _places(root: str, split: str, annotations: str, images: str) -> tuple[str, str]:
    """Find the annotation file of a split, and the folder of its images."""
    folders = [name for name, size in remote.listing(root) if size is None]
    names = SPLITS.get(split, (split,))
    file = annotations or next(filter(None, (_file(root, folders, name) for name in names)), "")
    if not file:
        raise ValueError(
            f"{root!r} has no annotations of the split {split!r}: it needs "
            f"annotations/instances_{names[0]}….json, or {names[0]}/{INSIDE}; ?annotations=FILE "
            f"names another."
        )
    stem = re.sub(r"^instances_|\.json$", "", os.path.basename(file))
    if not images and os.path.basename(file) == INSIDE:
        images = os.path.dirname(file)
    return os.path.join(root, file), os.path.join(root, images or _images(root, folders, stem))


def _file(root: str, folders: list[str], name: str) -> str:
    """Choose the annotation file of a split, below the root; "" if there is none."""
    form = re.compile(rf"(?:instances_)?{re.escape(name)}(?:\d{{4}})?\.json")
    there = remote.listing(os.path.join(root, "annotations")) if "annotations" in folders else ()
    found = sorted(file for file, _ in there if form.fullmatch(file))
    found = [file for file in found if file.startswith("instances_")] or found
    if len(found) > 1:
        years = [re.sub(r"^instances_|\.json$", "", file) for file in found]
        raise ValueError(
            f"Several files are annotations of {name!r}: {', '.join(found)}. Say which with the "
            f"split: ?split={years[-1]}."
        )
    if found:
        return f"annotations/{found[0]}"
    beside = remote.listing(os.path.join(root, name)) if name in folders else ()
    return f"{name}/{INSIDE}" if any(file == INSIDE for file, _ in beside) else ""


def _images(root: str, folders: list[str], name: str) -> str:
    """Choose the folder of a split's images, below the root."""
    if name in folders:
        return name
    if "images" in folders:
        inner = [n for n, size in remote.listing(os.path.join(root, "images")) if size is None]
        return f"images/{name}" if name in inner else "images"
    message = unknown(f"folder of images in {root!r}", name, folders)
    raise ValueError(f"{message} ?images=FOLDER names it.")
