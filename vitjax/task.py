"""Interface of a task: kinds of data, and pure functions."""

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
    """Named random streams of one step: `keys("dropout")`.

    A stream is a function of seed, name, step and part, and independent of other streams.

    Attributes:
      root: key of the run.
      step: number of optimizer steps taken before.
      part: index of the part of the batch, if gradients are accumulated.
    """

    root: Array
    step: Array | int = 0
    part: Array | int = 0

    def __call__(self, stream: str) -> Array:
        """Return the key of a stream such as "dropout", "mix", "erase" or "noise"."""
        key = jax.random.fold_in(self.root, zlib.crc32(stream.encode()))
        return jax.random.fold_in(jax.random.fold_in(key, self.step), self.part)


class Loss(NamedTuple):
    """Loss of a batch, sample by sample.

    The step minimises Σ value · mask / Σ weight · mask, both summed over accumulated parts.

    Attributes:
      value: loss of each sample; the sum over its parts (pixels, boxes) if it has several.
      weight: weight of each sample: 1, or its number of parts.
      collections: the model's updated variables other than the parameters.
      terms: parts of the loss that are reported too, as means over samples.
    """

    value: Float[Array, "B"]
    weight: Float[Array, "B"]
    collections: Any
    terms: dict[str, Float[Array, "B"]]


class Presentation(NamedTuple):
    """Prediction of one sample, formatted: lines of text, JSON, and an optional picture.

    Attributes:
      picture: `[H, W, 3]` of 8 bits, or None.
      cells: values for `Task.columns`, by name; missing ones are empty.
    """

    lines: list[str]
    result: Any
    picture: Any = None
    cells: Mapping[str, Any] = {}


class Findings(NamedTuple):
    """Findings of `vitjax eval` besides the metrics.

    Attributes:
      samples: columns by name, with a value for each sample in order. Calibration is computed from
        "confidence" and "correct", if present.
      classes: columns by name, with a value for each class; the first column has the names.
      confusion: `[K, K]` counts by true class (row) and predicted class (column).
      counted: unit of these counts, such as "images".
    """

    samples: Mapping[str, Any] = {}
    classes: Mapping[str, Any] = {}
    confusion: Any = None
    counted: str = "images"


class Task(NamedTuple):
    """Task, as the training loop, evaluation and plans use it.

    Metrics whose names begin with "top", "acc", "miou", "ap", "ar_" or "mask_a" are shares, and
    shown in percent.

    Attributes:
      kinds: field → kind, for training batches; `eval_kinds`: for evaluation batches.
      init: key → variables.
      loss: (params, other variables, batch, keys, frozen) → `Loss`.
      predict: (variables, batch) → prediction, a tree of arrays `[B, …]`.
      measure: (prediction, batch) → masked sums over the batch's samples: they are added over
        batches, so that a global sum is right on any number of hosts.
      summarize: (sums in float64, rows) → metric → value, on the host, `monitor` included.
      by_class: (sums in float64) → class → measures, for the table that an evaluation writes beside
        its metrics; empty for no table.
      monitor: metric that compares checkpoints; larger is better.
      present: (prediction of one sample, sample) → `Presentation` for `vitjax predict`.
      decay_rules: weight decay of parameters, (regular expression, factor), if the config has no
        rules.
      sharding_rules: rules of the model, see `vitjax.train.partition`; `residual`: regular
        expression of the names of its modules whose results keep the batch's sharding.
      rows: (prediction, batch) → arrays `[B, …]` of each sample, gathered for `summarize`, for
        measures that are no sums; None if there are none.
      frozen: tree of arrays that the loss reads and nothing trains or saves, such as a teacher's
        variables; None for none.
      add_fields: training source → source with the additional fields of the task;
        `add_eval_fields`: the same for evaluations.
      predict_image: (variables, pixels `[H, W, 3]` of 8 bits) → prediction of one image of any
        size, for `vitjax predict` if images keep their size; None to predict as in evaluation.
      features: (variables, batch) → what the head of a classifier sees `[B, C]`, for
        `config.probes`; None if there is no such thing.
      columns: columns of a table of predictions; () for one column with each `Presentation.result`
        as JSON.
      load: path of weights, as in `config.init` → initial variables.
      example: name of a file such as `vitjax predict` takes, for the hint at a run's end.
      inspect: (prediction, batch) → the sums of `measure` and others, with arrays `[B, …]` of each
        sample, for `vitjax eval`; None for the measures alone.
      findings: (sums of `inspect` in float64, rows) → `Findings`, on the host.
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
    sharding_rules: tuple[tuple[str, str], ...] = ()
    residual: str = ""
    rows: Callable[[Any, Batch], Any] | None = None
    by_class: Callable[[Sums], Mapping[str, Mapping[str, float]]] = lambda sums: {}
    frozen: Any = None
    add_fields: Callable[[Source], Source] = lambda source: source
    add_eval_fields: Callable[[Source], Source] = lambda source: source
    predict_image: Callable[[Any, Any], Any] | None = None
    features: Callable[[Any, Batch], Any] | None = None
    columns: tuple[str, ...] = ()
    load: Callable[[str], Any] | None = None
    example: str = "photo.png"
    inspect: Callable[[Any, Batch], tuple[Sums, Any]] | None = None
    findings: Callable[[Sums, Any], Findings] = lambda sums, rows: Findings()

    def forward(self, state: Any, batch: Batch, key: Array) -> Array:
        """Compute the loss of a training state on a batch, sample by sample."""
        keys = Keys(key, state.step)
        return self.loss(state.params, state.collections, batch, keys, state.frozen).value
