"""A batch: what the pipeline hands to the training loop."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Int32, UInt8, UInt16

from vitjax.data.image import Picture
from vitjax.data.source import UNLABELLED, BadImage, Source

_log = logging.getLogger(__name__)


class Batch(TypedDict):
    """Images with labels; mask 0 marks a row that is padding or a bad image that was skipped.

    Such a row is black and has label 0. A multi-label source's labels are a weight for each of the
    K classes; images without a class have label 0. With label maps there are those of the whole
    images, and which rectangle (see `augment.Placement`) of them a row shows.
    """

    image: UInt8[np.ndarray, "B S S 3"]
    label: Int32[np.ndarray, "B"] | Float32[np.ndarray, "B K"]
    mask: Float32[np.ndarray, "B"]
    map_classes: NotRequired[UInt16[np.ndarray, "B k h w"]]
    map_scores: NotRequired[Float16[np.ndarray, "B k h w"]]
    box: NotRequired[Float32[np.ndarray, "B 4"]]
    mirrored: NotRequired[Bool[np.ndarray, "B"]]


class BadImages:
    """What to do about images that cannot be read, and how many there were.

    Args:
      policy: "fail" or "skip".
      limit: so many different ones may be skipped; -1 for any number.
    """

    def __init__(self, policy: str, limit: int = -1):
        self.policy, self.limit = policy, limit
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def take(self, error: BadImage) -> None:
        """Logs an image that is skipped, once.

        Raises:
          BadImage: the policy is "fail", or it is one too many.
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
    transforms: Iterable[Callable[[Picture], np.ndarray]],
    batch_size: int,
    image_size: int,
    take: Callable[[BadImage], None],
) -> Batch:
    """Reads and transforms images; the rows beyond the last index are padding.

    Args:
      source: the images.
      indices: which, at most `batch_size`.
      transforms: one for each index, to [image_size, image_size, 3].
      batch_size: number of rows.
      image_size: side of the square.
      take: told of images that cannot be read; what it raises ends this.

    Raises:
      ValueError: a label is none of the classes.
    """
    classes = source.num_classes
    label = (
        np.zeros((batch_size, classes), np.float32)
        if source.multi_label
        else np.zeros(batch_size, np.int32)
    )
    batch: Batch = {
        "image": np.zeros((batch_size, image_size, image_size, 3), np.uint8),
        "label": label,
        "mask": np.zeros(batch_size, np.float32),
    }
    for row, (index, transform) in enumerate(zip(indices, transforms)):
        try:
            example = source[index]
            batch["image"][row] = transform(Picture(example["image"]))
        except BadImage as error:
            name = error.name or source.example_name(index)
            take(BadImage(name, error.reason))
            continue
        try:
            label[row] = target(example["label"], classes, source.multi_label)
        except ValueError as error:
            raise ValueError(f"Image {source.example_name(index)!r}: {error}") from None
        batch["mask"][row] = 1
    return batch


def target(
    label: int | Sequence[int] | Float[np.ndarray, "K"], classes: int, multi_label: bool
) -> int | Float[np.ndarray, "K"]:
    """A label as a batch has it: a class, or a weight for each class.

    Raises:
      ValueError: it is none of the classes.
    """
    if type(label) is int and 0 <= label < classes and not multi_label:
        return label  # the usual case, without numpy
    if isinstance(label, np.ndarray) and label.dtype.kind == "f":
        if not multi_label or label.shape != (classes,):
            raise ValueError(f"its label has {label.size} weights, and there are {classes} classes")
        return label
    several = [int(c) for c in np.atleast_1d(np.asarray(label, np.int64))]
    wrong = [c for c in several if not (0 <= c < classes or c == UNLABELLED)]
    if wrong or (len(several) != 1 and not multi_label):
        raise ValueError(
            f"its label is {label}; "
            + (f"classes are 0 to {classes - 1}" if wrong else "the data has one class an image")
            + ". Repair the label, or say how many classes there are"
        )
    several = [c for c in several if c != UNLABELLED]
    if not multi_label:
        return several[0] if several else 0
    weights = np.zeros(classes, np.float32)
    weights[several] = 1
    return weights
