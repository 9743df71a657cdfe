"""Batches from a source, prefetched by threads.

A training batch is a function of (seed, step) alone, so that a run can resume at any step without
replay, and any number of threads yields the same batches. Grain addresses and prefetches the
batches. The order and the random numbers are computed here, a batch at a time, because those of
Grain take 28 µs per image, more than a whole image of the digits.
"""

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Int64

from vitjax.data.batch import BadImages, Batch, load_batch
from vitjax.data.kinds import Image, Kinds
from vitjax.data.order import Balanced, epoch_order, sample_rngs
from vitjax.data.source import Source, class_labels
from vitjax.data.transforms.augment import (
    Augmentation,
    check_channels,
    evaluation,
    parse_augmentation,
)
from vitjax.data.workers import BatchAt, OnBadImage, other_processes
from vitjax.names import check_choice, unknown

ON_BAD_IMAGE = ("fail", "skip")
SAMPLING = ("shuffle", "balanced")
EpochOrder = Callable[[int], Int64[np.ndarray, "N"]]
"""Epoch → indices of the images that it visits, in order."""


def train_batches(
    source: Source,
    *,
    kinds: Kinds,
    batch_size: int,
    augment: str = "none",
    seed: int = 0,
    repeats: int = 1,
    sampling: str = "shuffle",
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    num_threads: int = 2,
    on_bad_image: str = "fail",
    max_bad_images: int = -1,
    num_processes: int = 0,
) -> Iterator[Batch]:
    """Iterate over endless batches of augmented images, N visits per epoch in a new order.

    Step s takes samples s·B to s·B + B - 1 of the order; a batch may span two epochs.

    Args:
      source: the samples.
      kinds: fields of a batch, with their kinds; see `kinds.batch_spec`.
      batch_size: B.
      augment: a name of `augment.AUGMENTATIONS`, or a line such as "crop | flip".
      seed: seed of the order and of the augmentations.
      repeats: visits per image in an epoch; see `epoch_order`.
      sampling: "shuffle" visits each image once, "balanced" each class equally often; see
        `order.Balanced`.
      start_step: the first step; its batches are the same as in a run from step 0.
      rows: rows of a batch that this process reads, in ascending order; None for all. The content
        of a row does not depend on the process.
      num_threads: threads that prepare one batch each, while one finished batch waits; 0 prepares
        them in the caller's thread.
      on_bad_image: "fail" raises BadImage, "skip" logs a warning and sets mask 0.
      max_bad_images: number of different images that may be skipped; -1 for any number.
      num_processes: other processes that prepare a batch each, instead of threads; 0 for none.
        They need a source that pickles.

    Returns:
      An iterator, whose `close()` ends its threads and processes.

    Raises:
      ValueError: an option does not fit, the batch is larger than the data set, or the source
        does not provide the labels that balanced sampling needs.
      ChildProcessError: one of the processes has died; raised by the iterator.
    """
    size = len(source)
    _check_options(source, kinds, batch_size, num_threads, num_processes, on_bad_image)
    if batch_size > size:
        raise ValueError(
            f"Batch size {batch_size} is larger than the data set, which has {size} images; choose "
            f"at most {size}."
        )
    if not 1 <= repeats <= batch_size:
        raise ValueError(f"repeats={repeats} must lie between 1 and the batch size, {batch_size}.")
    if seed < 0 or start_step < 0:
        raise ValueError(f"seed={seed} and start_step={start_step} must not be negative.")
    parse_augmentation(augment)
    check_sampling(sampling, repeats)
    for kind in kinds.values():
        if isinstance(kind, Image):
            check_channels(augment, kind.channels)
    rows = _own_rows(rows, batch_size)
    if sampling == "balanced":
        order: EpochOrder = Balanced(seed, class_labels(source))
    else:
        order = functools.partial(epoch_order, seed, size, repeats=repeats)
    make = functools.partial(_training, source, kinds, batch_size, augment, seed, order, rows)
    bad = BadImages(on_bad_image, max_bad_images)
    return _prefetched(make, start_step, sys.maxsize, bad, num_threads, num_processes)


def _training(
    source: Source,
    kinds: Kinds,
    batch_size: int,
    augment: str,
    seed: int,
    order: EpochOrder,
    rows: Sequence[int],
) -> BatchAt:
    size, transform = len(source), parse_augmentation(augment)
    order_of = functools.lru_cache(maxsize=2)(order)

    def batch_at(step: int, on_bad_image: OnBadImage) -> Batch:
        positions = [step * batch_size + row for row in rows]
        places = (divmod(position, size) for position in positions)
        indices = [int(order_of(epoch)[place]) for epoch, place in places]
        rngs = sample_rngs(seed, positions)
        return load_batch(source, indices, kinds, transform, rngs, len(rows), on_bad_image)

    return batch_at


def check_sampling(sampling: str, repeats: int) -> None:
    """Check the sampling option.

    Raises:
      ValueError: the option is unknown, or does not allow repeats.
    """
    check_choice("config.data.sampling", sampling, SAMPLING)
    if sampling == "balanced" and repeats != 1:
        raise ValueError(
            f"config.data.repeats={repeats} cannot be combined with "
            f"config.data.sampling='balanced', which determines the number of visits itself; "
            f"leave repeats at 1."
        )


def eval_batches(
    source: Source,
    *,
    kinds: Kinds,
    batch_size: int,
    crop: float = 1.0,
    interpolation: str = "area",
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    num_threads: int = 2,
    on_bad_image: str = "fail",
    max_bad_images: int = -1,
    num_processes: int = 0,
) -> Iterator[Batch]:
    """Read all images once, in the source's order; the last batch is padded to `batch_size`.

    Other arguments and errors are those of `train_batches`; here a batch may be larger than the
    data set.

    Args:
      crop: side of the central crop, a square, as a share of the image's short side; the part
        beyond 1 is black. 0 for the whole image, of any proportions. See `crops.view`.
      interpolation: see `crops.resize`.
    """
    _check_options(source, kinds, batch_size, num_threads, num_processes, on_bad_image)
    transform, rows = evaluation(crop, interpolation), _own_rows(rows, batch_size)
    make = functools.partial(_evaluation, source, kinds, batch_size, transform, rows)
    stop = -(-len(source) // batch_size)
    bad = BadImages(on_bad_image, max_bad_images)
    return _prefetched(make, start_step, stop, bad, num_threads, num_processes)


def _evaluation(
    source: Source, kinds: Kinds, batch_size: int, transform: Augmentation, rows: Sequence[int]
) -> BatchAt:
    def batch_at(step: int, on_bad_image: OnBadImage) -> Batch:
        # Rows ascend, so that those beyond the last image, the padding, stand at the end.
        indices = [i for row in rows if (i := step * batch_size + row) < len(source)]
        none = itertools.repeat(None)  # nothing is drawn
        return load_batch(source, indices, kinds, transform, none, len(rows), on_bad_image)

    return batch_at


def _own_rows(rows: Sequence[int] | None, batch_size: int) -> Sequence[int]:
    if rows is None:
        return range(batch_size)
    if not rows or list(rows) != sorted({row for row in rows if 0 <= row < batch_size}):
        raise ValueError(
            f"rows={list(rows)[:5]}…: of a batch of {batch_size}, a process reads one row or more "
            f"among 0 to {batch_size - 1}, each once and in ascending order."
        )
    return rows


def _check_options(
    source: Source,
    kinds: Kinds,
    batch_size: int,
    num_threads: int,
    num_processes: int,
    on_bad_image: str,
) -> None:
    if missing := sorted(kinds.keys() - source.info.fields):
        raise ValueError(
            f"The task reads {', '.join(missing)}, and the data has only "
            f"{', '.join(sorted(source.info.fields))}. Choose data with those fields, or another "
            f"task."
        )
    if batch_size < 1 or min(num_threads, num_processes) < 0:
        raise ValueError(
            f"batch_size={batch_size} must be at least 1, num_threads={num_threads} and "
            f"num_processes={num_processes} at least 0."
        )
    if on_bad_image not in ON_BAD_IMAGE:
        raise ValueError(unknown("on_bad_image", on_bad_image, ON_BAD_IMAGE))


def _prefetched(
    make: Callable[[], BatchAt],
    start: int,
    stop: int,
    bad: BadImages,
    num_threads: int,
    num_processes: int,
) -> Iterator[Batch]:
    import grain  # brings jax along, which the other processes do without

    cv2.setNumThreads(1)  # the batches are the parallelism; more threads inside an image only wait
    others = contextlib.ExitStack()
    if num_processes:  # one thread reads, in order, what they write
        processes = other_processes(make, start, stop, num_processes)
        batch_at, num_threads = others.enter_context(processes), 1
    else:
        batch_at = make()
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + 1)
    steps = grain.MapDataset.range(start, stop)
    batches = iter(steps.map(lambda step: batch_at(step, bad.report)).to_iter_dataset(options))
    try:
        yield from batches
    finally:
        others.close()  # first, so that the thread does not wait for them
        batches.close()
