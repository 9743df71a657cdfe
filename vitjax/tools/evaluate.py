"""Evaluation of a trained model on any data, with findings per class and image."""

import fnmatch
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vitjax.data import open_source, pipeline
from vitjax.data.benchmarks import Named, find_benchmark, imagenet_classes
from vitjax.data.coco_classes import coco_classes
from vitjax.data.sets import Renumbered, open_evals, with_classes
from vitjax.data.source import DataInfo, Source
from vitjax.models import model_options
from vitjax.names import unknown
from vitjax.runs import IMAGENET, Trained, no_model, open_run, open_trained, published_weights
from vitjax.task import Findings, Task
from vitjax.tasks import has_classes, read_config, task_from_config
from vitjax.tools.calibration import BINS, calibration
from vitjax.train import config as configs
from vitjax.train import sharding
from vitjax.train.defaults import RunConfig
from vitjax.train.evaluate import add_up

FIELDS = (
    *("data.eval_crop", "data.interpolation", "data.mean", "data.std"),
    *("segmentation.eval_*", "segmentation.label_size", "restoration.eval_size"),
    *("restoration.degradation", "restoration.quantize"),
    *("detection.eval_*", "detection.mask_bytes"),
)
"""Fields of a run's config that an evaluation reads, and that may be replaced."""
TASK_OF = {
    "classes": "classification",
    "map": "segmentation",
    "image": "restoration",
    "boxes": "detection",
}
"""What a model gives → the task that measures published weights."""


class Subject(NamedTuple):
    """Trained model that is measured.

    Attributes:
      text: what it was called.
      config: of its run; of published weights, one that says the same of them.
      classes: their names; None if the weights do not say them.
      num_classes: how many there are.
      multi_label: whether its training images have several classes.
      step: of the checkpoint; None for weights.
      fields: of the config that were replaced.
    """

    text: str
    config: RunConfig
    variables: Any
    classes: tuple[str, ...] | None
    num_classes: int
    multi_label: bool = False
    step: int | None = None
    fields: frozenset[str] = frozenset()


class Options(NamedTuple):
    """Options of an evaluation.

    Attributes:
      split: of the data; empty: "test", or the one that a test set has.
      own_classes: score over the classes of the data alone.
      bins: of the calibration.
      batch_size, num_threads, on_bad_image: as in `eval_batches`.
    """

    split: str = ""
    own_classes: bool = False
    bins: int = BINS
    batch_size: int = 64
    num_threads: int = 4
    on_bad_image: str = "fail"


class Measured(NamedTuple):
    """Results on one set of data.

    Attributes:
      metrics: of the task, and `ece`; counts of `images`, `skipped` and `unlabelled` ones.
      findings: what lies behind them; its samples begin with the column "image".
      bins: of the calibration, if confidence is known.
    """

    metrics: dict[str, float]
    findings: Findings
    bins: dict[str, Any] | None


def open_subject(text: str, step: int | None, fields: Mapping[str, str]) -> Subject:
    """Open a run's folder, or published weights as `open_trained` takes them.

    Args:
      step: of the run's checkpoint; the latest if None.
      fields: "data.eval_crop" → text that replaces it; see FIELDS.

    Raises:
      ValueError: there is no such model, or a field that an evaluation does not read.
    """
    for key in fields:
        if not any(fnmatch.fnmatchcase(key, known) for known in FIELDS):
            raise ValueError(unknown("config field of an evaluation", key, FIELDS))
    if not published_weights(text):
        if not (pathlib.Path(text) / "config.json").is_file():
            raise no_model(text)
        run = open_run(text)
        config = configs.override(read_config(run.said), fields)
        step, variables = run.variables(step)
        names, several = run.info.classes, run.info.multi_label
        said = frozenset(fields)
        return Subject(text, config, variables, names, len(names), several, step, said)
    if step is not None:
        raise ValueError(f"--step={step} is of a run's checkpoint, and {text!r} are weights.")
    trained = open_trained(text)
    config = configs.override(_config_of(trained), fields)
    count = getattr(trained.model, "num_classes", None) or 0
    said = frozenset(fields)
    return Subject(text, config, trained.variables, trained.classes, count, fields=said)


def _config_of(trained: Trained) -> RunConfig:
    """Build the config of a run whose model would be this one."""
    task = TASK_OF[getattr(trained.model, "output", "classes")]
    model = {"name": trained.name, **trained.options}
    if "image_size" in model_options(trained.name):
        model["image_size"] = getattr(trained.model, "image_size", trained.image_size)
    data: dict[str, Any] = dict(
        image_size=trained.image_size, eval_crop=trained.crop, interpolation=trained.interpolation
    )
    if has_classes(task):
        data |= dict(mean=trained.mean, std=trained.std, channels=len(trained.mean))
    return read_config({"task": task, "model": model, "data": data})


class Evaluator:
    """Evaluator of one model on any number of sources.

    One compiled step serves all sources that are alike.

    Args:
      say: told what is being measured, and what is assumed.
      tick: told how many images are done, and of how many.
    """

    def __init__(
        self,
        subject: Subject,
        options: Options,
        say: Callable[[str], None] = lambda text: None,
        tick: Callable[[int, int], None] = lambda done, total: None,
    ):
        self.subject, self.options, self.say, self._tick = subject, options, say, tick
        mesh = sharding.make_mesh()
        parts = sharding.batch_parts(mesh)
        self._whole, self._split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
        self._variables = jax.device_put(subject.variables, self._whole)
        self._batch_size = -(-options.batch_size // parts) * parts
        self._steps = functools.cache(self._make_step)

    def measure_uri(self, name: str, uri: str, named: Named | None) -> Measured:
        """Measure on what a URI names, by the rules of a test set if it is one.

        Args:
          name: what it is called.
        """
        rules = named.rules if named else None
        if self.options.split and "split=" in uri.partition("?")[2]:
            raise ValueError(f"--split={self.options.split!r} and {uri!r} both say a split.")
        split = self.options.split or (rules.split if rules else "test")
        source = open_source(uri, split)
        task = self.subject.config.task
        if self.options.own_classes and task != "classification":
            raise ValueError(
                f"--own-classes is for classification, and this model's task is {task}."
            )
        if not has_classes(task):
            return self.measure(name, source)
        classes = self._names(source, uri)
        kept = rules.classes if rules and rules.classes else ()
        if not kept and self.options.own_classes:
            kept = source.info.classes
        if kept:
            source, kept = _only(source, classes, kept, uri)
        else:
            source = with_classes(source, DataInfo(classes, ""), f"The data {uri!r}")
        crop = None if rules is None or "data.eval_crop" in self.subject.fields else rules.crop
        return self.measure(name, source, classes, kept, crop)

    def _names(self, source: Source, uri: str) -> tuple[str, ...]:
        """Return the names of the model's classes, of weights perhaps those of the data.

        Raises:
          ValueError: they have other classes.
        """
        known, count, own = self.subject.classes, self.subject.num_classes, source.info.classes
        if self.subject.step is not None and known is not None:
            return known  # a run's; `with_classes` says what does not fit
        usual = imagenet_classes() if count == IMAGENET else None
        if self.subject.config.task == "detection":
            usual = coco_classes(count)
        for names in (known, usual):
            if names is not None and set(own) <= set(names):
                return names
        if len(own) == count and (known is None or count == IMAGENET):
            self.say(f"The classes of {uri!r} are taken by number: names do not match.")
            return own
        given = f"the classes {', '.join(known[:3])} …" if known else "classes without names"
        raise ValueError(
            f"{self.subject.text!r} has {count} classes ({given}), and {uri!r} has {len(own)} "
            f"({', '.join(own[:3])} …): give data with the same names, or as many classes."
        )

    def measure(
        self,
        name: str,
        source: Source,
        classes: tuple[str, ...] = (),
        kept: tuple[str, ...] = (),
        crop: float | None = None,
    ) -> Measured:
        """Measure on a source.

        Args:
          name: what it is called.
          classes: of the model.
          kept: those over which it is scored; empty for all. The source has their numbers.
          crop: in place of the config's.
        """
        self.say(f"{name}: {len(source):,} images")
        config, several = self.subject.config, source.info.multi_label
        foreign = several and not self.subject.multi_label
        info = DataInfo(classes, "", source.info.fields, several or self.subject.multi_label)
        task, step = self._steps(info, kept)
        source, counts = task.add_eval_fields(source), {"skipped": 0, "unlabelled": 0}
        batches = pipeline.eval_batches(
            source,
            kinds=task.eval_kinds,
            batch_size=self._batch_size,
            crop=config.data.eval_crop if crop is None else crop,
            interpolation=config.data.interpolation,
            num_threads=self.options.num_threads,
            on_bad_image=self.options.on_bad_image,
        )
        numbered = _numbered(batches, len(source), foreign, counts)
        placed = sharding.to_devices(numbered, self._split, self._batch_size)
        done, size = itertools.count(1), len(source)
        sums, rows = add_up(
            functools.partial(step, self._variables),
            placed,
            lambda: self._tick(min(next(done) * self._batch_size, size), size),
        )
        if not sums["images"]:
            raise ValueError("None of the images counts: they cannot be read, or have no label.")
        metrics = task.summarize(sums, rows["rows"])
        if foreign:  # of several classes an image, a loss for one says nothing
            metrics.pop("loss", None)
        metrics |= {name: count for name, count in counts.items() if count}
        findings = task.findings(sums, rows["samples"])
        if findings.samples:
            images = [source.example_name(i) for i in rows["number"].tolist()]
            findings = findings._replace(samples={"image": images, **findings.samples})
        if not {"confidence", "correct"} <= findings.samples.keys():
            return Measured(metrics, findings, None)
        trust, correct = (findings.samples[k] for k in ("confidence", "correct"))
        metrics["ece"], bins = calibration(trust, correct, self.options.bins)
        return Measured(metrics, findings, bins)

    def _make_step(self, info: DataInfo, kept: tuple[str, ...]) -> tuple[Task, Any]:
        """Build the task, and its jitted (variables, batch) → (sums, rows)."""
        config = self.subject.config
        build = functools.partial(task_from_config, config, abstract=has_classes(config.task))
        task = build(info)
        if kept and kept != info.classes:
            number = {name: i for i, name in enumerate(info.classes)}
            columns, whole = np.array([number[name] for name in kept]), task.predict
            task = build(info._replace(classes=kept))._replace(
                predict=lambda variables, batch: whole(variables, batch)[:, columns]
            )

        def step(variables: Any, batch: Any) -> tuple[Any, Any]:
            prediction = task.predict(variables, batch)
            rows = task.rows(prediction, batch) if task.rows else None
            inspect = task.inspect or (lambda p, b: (task.measure(p, b), None))
            sums, samples = inspect(prediction, batch)
            return sums, {"rows": rows, "samples": samples, "number": batch["number"]}

        return task, jax.jit(step, out_shardings=(self._whole, self._split))


def _numbered(
    batches: Iterator[Any], size: int, labelled: bool, counts: dict[str, int]
) -> Iterator[Any]:
    """Number the samples, and count those that are left out.

    Args:
      labelled: leave out samples without any label.
      counts: of what is left out, to be added to.
    """
    start = 0
    for batch in batches:
        mask = batch["mask"]
        real = min(len(mask), size - start)
        counts["skipped"] += real - int(mask.sum())
        if labelled:
            known = batch["label"].any(axis=1)
            counts["unlabelled"] += int((mask * ~known).sum())
            mask = mask * known
        number = np.arange(start, start + len(mask), dtype=np.int32)
        yield {**batch, "mask": mask, "number": number}
        start += len(mask)


def _only(
    source: Source, classes: tuple[str, ...], kept: tuple[str, ...], uri: str
) -> tuple[Source, tuple[str, ...]]:
    """Renumber the labels of some classes in the model's order; other labels are refused.

    Raises:
      ValueError: the model lacks some of them.
    """
    if missing := sorted(set(kept) - set(classes)):
        raise ValueError(
            f"{uri!r} is scored over {len(kept)} classes, of which the model lacks {len(missing)}, "
            f"such as {missing[0]!r}; it needs a model of all of them."
        )
    wanted = set(kept)
    kept = tuple(name for name in classes if name in wanted)
    number = {name: i for i, name in enumerate(kept)}
    numbers = np.array([number.get(name, len(kept)) for name in source.info.classes], int)
    return Renumbered(source, DataInfo(kept, ""), numbers), kept


def run_evaluations(
    evaluator: Evaluator, data: Sequence[str]
) -> Iterator[tuple[str, dict[str, Measured]]]:
    """Measure on data, or on the run's own evaluations, one after the other.

    Args:
      data: URIs, and names of test sets; empty for the run's own.

    Yields:
      A name, and what came of its parts: of itself, or of ImageNet-C's.

    Raises:
      ValueError: the data does not fit the model, or there is none.
    """
    subject = evaluator.subject
    if not data:
        if subject.step is None:
            raise ValueError("Published weights have no evaluations of their own; give --data=URI.")
        info = DataInfo(subject.classes or (), "", multi_label=subject.multi_label)
        for name, source in open_evals(subject.config.data, subject.config.evals, info).items():
            yield name, {name: evaluator.measure(name, source, info.classes)}
        return
    used: set[str] = set()
    for number, (uri, named) in enumerate([(uri, find_benchmark(uri)) for uri in data], 1):
        name = named.name if named else "data"
        name = f"{name}_{number}" if name in used or (not named and len(data) > 1) else name
        used.add(name)
        parts, found = named.parts if named else {name: uri}, {}
        for part, address in parts.items():
            measured = evaluator.measure_uri(part, address, named)
            if len(parts) > 1:  # the images of 75 parts would fill the memory
                measured = Measured(measured.metrics, Findings(), None)
            found[part] = measured
        yield name, found
