"""Folders of images with label files, and of pairs of images: `maps://` and `pairs://`."""

import os
from typing import NamedTuple

from vitjax.data.codecs.image import EXTENSIONS, read_file
from vitjax.data.codecs.maps import LabelFile, decode_map
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources import remote
from vitjax.data.sources.folders import find_root
from vitjax.data.sources.map_columns import class_names
from vitjax.names import unknown

SPLITS = {
    "train": ("train", "training"),
    "test": ("val", "validation", "test", "testing"),
    "val": ("val", "validation"),
}
"""Split → names of its folder, the first one that is there."""
IMAGES = ("images", "leftImg8bit", "imgs")
LABELS = ("labels", "annotations", "masks", "gtFine")
INPUTS, TARGETS = (
    ("input", "inputs", "blur", "noisy"),
    ("target", "targets", "groundtruth", "sharp", "gt"),
)
STEMS = ("_leftImg8bit", "_gtFine_labelTrainIds", "_labelTrainIds")
"""Ends of names that do not tell partners apart (Cityscapes)."""
OTHERS = ("_gtFine_color", "_gtFine_instanceIds", "_gtFine_labelIds", "_gtFine_polygons")
"""Ends of names of files that are no maps of training classes (Cityscapes)."""


class Partners(NamedTuple):
    """Files of two folders that belong together, matched by the shared part of their names.

    Attributes:
      first, second: the folders.
      names: (path below `first`, path below `second`) of each pair.
      fingerprint: of their names and sizes.
    """

    first: str
    second: str
    names: list[tuple[str, str]]
    fingerprint: str


class MapFolder:
    """Images and label files of one split, read when they are asked for."""

    def __init__(self, partners: Partners, classes: tuple[str, ...], reduce_zero: bool):
        text = f"{partners.fingerprint} {classes} {reduce_zero}"
        fields = frozenset(("image", "map"))
        self.info = DataInfo(classes, short_sha256((text.encode(),)), fields)
        self._partners, self._reduce_zero = partners, reduce_zero
        first = partners.names[0][1]
        self._palette = decode_map(read_file(os.path.join(partners.second, first), first), first)[1]

    def __len__(self) -> int:
        return len(self._partners.names)

    def __getitem__(self, i: int) -> Sample:
        p = self._partners
        image, labels = p.names[i]
        file = LabelFile(
            read_file(os.path.join(p.second, labels), labels),
            labels,
            len(self.info.classes),
            self._reduce_zero,
            self._palette,
        )
        return {"image": read_file(os.path.join(p.first, image), image), "map": file}

    def example_name(self, i: int) -> str:
        return self._partners.names[i][0]


class PairFolder:
    """Degraded images and their originals, of one split."""

    def __init__(self, partners: Partners):
        fields = frozenset(("image", "target"))
        self.info = DataInfo((), partners.fingerprint, fields)
        self._partners = partners

    def __len__(self) -> int:
        return len(self._partners.names)

    def __getitem__(self, i: int) -> Sample:
        p = self._partners
        image, target = p.names[i]
        return {
            "image": read_file(os.path.join(p.first, image), image),
            "target": read_file(os.path.join(p.second, target), target),
        }

    def example_name(self, i: int) -> str:
        return self._partners.names[i][0]


def open_maps(path: str, split: str, classes: str = "", reduce_zero: int = 0) -> MapFolder:
    """Open one split of a folder of images and label files.

    `path/images/training/a.jpg` and `path/annotations/training/a.png` (ADE20K), `path/train/images`
    and `path/train/labels`, or `path/images` and `path/labels` alone for a set without splits;
    Cityscapes as it comes. Class names stand in `path/classes.txt`, one a line.

    Args:
      classes: a file of names in place of `classes.txt`, or how many there are.
      reduce_zero: 1: the number 0 means that no class is said, as in ADE20K.

    Raises:
      ValueError: the folder is not arranged like this, a partner is missing, or it is not said how
        many classes there are.
    """
    root = find_root(path)
    partners = find_partners(root, split, IMAGES, LABELS, "label file")
    return MapFolder(partners, _class_names(root, classes, path), bool(reduce_zero))


def open_pairs(path: str, split: str) -> PairFolder:
    """Open one split of a folder of pairs: `path/train/input/a.png` and `path/train/target/a.png`.

    Or `path/input/train/a.png`; GoPro's `blur` and `sharp`, SIDD's `noisy` and `gt`.

    Raises:
      ValueError: the folder is not arranged like this, or a partner is missing.
    """
    return PairFolder(find_partners(find_root(path), split, INPUTS, TARGETS, "target"))


def find_partners(
    root: str, split: str, firsts: tuple[str, ...], seconds: tuple[str, ...], what: str
) -> Partners:
    """Find the two folders of a split and the files in them that belong together.

    Raises:
      ValueError: there are no such folders, or a file has no partner; the first ones are named.
    """
    first, second = _folders(root, split, firsts, seconds)
    ours, theirs = _files(first), _files(second)
    if not ours:
        raise ValueError(f"{first!r} has no images.")
    alone = [name for stem, (name, _) in ours.items() if stem not in theirs]
    surplus = [name for stem, (name, _) in theirs.items() if stem not in ours]
    if alone or surplus:
        folder, names = (first, alone) if alone else (second, surplus)
        other = second if alone else first
        more = f" and {len(names) - 1} more" if names[1:] else ""
        raise ValueError(
            f"{names[0]!r}{more} in {folder!r} has no partner in {other!r}: every image needs a "
            f"{what} of the same name, whatever its extension."
        )
    pairs = [(ours[stem], theirs[stem]) for stem in sorted(ours)]
    text = "".join(f"{a}\0{m}\0{b}\0{n}\n" for (a, m), (b, n) in pairs)
    names = [(a, b) for (a, _), (b, _) in pairs]
    below = [os.path.relpath(folder, root) for folder in (first, second)]
    return Partners(first, second, names, short_sha256((f"{below}\n{text}".encode(),)))


def _folders(
    root: str, split: str, firsts: tuple[str, ...], seconds: tuple[str, ...]
) -> tuple[str, str]:
    """Find the folders of both halves of a split, in whatever order split and half are nested."""
    splits = SPLITS.get(split, (split,))

    def inside(folder: str, names: tuple[str, ...]) -> str | None:
        present = {name for name, size in remote.listing(folder) if size is None}
        return next((os.path.join(folder, name) for name in names if name in present), None)

    if base := inside(root, splits):
        first, second = inside(base, firsts), inside(base, seconds)
        if first and second:
            return first, second
    first, second = inside(root, firsts), inside(root, seconds)
    if first and second:
        inner = inside(first, splits), inside(second, splits)
        if inner[0] and inner[1]:
            return inner[0], inner[1]
        deeper = [name for name, size in remote.listing(first) if size is None]
        if not deeper:
            if split not in ("train", "test"):
                raise ValueError(unknown("split", split, ("train", "test")))
            return first, second
    raise ValueError(
        f"{root!r} has no {split!r} split: it needs {firsts[0]}/ and {seconds[0]}/ inside of "
        f"{splits[0]}/, or {splits[0]}/ inside of {firsts[0]}/ and {seconds[0]}/."
    )


def _files(folder: str) -> dict[str, tuple[str, int]]:
    """List image files below a folder with their sizes, by the shared part of their names."""
    found: dict[str, tuple[str, int]] = {}
    pending = [""]
    while pending:
        inner = pending.pop()
        for name, size in remote.listing(os.path.join(folder, inner) if inner else folder):
            path = f"{inner}/{name}" if inner else name
            stem, _, extension = path.rpartition(".")
            if name.startswith("."):
                continue
            if size is None:
                pending.append(path)
            elif extension.lower() in EXTENSIONS and not stem.endswith(OTHERS):
                key = next((stem.removesuffix(s) for s in STEMS if stem.endswith(s)), stem)
                if key in found:
                    raise ValueError(
                        f"{folder!r} has {found[key][0]!r} and {path!r}, and it is not clear which "
                        f"one is meant; remove one."
                    )
                found[key] = path, size
    return found


def _class_names(root: str, classes: str, path: str) -> tuple[str, ...]:
    return class_names(
        classes or os.path.join(root, "classes.txt"),
        f"write the classes' names into it, one a line in the order of their numbers, or say how "
        f"many there are: maps://{path}?classes=150.",
    )
