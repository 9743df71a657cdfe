"""Batches of a run, for training, evaluation and probes."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from vitjax.data import pipeline
from vitjax.data.sets import Data, open_labelled
from vitjax.data.source import Source
from vitjax.task import Task
from vitjax.train import sharding
from vitjax.train.defaults import RunConfig
from vitjax.train.evaluate import add_up, evaluate
from vitjax.train.probes import measure
from vitjax.train.program import Program
from vitjax.train.report import write_by_class


class Feed(NamedTuple):
    """Batches of a run, on the devices.

    Attributes:
      labelled: name of an evaluation → labelled images of its probes, see `config.probes`.
    """

    workdir: pathlib.Path
    config: RunConfig
    data: Data
    task: Task
    program: Program
    labelled: Mapping[str, Source]

    def train(self, start: int) -> Iterator[Any]:
        """Yield training batches from a step on."""
        d = self.config.data
        batches = pipeline.train_batches(
            self.data.train, kinds=self.task.kinds, batch_size=d.batch_size, augment=d.augment,
            seed=self.config.seed, repeats=d.repeats, sampling=d.sampling, start_step=start,
            **self._options(d.batch_size),
        )  # fmt: skip
        return sharding.to_devices(batches, self.program.batch_sharding, d.batch_size)

    def evaluate(self, state: Any, alive: Callable[[], None]) -> dict[str, dict[str, float]]:
        """Compute the metrics of a state on every evaluation, those of probes included."""
        return {
            name: self._evaluate(state, name, alive) | self._probe(state, name, alive)
            for name in self.data.evals
        }

    def _evaluate(self, state: Any, name: str, alive: Callable[[], None]) -> dict[str, float]:
        step = int(jax.device_get(state.step))
        return evaluate(
            lambda b: self.program.eval_step(state, b),
            self._eval_batches(self.data.evals[name]),
            self.task,
            alive,
            tell=lambda by_class: write_by_class(self.workdir, name, step, by_class),
        )

    def _probe(self, state: Any, name: str, alive: Callable[[], None]) -> dict[str, float]:
        if name not in self.labelled:
            return {}
        step = lambda b: self.program.features_step(state, b)  # noqa: E731
        (x, labels), (asked, truth) = (
            add_up(step, self._eval_batches(source), alive)[1]
            for source in (self.labelled[name], self.data.evals[name])
        )
        classes = len(self.data.info.classes)
        found = measure(x, labels, asked, truth, classes, self.config.probes)
        return {f"top1_{protocol}": value for protocol, value in found.items()}

    def _eval_batches(self, source: Source) -> Iterator[Any]:
        d = self.config.data
        batches = pipeline.eval_batches(
            source,
            kinds=self.task.eval_kinds,
            batch_size=d.eval_batch_size,
            crop=d.eval_crop,
            interpolation=d.interpolation,
            **self._options(d.eval_batch_size),
        )
        return sharding.to_devices(batches, self.program.batch_sharding, d.eval_batch_size)

    def _options(self, batch_size: int) -> dict[str, Any]:
        d = self.config.data
        return dict(
            num_threads=d.num_threads,
            num_processes=d.num_processes,
            on_bad_image=d.on_bad_image,
            max_bad_images=d.max_bad_images,
            rows=sharding.own_rows(self.program.batch_sharding, batch_size),
        )


def open_probes(config: RunConfig, data: Data, task: Task) -> dict[str, Source]:
    """Open the labelled images of a run's probes: name of an evaluation → source.

    Raises:
      ValueError: the task or the data has nothing to probe; or as in `open_labelled`.
    """
    probes = config.probes
    if not probes.protocols:
        return {}
    if task.features is None:
        raise ValueError(
            f"config.probes.protocols={probes.protocols} need features of an image with one class, "
            f"which this run of the task {config.task!r} has not; leave them empty."
        )
    return open_labelled(config.evals, data, probes.evals, probes.images)
