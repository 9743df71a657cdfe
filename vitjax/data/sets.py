"""Data of a run: the training source, and the evaluations, which have its classes."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from vitjax.data.config import DataConfig
from vitjax.data.source import (
    DataInfo,
    Sample,
    Source,
    class_counts,
    class_labels,
    renumber_sample,
    short_sha256,
)
from vitjax.data.sources import open_source
from vitjax.data.sources.folders import validation_beside_test
from vitjax.data.sources.mixture import parse_mixture
from vitjax.data.sources.splits import Split, take
from vitjax.names import check_choice

_log = logging.getLogger(__name__)

MAIN = "test"
"""The evaluation by which checkpoints are compared."""


class Data(NamedTuple):
    """Sources of a run.

    Attributes:
      train: source of training.
      evals: name → source of an evaluation, `MAIN` included, with the classes of `train` in order.
    """

    train: Source
    evals: Mapping[str, Source]

    @property
    def info(self) -> DataInfo:
        """Info of the training data, with a function that counts images by class."""
        return self.train.info._replace(class_counts=lambda: class_counts(self.train))

    def facts(self) -> dict[str, dict[str, Any]]:
        """Collect fingerprints and sizes of the data, to detect later changes."""
        sources = {"training": self.train, **self.evals}
        return {
            name: {
                "fingerprint": source.info.fingerprint,
                "images": len(source),
                "multi_label": source.info.multi_label,
            }
            for name, source in sources.items()
        }


def open_data(config: DataConfig, evals: Mapping[str, str]) -> Data:
    """Open the sources of `config.data` and `config.evals` of a run.

    Raises:
      ValueError: as in `open_source`, or an evaluation has other classes.
    """
    train = open_source(config.train, config.train_split)
    data = Data(train, open_evals(config, evals, train.info))
    if data.evals[MAIN].info.fingerprint == train.info.fingerprint:
        _log.warning(
            "The test images are the training images (%r): metrics say what is memorised. Give "
            "other images with --config.data.test=URI or --config.data.test_split=SPLIT.",
            config.test or config.train,
        )
    return data


def open_evals(config: DataConfig, evals: Mapping[str, str], info: DataInfo) -> dict[str, Source]:
    """Open the evaluations of a run: name → source, with the classes of its training data.

    Args:
      info: info of the training data.

    Raises:
      ValueError: as in `open_data`.
    """
    main = config.test or config.train
    uris = {MAIN: (main, _choosing_split(main, config.test_split))}
    uris |= {name: (uri, "test") for name, uri in sorted(evals.items())}
    opened = {}
    for name, (uri, split) in uris.items():
        field = "config.data.test" if name == MAIN else f"config.evals.{name}"
        opened[name] = with_classes(open_source(uri, split), info, field)
    return opened


def open_labelled(
    evals: Mapping[str, str], data: Data, names: Sequence[str], images: int
) -> dict[str, Source]:
    """Open the labelled images from which probes classify those of evaluations: name → source.

    Those of `MAIN` are the training images, those of others the training split of their data.

    Args:
      evals: section of the config; `data`: of the run.
      names: evaluations; empty for all.
      images: at most; of more, those of a slice, see `open_source`.

    Raises:
      ValueError: there is no such evaluation, or its labelled images are those asked about.
    """
    opened = {}
    for name in names or data.evals:
        check_choice("evaluation of config.probes", name, data.evals)
        main = name == MAIN
        source = data.train if main else open_source(evals[name], "train")
        source = with_classes(source, data.info, f"config.evals.{name}")
        if source.info.fingerprint == data.evals[name].info.fingerprint:
            field = "config.data.test" if main else f"config.evals.{name}"
            raise ValueError(
                f"config.probes: the labelled images for {name!r} are those that are asked about. "
                f"Leave split= out of {field}, or name other evaluations in config.probes.evals."
            )
        part = Split("train", None, str(min(images, len(source))))
        opened[name] = take(source, part)
    return opened


def _choosing_split(uri: str, split: str) -> str:
    """Choose the split that selects the best checkpoint: validation images, if there are any.

    Images that select a checkpoint must not test it. If a folder has both splits, `test` is not
    used, and this is logged.
    """
    if split != "test" or parse_mixture(uri):
        return split
    validation = validation_beside_test(uri)
    if validation is None:
        return split
    path = uri if "://" in uri else f"folder://{uri}"
    kept = f"{path}{'&' if '?' in path else '?'}split=test"
    _log.warning(
        "%r has %s/ and test/: %s/ chooses the best checkpoint, and test/ is kept for the end. "
        "--config.evals.final=%r measures on it too; --config.data.test=%r chooses by it.",
        uri,
        validation,
        validation,
        kept,
        kept,
    )
    return validation


def with_classes(source: Source, info: DataInfo, name: str) -> Source:
    """Renumber the classes of a source as in other data, by their names.

    The source may lack some of the classes. If it has no names, its numbers are used as names.

    Args:
      info: info of the other data.
      name: name of the source in messages.

    Raises:
      ValueError: the source has classes that the other data lacks; both are named.
    """
    own, classes = source.info.classes, info.classes
    if own == classes:
        return source
    if not set(own) <= set(classes):
        alien = [c for c in own if c not in set(classes)]
        missing = [c for c in classes if c not in set(own)]
        lacks = f", and lacks {_some(missing)}" if missing else ""
        raise ValueError(
            f"{name} has classes that the training data lacks: {_some(alien)}{lacks}. It has "
            f"{len(own)} classes and the training data {len(classes)}; give data with the same "
            f"names."
        )
    number = {c: i for i, c in enumerate(classes)}
    return Renumbered(source, info, np.array([number[c] for c in own], int))


class Renumbered:
    """Source with renumbered classes.

    Args:
      info: info of the data whose classes it gets.
      numbers: new number of each of the source's classes.
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
        return renumber_sample(self._source[i], self._numbers, len(self.info.classes))

    def example_name(self, i: int) -> str:
        return self._source.example_name(i)

    def labels(self) -> Int[np.ndarray, "N"]:
        return self._numbers[class_labels(self._source)]


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if names[5:] else "")
