"""A run's data: the training source, and the evaluations, which have its classes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vitjax.data.source import DataInfo, Sample, Source, renumber, short_sha256
from vitjax.data.sources import open_source

MAIN = "test"
"""The evaluation by which checkpoints are compared."""


class Data(NamedTuple):
    """Sources of a run.

    Attributes:
      train: what is learnt.
      evals: name → what is measured, `MAIN` among them, with the classes of `train` in its order.
    """

    train: Source
    evals: Mapping[str, Source]

    def facts(self) -> dict[str, dict[str, Any]]:
        """Say what the data is, to notice later that it has changed."""
        sources = {"training": self.train, **self.evals}
        return {
            name: {
                "fingerprint": source.info.fingerprint,
                "images": len(source),
                "multi_label": source.info.multi_label,
            }
            for name, source in sources.items()
        }


def open_data(config: Any) -> Data:
    """Open what `config.data` and `config.evals` name.

    Raises:
      ValueError: as `open_source`, or an evaluation has other classes.
    """
    d = config.data
    train = open_source(d.train, d.train_split)
    uris = {MAIN: (d.test or d.train, d.test_split)}
    uris |= {name: (uri, "test") for name, uri in config.evals.items()}
    evals = {}
    for name, (uri, split) in uris.items():
        field = "config.data.test" if name == MAIN else f"config.evals.{name}"
        evals[name] = with_classes(open_source(uri, split), train.info, field)
    return Data(train, evals)


def with_classes(source: Source, info: DataInfo, name: str) -> Source:
    """Give a source the class numbers of other data, by the classes' names.

    It may lack some of the classes. A source without names has the numbers for names.

    Args:
      info: of the other data.
      name: what a message calls the source.

    Raises:
      ValueError: it has classes that the other data has not; both are named.
    """
    own, classes = source.info.classes, info.classes
    if own == classes:
        return source
    if not set(own) <= set(classes):
        alien = [c for c in own if c not in set(classes)]
        missing = [c for c in classes if c not in set(own)]
        lacks = f", and lacks {_some(missing)}" if missing else ""
        raise ValueError(
            f"{name} has classes that the training data has not: {_some(alien)}{lacks}. It has "
            f"{len(own)} classes and the training data {len(classes)}; give data with the same "
            f"names."
        )
    number = {c: i for i, c in enumerate(classes)}
    return Renumbered(source, info, np.array([number[c] for c in own], int))


class Renumbered:
    """A source whose classes have other numbers.

    Args:
      info: of the data whose classes it gets.
      numbers: of each of the source's own classes there.
    """

    def __init__(self, source: Source, info: DataInfo, numbers: np.ndarray):
        text = f"{source.info.fingerprint} {info.classes}"
        self.info = source.info._replace(
            classes=info.classes, fingerprint=short_sha256((text.encode(),))
        )
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> Sample:
        sample = self._source[i]
        if "label" not in sample:
            return sample
        label = renumber(sample["label"], self._numbers, len(self.info.classes))
        return {**sample, "label": label}

    def example_name(self, i: int) -> str:
        return self._source.example_name(i)


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if names[5:] else "")
