"""Several sources as one, in exact proportions: `0.75*tfds://a + 0.25*folder:///b`."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vitjax.data.source import DataInfo, Sample, Source, class_labels, renumber_sample, short_sha256


class Mixture:
    """Source that mixes other sources, each with its share, to within one image.

    One pass has so many images that each source is seen at least once in full; the smaller ones
    are repeated. Sources with the same classes share them; otherwise the classes are all names that
    occur, in the order of the sources. The pipeline's order mixes them evenly.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]):
        shares = np.asarray(weights, np.float64) / np.sum(weights)
        size = max(int(np.ceil(len(s) / w)) for s, w in zip(sources, shares, strict=True))
        self._ends = np.rint(np.cumsum(shares) * size).astype(int)
        self._sources = tuple(sources)
        names = dict.fromkeys(name for source in sources for name in source.info.classes)
        number = {name: i for i, name in enumerate(names)}
        self._classes = [np.array([number[n] for n in s.info.classes], int) for s in sources]
        text = f"{[s.info.fingerprint for s in sources]} {self._ends.tolist()}"
        self.info = DataInfo(
            tuple(names),
            short_sha256((text.encode(),)),
            frozenset.intersection(*(source.info.fields for source in sources)),
            any(source.info.multi_label for source in sources),
        )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, i: int) -> tuple[int, int]:
        which = int(np.searchsorted(self._ends, i, side="right"))
        first = int(self._ends[which - 1]) if which else 0
        return which, (i - first) % len(self._sources[which])

    def __getitem__(self, i: int) -> Sample:
        which, index = self._place(i)
        sample = self._sources[which][index]
        sample = renumber_sample(sample, self._classes[which], len(self.info.classes))
        if "objects" in sample:
            sample["objects"] = sample["objects"]._replace(number=i)
        return sample

    def example_name(self, i: int) -> str:
        which, index = self._place(i)
        return self._sources[which].example_name(index)

    def labels(self) -> Int[np.ndarray, "N"]:
        counts = np.diff(self._ends, prepend=0)
        return np.concatenate(
            [
                np.resize(
                    numbers[class_labels(source)], count
                )  # again and again, as `_place` has it
                for source, numbers, count in zip(self._sources, self._classes, counts)
            ]
        )


def parse_mixture(text: str) -> list[tuple[float, str]] | None:
    """Parse weights and URIs of a mixture; None if the text is not one.

    Raises:
      ValueError: a part has no weight, or one that is not positive.
    """
    weight = r"\s*(\d+\.?\d*|\.\d+)\s*\*\s*"
    if not re.match(weight, text):
        return None
    parts = []
    for part in re.split(r"\s\+\s", text):
        match = re.match(weight, part)
        if not match or float(match[1]) <= 0:
            raise ValueError(
                f"Mixture {text!r} does not parse at {part.strip()!r}; write a positive weight for "
                f"each, as in '0.75*folder:///a + 0.25*folder:///b'."
            )
        parts.append((float(match[1]), part[match.end() :].strip()))
    return parts
