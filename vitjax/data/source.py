"""What a data set is to everything else: a numbered sequence of samples, and what is in them."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

Sample = dict[str, Any]
"""One example's fields by name, as they are stored.

`image` is an array `[H, W, 3]` of 8 bits, or the bytes of its file, which are decoded where it is
known what for. `label` is a class, several classes, or a weight for each class (a multi-label
source gives one of the latter two), and UNLABELLED where there is none.
"""

UNLABELLED = -1


class DataInfo(NamedTuple):
    """What a source holds.

    Attributes:
      classes: their names, in the order of their numbers.
      fingerprint: 16 hexadecimal digits of the SHA-256 of what the data is, to notice that it has
        changed.
      fields: names of a sample's fields.
      multi_label: whether an image may have several classes; its target is then a weight for each.
    """

    classes: tuple[str, ...]
    fingerprint: str
    fields: frozenset[str] = frozenset(("image", "label"))
    multi_label: bool = False


@runtime_checkable
class Source(Protocol):
    """Random access to the samples of one split; reads a file when it is asked for it."""

    @property
    def info(self) -> DataInfo: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Sample:
        """Raises BadImage where the image cannot be read; its bytes may still not decode."""
        ...

    def example_name(self, i: int) -> str:
        """What a message calls sample i; a file's path inside its data set."""
        ...


class WithField:
    """A source whose samples have one field more, from values with the samples' numbers."""

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


def renumber(label: Any, numbers: np.ndarray, count: int) -> Any:
    """Give a label in other classes' numbers.

    Args:
      label: a class, several, or a weight for each; UNLABELLED stays.
      numbers: of each class.
      count: of the other classes.
    """
    if isinstance(label, np.ndarray) and label.dtype.kind == "f":
        weights = np.zeros(count, np.float32)
        weights[numbers] = label
        return weights
    several = np.atleast_1d(label).tolist()
    renamed = [int(numbers[c]) if c != UNLABELLED else c for c in several]
    return renamed[0] if np.ndim(label) == 0 else renamed


class BadImage(ValueError):
    """An image that cannot be read: whose it is (`name`) and why (`reason`)."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"Cannot read image {self.name!r}: {self.reason}."


def short_sha256(parts: Iterable[bytes]) -> str:
    """Give the first 16 hexadecimal digits of the SHA-256 of the parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
