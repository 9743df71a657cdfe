"""Tar files in WebDataset's layout, with random access: an index of offsets instead of streaming.

Files that share a name up to its first dot are one sample: an image, and `.cls` (a number) or
`.json` (with "label"). Headers are read once, when a tar file is first met, and the index is kept
in the user's cache folder.
"""

import glob
import io
import json
import os
import pathlib
import re
import tarfile
from typing import Any

import numpy as np
from jaxtyping import Int64

from vitjax.data.codecs.image import EXTENSIONS
from vitjax.data.source import UNLABELLED, BadImage, DataInfo, Sample, short_sha256
from vitjax.data.sources import remote


class Tars:
    """The samples of some tar files, in order; an image is read when it is asked for."""

    def __init__(self, paths: list[str], tables: list[Int64[np.ndarray, "n 3"]], classes: int):
        self._paths = paths
        self._shard = np.repeat(np.arange(len(paths)), [len(table) for table in tables])
        self._table = np.concatenate(tables)  # offset, size, label
        labels = self._table[:, 2]
        classes = classes or int(labels.max(initial=UNLABELLED)) + 1
        wrong = np.flatnonzero((labels >= classes) | (labels < UNLABELLED))
        if len(wrong):
            raise ValueError(
                f"{self.example_name(int(wrong[0]))} has label {labels[wrong[0]]}, and there are "
                f"{classes} classes, 0 to {classes - 1}; raise ?classes=."
            )
        names = "\0".join(os.path.basename(path) for path in paths)
        fingerprint = short_sha256((names.encode(), self._table.astype("<i8").tobytes()))
        self.info = DataInfo(tuple(map(str, range(classes))), fingerprint)

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
        return {"image": data, "label": label}

    def example_name(self, i: int) -> str:
        return f"{self._paths[self._shard[i]]} at byte {self._table[i, 0]}"


def open_tars(path: str, split: str, classes: int = 0) -> Tars:
    """`tar:///shards/{split}-{000..099}.tar`, a pattern with `*`, or a folder of tar files.

    Args:
      path: local, or on what fsspec reads (`tar://gs://bucket/train-*.tar`); `{split}` stands for
        the split, and a path without it has one split by any name.
      split: its name.
      classes: how many there are; 0 for the largest label and one.

    Raises:
      ValueError: there are no such files, no samples, or labels out of range.
    """
    if not path:
        raise ValueError("tar:// needs a path: tar:///shards/train-{000..099}.tar.")
    paths = _paths(os.path.expanduser(path.replace("{split}", split)))
    if not paths:
        raise ValueError(f"There is no tar file {path!r} (split {split!r}); check the path.")
    tables = [_index(p) for p in paths]
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


def _index(path: str) -> Int64[np.ndarray, "n 3"]:
    """Offset, size and label of each image; from the cache if the file has not changed."""
    if remote.is_remote(path):
        files, inner = remote.filesystem(path)
        state, opened = f"{path} {files.size(inner)}", lambda: files.open(inner, "rb")
    else:
        status = os.stat(path)
        state = f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"
        opened = lambda: open(path, "rb")  # noqa: E731, SIM115
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cached = pathlib.Path(base, "vitjax", f"tar-{short_sha256((state.encode(),))}.npy")
    if cached.exists():
        return np.load(cached)
    with opened() as file:
        table = _scan(file, path)
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


def _scan(file: Any, path: str) -> Int64[np.ndarray, "n 3"]:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                key, kind = f"{folder}/{stem}", extension.rpartition(".")[2].lower()
                if not member.isfile():
                    continue
                if kind in EXTENSIONS:
                    images[key] = (member.offset_data, member.size)
                elif kind in ("cls", "json") and (part := tar.extractfile(member)):
                    text = part.read()
                    value = int(text) if kind == "cls" else json.loads(text).get("label")
                    if value is not None:
                        labels[key] = int(value)
    except (tarfile.TarError, ValueError, TypeError) as error:
        raise ValueError(f"Tar file {path!r} is damaged or no sample file: {error}.") from error
    rows = [(*place, labels.get(key, UNLABELLED)) for key, place in images.items()]
    return np.array(rows, np.int64).reshape(-1, 3)
