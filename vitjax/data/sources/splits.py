"""Parts of a data set by name: "train", "test" and slices of them, such as "train[:80%]"."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vitjax.data.source import Sample, Source, class_labels, short_sha256
from vitjax.names import unknown

SPLITS = ("train", "test")


class Split(NamedTuple):
    """A split's name and the bounds of a slice as written: "80%", "100" or None."""

    name: str
    start: str | None
    stop: str | None


class Subset:
    """Some examples of another source, by index."""

    def __init__(self, source: Source, indices: Int[np.ndarray, "N"]):
        fingerprint = short_sha256((source.info.fingerprint.encode(), indices.tobytes()))
        self.info = source.info._replace(fingerprint=fingerprint)
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Sample:
        return self._source[int(self._indices[i])]

    def example_name(self, i: int) -> str:
        return self._source.example_name(int(self._indices[i]))

    def labels(self) -> Int[np.ndarray, "N"]:
        return class_labels(self._source)[self._indices]


def parse_split(text: str, names: tuple[str, ...] | None = SPLITS) -> Split:
    """Parse "train", "test" or a slice by percent or count; `names` None allows any name."""
    match = re.fullmatch(r"(\w+)(?:\[(\d+%?)?:(\d+%?)?\])?", text)
    if not match:
        raise ValueError(
            f"Split {text!r} does not parse; write 'train' or 'test', or a slice by percent or "
            f"count: 'train[:80%]', 'train[100:200]'."
        )
    if names is not None and match[1] not in names:
        raise ValueError(unknown("split", match[1], names))
    return Split(*match.groups())


def take(source: Source, split: Split) -> Source:
    """Take a slice of a source, in the source's order; see `open_source` for its images."""
    if split.start is None and split.stop is None:
        return source
    size = len(source)
    start, stop = _bound(split.start or "0", size), _bound(split.stop or "100%", size)
    if start >= stop:
        raise ValueError(
            f"The slice {split.start or ''}:{split.stop or ''} of the {size} {split.name} images "
            f"is empty; end it after its start."
        )
    order = np.random.Generator(np.random.PCG64(0)).permutation(size)
    return Subset(source, np.sort(order[start:stop]))


def _bound(text: str, size: int) -> int:
    value = round(size * int(text[:-1]) / 100) if text.endswith("%") else int(text)
    if value > size:
        raise ValueError(f"A slice reaches {text} and there are {size} images; end it there.")
    return value
