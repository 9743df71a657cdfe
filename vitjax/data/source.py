"""Interface of a data set: a numbered sequence of samples, and a description of its content."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int64

Sample = dict[str, Any]
"""One example's fields by name, as they are stored.

`image` is an array `[H, W, 3]` of 8 bits, or the bytes of its file, which are decoded where it is
known what for. `label` is a class, several classes, or a weight for each class (a multi-label
source gives one of the latter two), and UNLABELLED where there is none. `map` has a class for each
pixel, and `objects` are those of `objects.Objects`.
"""

UNLABELLED = -1


class DataInfo(NamedTuple):
    """Description of a source's content.

    Attributes:
      classes: class names, in the order of their numbers.
      fingerprint: 16 hexadecimal digits of a SHA-256 that identifies the data, to detect changes.
      fields: names of a sample's fields.
      multi_label: whether an image may have several classes; its target is then a weight for each.
      class_counts: function that counts the images of each class; None if the data is not
        available.
    """

    classes: tuple[str, ...]
    fingerprint: str
    fields: frozenset[str] = frozenset(("image", "label"))
    multi_label: bool = False
    class_counts: Callable[[], Any] | None = None


@runtime_checkable
class Source(Protocol):
    """Protocol of random access to the samples of one split; files are read on access."""

    @property
    def info(self) -> DataInfo: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Sample:
        """Read sample i; BadImage if the file cannot be read, but decoding may still fail later."""
        ...

    def example_name(self, i: int) -> str:
        """Return the name of sample i in messages; of a file its path inside its data set."""
        ...


@runtime_checkable
class TellsLabels(Protocol):
    """Protocol of a source that returns all labels without reading images; see `class_labels`."""

    def labels(self) -> Int[np.ndarray, "N"]:
        """Return the class of each sample, UNLABELLED where there is none."""
        ...


def class_labels(source: Source) -> Int[np.ndarray, "N"]:
    """Return the class of each sample, without reading an image.

    Raises:
      ValueError: an image has several classes or none, or the source does not provide labels.
    """
    needs, info = "Class weights by counts and balanced sampling need", source.info
    if "label" not in info.fields:
        held = ", ".join(sorted(info.fields))
        raise ValueError(f"{needs} a class for each image, and the data has only {held}.")
    if info.multi_label:
        raise ValueError(
            f"{needs} one class an image, and these images may have several; leave them out for "
            f"this data."
        )
    if not isinstance(source, TellsLabels):
        raise ValueError(
            f"{needs} all labels, and the source of {source.example_name(0)!r} cannot tell them "
            f"without reading every image; folder://, tar:// and hf:// can, and "
            f"config.loss.class_weights takes numbers too, one for each class."
        )
    labels = source.labels()
    lacking = np.flatnonzero(labels == UNLABELLED)
    if len(lacking):
        raise ValueError(
            f"{needs} a class for each image, and {len(lacking):,} of {len(labels):,} have none; "
            f"the first is {source.example_name(int(lacking[0]))!r}. Leave them out, or label them."
        )
    return labels


def class_counts(source: Source) -> Int64[np.ndarray, "K"]:
    """Count the samples of each class; errors are those of `class_labels`."""
    return np.bincount(class_labels(source), minlength=len(source.info.classes)).astype(np.int64)


class WithField:
    """Source with an additional field, from values with the same numbers as the samples."""

    def __init__(self, source: Source, name: str, values: Any, fingerprint: str):
        together = short_sha256(f"{source.info.fingerprint} {name} {fingerprint}".encode().split())
        info, fields = source.info, source.info.fields | {name}
        self.info = info._replace(fields=fields, fingerprint=together)
        self._source, self._name, self._values = source, name, values

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> Sample:
        return {**self._source[i], self._name: self._values[i]}

    def example_name(self, i: int) -> str:
        return self._source.example_name(i)

    def labels(self) -> Int[np.ndarray, "N"]:
        return class_labels(self._source)


def renumber(label: Any, numbers: np.ndarray, count: int) -> Any:
    """Convert a label to other class numbers.

    Args:
      label: a class, several, or a weight for each; UNLABELLED stays.
      numbers: new number of each class.
      count: number of the other classes.
    """
    if isinstance(label, np.ndarray) and label.dtype.kind == "f":
        weights = np.zeros(count, np.float32)
        weights[numbers] = label
        return weights
    several = np.atleast_1d(label).tolist()
    renamed = [int(numbers[c]) if c != UNLABELLED else c for c in several]
    return renamed[0] if np.ndim(label) == 0 else renamed


def renumber_sample(sample: Sample, numbers: np.ndarray, count: int) -> Sample:
    """Convert label, class map and objects of a sample to other class numbers; see `renumber`."""
    found = dict(sample)
    if "label" in found:
        found["label"] = renumber(found["label"], numbers, count)
    if "map" in found:
        found["map"] = RenumberedMap(found["map"], numbers)
    if "objects" in found:
        found["objects"] = found["objects"]._replace(classes=numbers[found["objects"].classes])
    return found


class RenumberedMap(NamedTuple):
    """Map of classes with other numbers; values beyond the classes, which mean none, stay."""

    map: Any
    numbers: np.ndarray

    def read(self) -> np.ndarray:
        """Decode the map."""
        labels = self.map.read() if hasattr(self.map, "read") else self.map
        known = labels < len(self.numbers)
        return np.where(known, self.numbers[np.where(known, labels, 0)], labels)


class BadImage(ValueError):
    """Error: an image, `name`, cannot be read, for a `reason`."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"Cannot read image {self.name!r}: {self.reason}."


def short_sha256(parts: Iterable[bytes]) -> str:
    """Compute the first 16 hexadecimal digits of the SHA-256 of the concatenated parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
