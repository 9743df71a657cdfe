"""Tar files in WebDataset's layout, with random access: an index of offsets instead of streaming.

Files that share a folder and a base name up to its first dot are one sample; the rest of the name
is their extension. The image is the one whose extension is an image's and no more (`0001.png`, not
`0001.mask.png`), and its class is in `.cls` (a number) or `.json` (with "label"). Headers are read
once, when a tar file is first met, and the index is kept in the user's cache folder.
"""

import glob
import io
import json
import os
import re
import tarfile
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from vitjax.data.codecs.image import EXTENSIONS
from vitjax.data.source import UNLABELLED, BadImage, DataInfo, Sample, short_sha256
from vitjax.data.sources import remote
from vitjax.folders import cache_folder

_RULES = 2  # raised with what `_scan` makes of a file, so that older indexes are not read


class Tars:
    """The samples of some tar files, in order; an image is read when it is asked for.

    Args:
      paths: of the files.
      tables: of each, the offset, size and label of its images.
      classes: how many there are; None for the largest label and one, 0 for images alone.

    Raises:
      ValueError: a sample has no label, or one out of range.
    """

    def __init__(
        self, paths: list[str], tables: list[Int64[np.ndarray, "n 3"]], classes: int | None
    ):
        self._paths = paths
        self._shard = np.repeat(np.arange(len(paths)), [len(table) for table in tables])
        self._table = np.concatenate(tables)  # offset, size, label
        labels, self._labelled = self._table[:, 2], classes != 0
        if self._labelled:
            self._check_labelled()
            classes = classes or int(labels.max(initial=UNLABELLED)) + 1
            self._check_range(classes)
        names = "\0".join(os.path.basename(path) for path in paths)
        fingerprint = short_sha256((names.encode(), self._table.astype("<i8").tobytes()))
        fields = frozenset(("image", "label") if self._labelled else ("image",))
        self.info = DataInfo(tuple(map(str, range(classes or 0))), fingerprint, fields)

    def _check_labelled(self) -> None:
        lacking = np.flatnonzero(self._table[:, 2] == UNLABELLED)
        if len(lacking):
            raise ValueError(
                f"{len(lacking):,} of the {len(self):,} samples have no label, the first is "
                f"{self.example_name(int(lacking[0]))}. A label is a number in 0001.cls, or "
                f'"label" in 0001.json: add them, remove those samples, or write ?classes=0 for a '
                f"task that reads images alone."
            )

    def _check_range(self, classes: int) -> None:
        labels = self._table[:, 2]
        wrong = np.flatnonzero((labels >= classes) | (labels < 0))
        if len(wrong):
            raise ValueError(
                f"{self.example_name(int(wrong[0]))} has label {labels[wrong[0]]}, and there are "
                f"{classes} classes, 0 to {classes - 1}; raise ?classes=, or repair the label."
            )

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, i: int) -> Sample:
        offset, size, label = (int(x) for x in self._table[i])
        try:
            data = _read(self._paths[self._shard[i]], offset, size)
        except OSError as error:
            raise BadImage(self.example_name(i), error.strerror or str(error)) from error
        if len(data) < size:
            raise BadImage(self.example_name(i), "its tar file is truncated")
        return {"image": data, "label": label} if self._labelled else {"image": data}

    def example_name(self, i: int) -> str:
        return f"{self._paths[self._shard[i]]} at byte {self._table[i, 0]}"

    def labels(self) -> Int[np.ndarray, "N"]:
        return self._table[:, 2]


def open_tars(path: str, split: str, classes: int | None = None) -> Tars:
    """Open `tar:///shards/{split}-{000..099}.tar`, a pattern with `*`, or a folder of tar files.

    Args:
      path: local, or on what fsspec reads (`tar://gs://bucket/train-*.tar`); `{split}` stands for
        the split, and a path without it has one split by any name.
      split: its name.
      classes: how many there are; None for the largest label and one, 0 for images alone, whose
        labels are not asked for.

    Raises:
      ValueError: there are no such files, no samples, two images or labels in one sample, or labels
        that are missing or out of range.
    """
    if not path:
        raise ValueError("tar:// needs a path: tar:///shards/train-{000..099}.tar.")
    paths = _paths(os.path.expanduser(path.replace("{split}", split)))
    if not paths:
        raise ValueError(f"There is no tar file {path!r} (split {split!r}); check the path.")
    tables = [_index(p, classes != 0) for p in paths]
    if not sum(map(len, tables)):
        raise ValueError(
            f"The {len(paths)} tar files of {path!r} hold no samples; each needs an image such as "
            f"0001.jpg, and its class in 0001.cls."
        )
    return Tars(paths, tables, classes)


def _paths(pattern: str) -> list[str]:
    if match := re.search(r"\{(\d+)\.\.(\d+)\}", pattern):
        first, last = match.groups()
        numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
        return [p for n in numbers for p in _paths(pattern.replace(match[0], n, 1))]
    if remote.is_remote(pattern):
        files, inner = remote.filesystem(pattern)
        return sorted(files.unstrip_protocol(p) for p in files.glob(inner))
    if os.path.isdir(pattern):
        return sorted(glob.glob(os.path.join(glob.escape(pattern), "*.tar")))
    if "*" not in pattern and not os.path.exists(pattern):
        raise ValueError(f"Tar file {pattern!r} is missing; copy it again, or correct the range.")
    return sorted(glob.glob(pattern))


def _read(path: str, offset: int, size: int) -> bytes:
    if remote.is_remote(path):
        return remote.read(path, offset, offset + size)
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def _index(path: str, labelled: bool) -> Int64[np.ndarray, "n 3"]:
    """Read offset, size and label of each image; from the cache if the file is unchanged."""
    if remote.is_remote(path):
        files, inner = remote.filesystem(path)
        state, opened = f"{path} {files.size(inner)}", lambda: files.open(inner, "rb")
    else:
        status = os.stat(path)
        state = f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"
        opened = lambda: open(path, "rb")  # noqa: E731, SIM115
    state = f"{_RULES} {labelled} {state}"
    cached = cache_folder() / "vitjax" / f"tar-{short_sha256((state.encode(),))}.npy"
    if cached.exists():
        return np.load(cached)
    with opened() as file:
        table = _scan(file, path, labelled)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, table)
        temporary = cached.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(cached)
    except OSError:
        pass  # no cache, no harm: the headers are read again next time
    return table


def _scan(file: Any, path: str, labelled: bool) -> Int64[np.ndarray, "n 3"]:
    """Read a file's headers, and its labels if they are wanted.

    Raises:
      ValueError: it is damaged, or it is not clear which image or label is a sample's.
    """
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, tuple[int, str]] = {}
    others: dict[str, str] = {}  # members that end like images, and are other fields
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, kind = base.partition(".")
                key, kind = f"{folder}/{stem}", kind.lower()
                if kind in EXTENSIONS:
                    if key in images:
                        raise ValueError(_two(path, images[key].name, member.name, "images"))
                    images[key] = member
                elif kind in ("cls", "json"):
                    if not labelled or (part := tar.extractfile(member)) is None:
                        continue
                    label = _label(part.read(), kind, member.name, path)
                    if label == UNLABELLED:
                        continue
                    known, name = labels.setdefault(key, (label, member.name))
                    if known != label:
                        raise ValueError(_two(path, name, member.name, "labels"))
                elif kind.rpartition(".")[2] in EXTENSIONS:
                    others.setdefault(key, member.name)
    except tarfile.TarError as error:
        raise ValueError(f"Tar file {path!r} is damaged: {error}.") from error
    if lost := next((name for key, name in others.items() if key not in images), None):
        stem, _, kind = lost.rpartition("/")[2].partition(".")
        raise ValueError(
            f"Tar file {path!r} has no image for its sample {stem!r}: {lost!r} is its field "
            f"{kind!r}, as the name ends at the first dot. Add the image, such as {stem}.jpg, or "
            f"rename the file without other dots."
        )
    rows = [
        (member.offset_data, member.size, labels.get(key, (UNLABELLED, ""))[0])
        for key, member in images.items()
    ]
    return np.array(rows, np.int64).reshape(-1, 3)


def _label(data: bytes, kind: str, name: str, path: str) -> int:
    """Read a label; UNLABELLED where a JSON file has none."""
    value: Any = data.strip().decode("utf-8", "replace")
    if kind == "json":
        try:
            value = json.loads(data)
        except ValueError as error:
            raise ValueError(f"{name!r} in tar file {path!r} is no JSON ({error}).") from None
        value = value.get("label", UNLABELLED) if isinstance(value, dict) else UNLABELLED
    if isinstance(value, float) and value.is_integer():  # as tables write whole numbers
        value = int(value)
    number = int(value) if re.fullmatch(r"\s*-?\d{1,9}\s*", str(value)) else None
    if value is None or number == UNLABELLED:
        return UNLABELLED
    if number is None or number < 0:
        raise ValueError(
            f"{name!r} in tar file {path!r} has label {value!r}; a label is the number of a class, "
            f"0 or more. Repair it, or write ?classes=0 for a task that reads images alone."
        )
    return number


def _two(path: str, first: str, second: str, what: str) -> str:
    return (
        f"Tar file {path!r} has two {what} for one sample, {first!r} and {second!r}; keep one, or "
        f"give the other an extension of its own, such as 0001.mask.png."
    )
