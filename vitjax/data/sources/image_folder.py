"""A folder of pictures as a data set: one folder per class, any common format and size."""

import logging
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from vitjax.data.codecs.image import ARRAYS, EXTENSIONS, read_file
from vitjax.data.codecs.video import EXTENSIONS as VIDEOS
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources import remote
from vitjax.data.sources.folders import VALIDATION, find_root
from vitjax.data.sources.videos import Videos, check_local
from vitjax.names import check_choice, unknown

_log = logging.getLogger(__name__)

T = TypeVar("T")
TEST_FRACTION = 0.2
_LISTING = 16  # folders that are listed at once: a remote store takes its time to answer
LAYOUT = "put each class's images into a folder of its own: photos/cat/1.jpg, photos/dog/2.jpg"
FILES = {"pictures": EXTENSIONS, "npy": ARRAYS, "videos": VIDEOS}
"""Which files are the images → their extensions."""


class ImageFolder:
    """Images below `root`, read when they are asked for; a million cost one string each."""

    def __init__(
        self,
        root: str,
        folders: tuple[str, ...],
        class_names: tuple[str, ...],
        names: list[str],
        labels: Int[np.ndarray, "N"],
        fingerprint: str,
    ):
        self.info = DataInfo(class_names, fingerprint)
        self._root, self._folders, self._names, self._labels = root, folders, names, labels

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> Sample:
        name = self.example_name(i)
        image = read_file(os.path.join(self._root, name), name)
        return {"image": image, "label": int(self._labels[i])}

    def example_name(self, i: int) -> str:
        return f"{self._folders[self._labels[i]]}/{self._names[i]}"

    def labels(self) -> Int[np.ndarray, "N"]:
        return self._labels


def open_folder(
    path: str, split: str, test_fraction: float | None = None, files: str = "pictures"
) -> ImageFolder | Videos:
    """Open one split of `path/<split>/<class>/**`, or of `path/<class>/**`.

    Where there is a folder `train`, each folder beside it is a split by its own name; "test" is
    `val`, `validation` or `valid` where there is no `test`. A folder of classes alone has the
    splits "train" and "test", which are drawn, and "all".

    Hidden files and files of other formats are left out. Images in folders below a class's are of
    that class, and their number is logged. Class names are the folders' names in alphabetical
    order, and so are the files in a class.

    Args:
      path: the folder; `~` is the home folder, and `gs://…` or `s3://…` a remote store's.
      split: its name.
      test_fraction: hold out this share of every class as "test", at least one image and never
        all, where there is no folder for it; None is a fifth if there is no `train/` either. Which
        ones depends on the files' names only: of n sorted names, the first of
        `numpy.random.Generator(PCG64(0)).permutation(n)`.
      files: "pictures"; "npy" for arrays of NumPy `[H, W]` or `[H, W, C]`, of 8 or 16 bits; or
        "videos", whose samples have a clip in place of an image.

    Raises:
      ValueError: the folder or the split is not there, or it is not arranged like this.
    """
    check_choice("kind of files", files, FILES)
    kinds = FILES[files]
    if files == "videos":
        check_local(path)
    root = find_root(path)
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction={test_fraction} must lie between 0 and 1, as 0.2 does.")
    parts = _folders(root)
    base, test_fraction = _choose(parts, path, split, test_fraction)
    class_names = _class_names(os.path.join(root, base), kinds)
    if base not in ("", "train") and "train" in parts:
        _check_same(_class_names(os.path.join(root, "train"), kinds), class_names, path, base)

    folders = tuple(f"{base}/{name}" if base else name for name in class_names)
    names: list[str] = []
    counts: list[int] = []
    total, below, example = 0, 0, ""
    hashed: list[bytes] = []
    with ThreadPoolExecutor(_LISTING) as pool:
        paths = (os.path.join(root, folder) for folder in folders)
        listings = list(pool.map(lambda path: _images(path, kinds), paths))
    for folder, found in zip(folders, listings):
        inner = [name for name, _ in found if "/" in name]
        if not found or (len(inner) == len(found) and len(folders) == 1):
            raise ValueError(_no_images(os.path.join(root, folder), folder, path, files))
        if inner and not below:
            example = f"{folder}/{inner[0]}"
        total, below = total + len(found), below + len(inner)
        if test_fraction is not None:
            found = _part(found, split, test_fraction, folder)
        names += [name for name, _ in found]
        counts.append(len(found))
        listing = "".join(f"{name}\0{size}\n" for name, size in found)
        hashed.append(os.fsencode(f"{folder}\0{listing}"))
    if below:
        _log.warning(
            "%s of %s images of %r lie in folders below their class's, such as %r, and are of that "
            "class.",
            f"{below:,}",
            f"{total:,}",
            path,
            example,
        )
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    source = ImageFolder(root, folders, class_names, names, labels, short_sha256(hashed))
    if files != "videos":
        return source
    paths = [source.example_name(i) for i in range(len(source))]
    return Videos(root, paths, labels, class_names, source.info.fingerprint)


def _choose(
    parts: list[str], path: str, split: str, test_fraction: float | None
) -> tuple[str, float | None]:
    """Choose the folder of a split ("" for the root), and the share of it that is held out."""
    held_out = next((name for name in ("test", *VALIDATION) if name in parts), "")
    if "train" not in parts:
        held_out = held_out if held_out in ("test", "val") else ""  # others are classes' names
        if held_out and split not in parts:
            raise ValueError(f"Folder {path!r} has {held_out}/ and no train/; add train/<class>/.")
    if held_out and test_fraction is not None:
        raise ValueError(f"Folder {path!r} has {held_out}/ already; leave test_fraction out.")
    if "train" in parts or held_out:
        if split == "test" and not held_out and test_fraction is None:
            raise ValueError(
                f"Folder {path!r} has no test images: add test/<class>/ beside train/<class>/, or "
                f"hold some out with 'folder://{path}?test_fraction=0.2'."
            )
        base = held_out or "train" if split == "test" else split
        if base not in parts:
            raise ValueError(unknown(f"split of folder {path!r}", split, parts))
        return base, test_fraction if split in ("train", "test") else None
    if split not in ("train", "test", "all"):
        raise ValueError(unknown("split", split, ("train", "test", "all")))
    if split == "all":
        if test_fraction is not None:
            raise ValueError(
                f"test_fraction={test_fraction} holds images out, and the split 'all' none; leave "
                f"one of them out."
            )
        return "", None
    return "", TEST_FRACTION if test_fraction is None else test_fraction


def _folders(path: str) -> list[str]:
    found = remote.listing(path)
    return sorted(name for name, size in found if size is None and not name.startswith("."))


def _images(
    path: str, kinds: Collection[str], above: tuple[str, ...] = ()
) -> list[tuple[str, int]]:
    """List files of these kinds in a folder and in those below it, with sizes, by their names."""
    here = path if remote.is_remote(path) else os.path.realpath(path)
    if here in above:  # a link leads back
        return []
    images = []
    for name, size in remote.listing(path):
        if name.startswith("."):
            continue
        if size is None:
            inner = _images(os.path.join(path, name), kinds, (*above, here))
            images += [(f"{name}/{file}", number) for file, number in inner]
        elif name.rpartition(".")[2].lower() in kinds:
            images.append((name, size))
    return sorted(images)


def _part(files: list[T], split: str, test_fraction: float, folder: str) -> list[T]:
    count = len(files)
    if count < 2:
        raise ValueError(f"Class {folder!r} has one image, and a split needs two; add another.")
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    num_test = min(max(round(count * test_fraction), 1), count - 1)
    chosen = order[:num_test] if split == "test" else order[num_test:]
    return [files[i] for i in np.sort(chosen)]


def _class_names(path: str, kinds: Collection[str]) -> tuple[str, ...]:
    if names := tuple(_folders(path)):
        return names
    if _images(path, kinds):
        raise ValueError(f"Images lie directly in {path!r} and have no class; {LAYOUT}.")
    raise ValueError(f"Folder {path!r} is empty; {LAYOUT}.")


def _check_same(train: tuple[str, ...], test: tuple[str, ...], path: str, base: str) -> None:
    if train != test:
        missing, extra = sorted(set(train) - set(test)), sorted(set(test) - set(train))
        said = [f"{base}/ lacks {', '.join(missing)}"] if missing else []
        said += [f"train/ lacks {', '.join(extra)}"] if extra else []
        raise ValueError(
            f"The classes of train/ and {base}/ in {path!r} differ: {'; '.join(said)}."
        )


def _no_images(folder: str, name: str, path: str, files: str) -> str:
    inner = _folders(folder)
    if inner:
        return f"Class {name!r} of {path!r} holds folders ({inner[0]}, …) and no images; {LAYOUT}."
    if files == "videos":
        return f"Class {name!r} of {path!r} has no videos; add some (mp4, mkv, avi, …)."
    if files == "npy":
        return f"Class {name!r} of {path!r} has no .npy files; add some, or leave files=npy out."
    if _images(folder, ARRAYS):
        return (
            f"Class {name!r} of {path!r} has .npy files and no pictures; write "
            f"'folder://{path}?files=npy' to read the arrays."
        )
    return f"Class {name!r} of {path!r} has no images; add some (jpg, png, webp, …) or remove it."
