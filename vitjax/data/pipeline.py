"""Batches from a source, read ahead by threads.

A training batch is a function of (seed, step) and nothing else, so that a run goes on at any step
without replay, and any number of threads gives the same batches. Grain addresses and prefetches
them; the order and the random numbers are computed here, a batch at a time, because Grain's own
cost 28 µs an image, more than one of the digits takes.
"""

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence

import cv2

from vitjax.data.batch import BadImages, Batch, load_batch
from vitjax.data.kinds import Kinds
from vitjax.data.order import epoch_order, sample_rngs
from vitjax.data.source import Source
from vitjax.data.transforms.augment import Augmentation, evaluation, parse_augmentation
from vitjax.data.workers import BatchAt, OnBadImage, other_processes
from vitjax.names import unknown

ON_BAD_IMAGE = ("fail", "skip")


def train_batches(
    source: Source,
    *,
    kinds: Kinds,
    batch_size: int,
    augment: str = "none",
    seed: int = 0,
    repeats: int = 1,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    num_threads: int = 2,
    on_bad_image: str = "fail",
    max_bad_images: int = -1,
    num_processes: int = 0,
) -> Iterator[Batch]:
    """Endless batches of augmented images; every epoch has each image once, in a new order.

    Step s takes samples s·B to s·B + B - 1 of the order; a batch may span two epochs.

    Args:
      source: the samples.
      kinds: which of their fields a batch has, and as what; see `kinds.batch_spec`.
      batch_size: B.
      augment: a name of `augment.AUGMENTATIONS`, or a line such as "crop | flip".
      seed: of the order and of the augmentations.
      repeats: visits that an image gets in an epoch; see `epoch_order`.
      start_step: the first step; the batches from there on are those of a run from step 0.
      rows: which of a batch's B rows this process reads, in ascending order; None for all. What
        stands in a row does not depend on who reads it.
      num_threads: each prepares one batch at a time, and one finished batch waits; 0 prepares
        them in the caller's thread.
      on_bad_image: "fail" raises BadImage, "skip" logs a warning and sets mask 0.
      max_bad_images: so many different ones may be skipped; -1 for any number.
      num_processes: other processes that prepare a batch each, instead of threads; 0 for none.
        They need a source that pickles.

    Returns:
      An iterator, whose `close()` ends its threads and processes.

    Raises:
      ValueError: an option does not fit, or the batch is larger than the data set.
      ChildProcessError, at a batch: one of the processes is no more.
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
    rows = _own_rows(rows, batch_size)
    make = functools.partial(_training, source, kinds, batch_size, augment, seed, repeats, rows)
    bad = BadImages(on_bad_image, max_bad_images)
    return _prefetched(make, start_step, sys.maxsize, bad, num_threads, num_processes)


def _training(
    source: Source,
    kinds: Kinds,
    batch_size: int,
    augment: str,
    seed: int,
    repeats: int,
    rows: Sequence[int],
) -> BatchAt:
    size, transform = len(source), parse_augmentation(augment)
    order = functools.lru_cache(maxsize=2)(
        functools.partial(epoch_order, seed, size, repeats=repeats)
    )

    def batch_at(step: int, on_bad_image: OnBadImage) -> Batch:
        positions = [step * batch_size + row for row in rows]
        places = (divmod(position, size) for position in positions)
        indices = [int(order(epoch)[place]) for epoch, place in places]
        rngs = sample_rngs(seed, positions)
        return load_batch(source, indices, kinds, transform, rngs, len(rows), on_bad_image)

    return batch_at


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

    Arguments and errors are those of `train_batches`; here a batch may be larger than the data set.

    Args:
      crop: side of the central square that is seen, as a share of the image's short side; what
        is beyond 1 is black. 0 for the whole image, whatever its proportions. See `crops.view`.
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
