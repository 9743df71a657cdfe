"""A folder of pictures as a data set: one folder per class, any common format and size."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from vitjax.data.codecs.image import EXTENSIONS, read_file
from vitjax.data.source import DataInfo, Sample, short_sha256
from vitjax.data.sources import remote
from vitjax.data.sources.folders import check_folder

T = TypeVar("T")
TEST_FRACTION = 0.2
_LISTING = 16  # folders that are listed at once: a remote store takes its time to answer
LAYOUT = "put each class's images into a folder of its own: photos/cat/1.jpg, photos/dog/2.jpg"


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


def open_folder(path: str, split: str, test_fraction: float | None = None) -> ImageFolder:
    """One split of `path/train/<class>/*`, `path/test/<class>/*` (or `val`), or `path/<class>/*`.

    Hidden files and files of other formats are left out, and so are folders inside a class's.
    Class names are the folders' names in alphabetical order, and so are the files in a class.

    Args:
      path: the folder; `~` is the home folder, and `gs://…` or `s3://…` a remote store's.
      split: "train" or "test".
      test_fraction: hold out this share of every class as "test", at least one image and never
        all, where there is no folder for it; None is a fifth if there is no `train/` either. Which
        ones depends on the files' names only: of n sorted names, the first of
        `numpy.random.Generator(PCG64(0)).permutation(n)`.

    Raises:
      ValueError: the folder is not there or not arranged like this.
    """
    root = os.path.expanduser(path)
    root = root.rstrip("/") or root
    check_folder(root)
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction={test_fraction} must lie between 0 and 1, as 0.2 does.")
    parts = _folders(root)
    held_out = next((name for name in ("test", "val") if name in parts), None)
    base = "train" if "train" in parts else ""
    if held_out and not base:
        raise ValueError(f"Folder {path!r} has {held_out}/ and no train/; add train/<class>/.")
    if held_out and test_fraction is not None:
        raise ValueError(f"Folder {path!r} has {held_out}/ already; leave test_fraction out.")
    if test_fraction is None and not base:
        test_fraction = TEST_FRACTION
    if split == "test" and not held_out and test_fraction is None:
        raise ValueError(
            f"Folder {path!r} has no test images: add test/<class>/ beside train/<class>/, or hold "
            f"some out with 'folder://{path}?test_fraction=0.2'."
        )
    class_names = _class_names(os.path.join(root, base))
    if split == "test" and held_out:
        base = held_out
        _check_same(class_names, _class_names(os.path.join(root, base)), path, base)

    folders = tuple(f"{base}/{name}" if base else name for name in class_names)
    names: list[str] = []
    counts: list[int] = []
    hashed: list[bytes] = []
    with ThreadPoolExecutor(_LISTING) as pool:
        listings = list(pool.map(_images, (os.path.join(root, folder) for folder in folders)))
    for folder, files in zip(folders, listings):
        if not files:
            raise ValueError(_no_images(os.path.join(root, folder), folder, path))
        if test_fraction is not None:
            files = _part(files, split, test_fraction, folder)
        names += [name for name, _ in files]
        counts.append(len(files))
        listing = "".join(f"{name}\0{size}\n" for name, size in files)
        hashed.append(os.fsencode(f"{folder}\0{listing}"))
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return ImageFolder(root, folders, class_names, names, labels, short_sha256(hashed))


def _folders(path: str) -> list[str]:
    found = remote.listing(path)
    return sorted(name for name, size in found if size is None and not name.startswith("."))


def _images(path: str) -> list[tuple[str, int]]:
    return sorted(
        (name, size)
        for name, size in remote.listing(path)
        if size is not None
        and name.rpartition(".")[2].lower() in EXTENSIONS
        and not name.startswith(".")
    )


def _part(files: list[T], split: str, test_fraction: float, folder: str) -> list[T]:
    count = len(files)
    if count < 2:
        raise ValueError(f"Class {folder!r} has one image, and a split needs two; add another.")
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    num_test = min(max(round(count * test_fraction), 1), count - 1)
    chosen = order[:num_test] if split == "test" else order[num_test:]
    return [files[i] for i in np.sort(chosen)]


def _class_names(path: str) -> tuple[str, ...]:
    if names := tuple(_folders(path)):
        return names
    if _images(path):
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


def _no_images(folder: str, name: str, path: str) -> str:
    inner = _folders(folder)
    if inner:
        return f"Class {name!r} of {path!r} holds folders ({inner[0]}, …) and no images; {LAYOUT}."
    return f"Class {name!r} of {path!r} has no images; add some (jpg, png, webp, …) or remove it."
