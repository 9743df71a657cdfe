"""What a task is to everything else: kinds of data and pure functions. The one definition."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from vitjax.data.kinds import Kind
from vitjax.data.source import Sample, Source

Batch = Mapping[str, Array]
"""The arrays of `kinds.batch_spec`, with `mask` `[B]`: 1 for a sample that counts, else 0."""
Sums = dict[str, Any]
"""Measures of a batch that are added up over batches, by name."""


class Keys(NamedTuple):
    """Named streams of random numbers of one step: `keys("dropout")`.

    A stream is a function of seed, name, step and part; another stream does not change it.

    Attributes:
      root: the run's key.
      step: optimizer steps taken before.
      part: of the batch, where gradients are accumulated.
    """

    root: Array
    step: Array | int = 0
    part: Array | int = 0

    def __call__(self, stream: str) -> Array:
        """Give the key of a stream, say "dropout", "mix", "erase" or "noise"."""
        key = jax.random.fold_in(self.root, zlib.crc32(stream.encode()))
        return jax.random.fold_in(jax.random.fold_in(key, self.step), self.part)


class Loss(NamedTuple):
    """What a batch costs, sample by sample.

    The step minimises Σ value · mask / Σ weight · mask, both summed over accumulated parts.

    Attributes:
      value: of each sample; of one with several parts (pixels, boxes) their sum.
      weight: how much each sample counts: 1, or its number of parts.
      collections: the model's updated variables other than the parameters.
      terms: parts of the loss that are reported besides, as means over samples.
    """

    value: Float[Array, "B"]
    weight: Float[Array, "B"]
    collections: Any
    terms: dict[str, Float[Array, "B"]]


class Presentation(NamedTuple):
    """What is shown of one sample: lines for people, JSON for programs, perhaps a picture.

    Attributes:
      picture: `[H, W, 3]` of 8 bits, or None.
    """

    lines: list[str]
    result: Any
    picture: Any = None


class Task(NamedTuple):
    """What the training loop, evaluation and plans are handed.

    Metrics whose names begin with "top", "acc", "miou" or "ap" are shares, and shown in percent.

    Attributes:
      kinds: field → kind, of a training batch; `eval_kinds`: of an evaluation's.
      init: key → variables.
      loss: (params, other variables, batch, keys, frozen) → `Loss`.
      predict: (variables, batch) → prediction, a tree of arrays `[B, …]`.
      measure: (prediction, batch) → sums over the batch's samples, masked: they are added up over
        batches, and a global sum is right on any number of hosts.
      summarize: (sums in float64, rows) → metric → value, on the host; `monitor` among them.
      monitor: the metric by which checkpoints are compared; larger is better.
      present: (prediction of one sample, sample) → what `vitjax predict` shows.
      decay_rules: which parameters decay, (regular expression, factor), unless the config says it.
      rows: (prediction, batch) → arrays `[B, …]` of each sample, gathered for `summarize`, for
        measures that are no sums; None for no such thing.
      frozen: a tree of arrays that the loss reads and nothing trains or saves, such as a teacher's
        variables; None for none.
      add_fields: gives the training source with the fields that the task brings along.
    """

    kinds: Mapping[str, Kind]
    eval_kinds: Mapping[str, Kind]
    init: Callable[[Array], dict[str, Any]]
    loss: Callable[[Any, Any, Batch, Keys, Any], Loss]
    predict: Callable[[Any, Batch], Any]
    measure: Callable[[Any, Batch], Sums]
    summarize: Callable[[Sums, Any], dict[str, float]]
    monitor: str
    present: Callable[[Any, Sample], Presentation]
    decay_rules: tuple[tuple[str, float], ...]
    rows: Callable[[Any, Batch], Any] | None = None
    frozen: Any = None
    add_fields: Callable[[Source], Source] = lambda source: source
