"""A batch: what the pipeline hands to the training loop."""

import logging
from collections.abc import Callable, Iterable
from typing import TypedDict

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from vitjax.data.source import BadImage, Source

_log = logging.getLogger(__name__)


class Batch(TypedDict):
    """Images with labels; mask 0 marks a row that is padding or a bad image that was skipped.

    Such a row is black and has label 0.
    """

    image: UInt8[np.ndarray, "B S S 3"]
    label: Int32[np.ndarray, "B"]
    mask: Float32[np.ndarray, "B"]


def load_batch(
    source: Source,
    indices: Iterable[int],
    transforms: Iterable[Callable[[np.ndarray], np.ndarray]],
    batch_size: int,
    image_size: int,
    on_bad_image: str,
) -> Batch:
    """Reads and transforms images; the rows beyond the last index are padding.

    Args:
      source: the images.
      indices: which, at most `batch_size`.
      transforms: one for each index, to [image_size, image_size, 3].
      batch_size: number of rows.
      image_size: side of the square.
      on_bad_image: "fail" or "skip".

    Raises:
      BadImage: an image cannot be read, and on_bad_image is "fail".
    """
    batch: Batch = {
        "image": np.zeros((batch_size, image_size, image_size, 3), np.uint8),
        "label": np.zeros(batch_size, np.int32),
        "mask": np.zeros(batch_size, np.float32),
    }
    for row, (index, transform) in enumerate(zip(indices, transforms)):
        try:
            example = source[index]
        except BadImage as error:
            if on_bad_image == "skip":
                _log.warning("Skipped: %s", error)
                continue
            advice = "repair or remove it, or choose on_bad_image='skip' to go on without it"
            raise BadImage(error.name, f"{error.reason}; {advice}") from None
        batch["image"][row] = transform(example["image"])
        batch["label"][row], batch["mask"][row] = example["label"], 1
    return batch
