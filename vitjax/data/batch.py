"""Loading of a batch from the samples of a source."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vitjax.data.kinds import Kinds, batch_spec, encode
from vitjax.data.source import BadImage, Sample, Source

_log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]
"""The arrays of `kinds.batch_spec`; mask 0 marks a row that is padding or a bad image that was
skipped, which holds what its kind fills it with.
"""


class BadImages:
    """Policy for unreadable images, with a count of those found.

    Args:
      policy: "fail" or "skip".
      limit: number of different images that may be skipped; -1 for any number.
    """

    def __init__(self, policy: str, limit: int = -1):
        self.policy, self.limit = policy, limit
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def report(self, error: BadImage) -> None:
        """Log a skipped image, once.

        Raises:
          BadImage: the policy is "fail", or more images than the limit are bad.
        """
        if self.policy != "skip":
            advice = "repair or remove it, or choose on_bad_image='skip' to go on without it"
            raise BadImage(error.name, f"{error.reason}; {advice}") from None
        with self._lock:
            known = error.name in self._names
            self._names.add(error.name)
            count = len(self._names)
        if 0 <= self.limit < count:
            some = ", ".join(sorted(self._names - {error.name})[:3])
            raise BadImage(
                error.name,
                f"{error.reason}; it is number {count} of the images that cannot be read"
                + (f" (others are {some})" if some else "")
                + f", and max_bad_images={self.limit}. Repair them, or allow more",
            ) from None
        if not known:
            _log.warning("Skipped: %s", error)


def load_batch(
    source: Source,
    indices: Iterable[int],
    kinds: Kinds,
    transform: Callable[[Sample, Kinds, Any, Source], Sample],
    rngs: Iterable[Any],
    batch_size: int,
    on_bad_image: Callable[[BadImage], None],
) -> Batch:
    """Read and transform samples; the rows beyond the last index are padding.

    Args:
      source: the samples.
      indices: indices of the samples, at most `batch_size`.
      kinds: kinds of the batch's fields.
      transform: (sample, kinds, generator, source) → the sample's fields, for `kinds` to encode.
      rngs: a generator for each index.
      batch_size: number of rows.
      on_bad_image: called for images that cannot be read; an exception from it ends the loading.

    Raises:
      ValueError: a field is invalid, such as a label that is none of the classes.
    """
    batch = {
        name: np.full((batch_size, *spec.shape), spec.fill, spec.dtype)
        if spec.fill
        else np.zeros((batch_size, *spec.shape), spec.dtype)
        for name, spec in batch_spec(kinds).items()
    }
    for row, (index, rng) in enumerate(zip(indices, rngs)):
        try:
            fields = transform(source[index], kinds, rng, source)
            arrays = encode(fields, kinds)
        except BadImage as error:
            name = error.name or source.example_name(index)
            on_bad_image(BadImage(name, error.reason))
            continue
        except ValueError as error:
            raise ValueError(f"Image {source.example_name(index)!r}: {error}") from None
        for name, array in arrays.items():
            batch[name][row] = array
        batch["mask"][row] = 1
    return batch
