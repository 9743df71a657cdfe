"""A training run, from its config to its last checkpoint."""

import contextlib
import logging
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from vitjax.analysis import cost
from vitjax.console import clock, progress, show, table
from vitjax.data import pipeline
from vitjax.data.sets import MAIN, Data, open_data
from vitjax.data.transforms.augment import evaluation, parse_augmentation
from vitjax.models import from_config, model_arguments, model_options
from vitjax.task import Task
from vitjax.tasks import task_from_config, task_options
from vitjax.train import config as configs
from vitjax.train import loop, processes, sharding, signals
from vitjax.train.checkpoint import Checkpoints, without_late_failures
from vitjax.train.compiler import keep_compiled
from vitjax.train.divergence import History
from vitjax.train.evaluate import evaluate
from vitjax.train.profile import Profile
from vitjax.train.program import Program, compile_program, with_frozen
from vitjax.train.report import Report, plot_curves, read_metrics
from vitjax.train.state import sha256, with_variables
from vitjax.train.workdir import claim_workdir


def load_config(path: str, overrides: Mapping[str, str]) -> Any:
    """Resolve a run's config; see `vitjax.train.config.load_config`."""
    return configs.load_config(path, overrides, model_options, task_options)


def run(config: Any, workdir: pathlib.Path, stack: contextlib.ExitStack, profile: str = "") -> int:
    """Train as the config says, or go on; returns the exit code.

    Args:
      stack: closes what it is given when the run ends.
      profile: steps to trace, see `vitjax.train.profile`.
    """
    begin, kept = time.perf_counter(), keep_compiled()
    check(config)
    mesh = sharding.make_mesh(config.mesh)
    configs.check_batches(config, sharding.batch_parts(mesh))
    data = open_data(config)
    task = task_from_config(config, data.train.info)
    data = data._replace(train=task.add_fields(data.train))
    steps = configs.count_steps(config, len(data.train))
    trace = Profile(profile, workdir / "profile", steps)
    program = compile_program(config, task, mesh, steps)
    checkpoints = claim(config, workdir, data, task, stack)

    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=program.key.sharding)()

    def state_of(step: int) -> Any:
        if step:
            return with_frozen(checkpoints.restore_step(step, program.state), program, task)
        return initial_state(config, program, task, len(data.train.info.classes), key)

    found = checkpoints.restore(program.state)
    start, state = (found[0], with_frozen(found[1], program, task)) if found else (0, state_of(0))
    history = History(checkpoints.history(start) if start else None)
    progress(summary(config, data, steps, mesh, f"{workdir}", start, kept), last=True)

    report = Report(workdir, start=start, steps=steps, batch_size=config.data.batch_size)
    stop, watchdog = signals.StopRequest(), signals.Watchdog(config.stall_seconds)
    for part in (watchdog, report, trace):
        stack.callback(part.close)
    feed = Feed(config, data, task, program)
    if start < steps:
        with stop.listening():
            state = loop.train(
                state,
                config,
                start=start,
                steps=steps,
                step=lambda state, batch: program.train_step(state, batch, key),
                batches=feed.train,
                evaluate=lambda state: feed.evaluate(state, watchdog.alive),
                restore=state_of,
                history=history,
                checkpoints=checkpoints,
                report=report,
                stop=stop,
                watchdog=watchdog,
                profile=trace,
            )
    checkpoints.close()
    if stop.signal and int(state.step) < steps:
        progress(f"Stopped by {stop.signal} at step {int(state.step)} of {steps}, saved. The same "
                 f"command goes on.", last=True)  # fmt: skip
        return signals.STOPPED
    if processes.is_lead():
        report.settle()
        print(results(workdir, config, task.monitor, begin))
    return 0


class Feed(NamedTuple):
    """A run's batches, on the devices."""

    config: Any
    data: Data
    task: Task
    program: Program

    def train(self, start: int) -> Iterator[Any]:
        """Yield training batches from a step on."""
        d = self.config.data
        batches = pipeline.train_batches(
            self.data.train, kinds=self.task.kinds, batch_size=d.batch_size, augment=d.augment,
            seed=self.config.seed, repeats=d.repeats, start_step=start,
            **self._options(d.batch_size),
        )  # fmt: skip
        return sharding.to_devices(batches, self.program.batch_sharding, d.batch_size)

    def evaluate(self, state: Any, alive: Callable[[], None]) -> dict[str, dict[str, float]]:
        """Measure a state on every evaluation."""
        return {name: self._evaluate(state, name, alive) for name in self.data.evals}

    def _evaluate(self, state: Any, name: str, alive: Callable[[], None]) -> dict[str, float]:
        d = self.config.data
        batches = pipeline.eval_batches(
            self.data.evals[name], kinds=self.task.eval_kinds, batch_size=d.eval_batch_size,
            crop=d.eval_crop, interpolation=d.interpolation, **self._options(d.eval_batch_size),
        )  # fmt: skip
        placed = sharding.to_devices(batches, self.program.batch_sharding, d.eval_batch_size)
        return evaluate(lambda b: self.program.eval_step(state, b), placed, self.task, alive)

    def _options(self, batch_size: int) -> dict[str, Any]:
        d = self.config.data
        return dict(
            num_threads=d.num_threads, num_processes=d.num_processes, on_bad_image=d.on_bad_image,
            max_bad_images=d.max_bad_images,
            rows=sharding.own_rows(self.program.batch_sharding, batch_size),
        )  # fmt: skip


def check(config: Any) -> None:
    """Refuse what is wrong with a config by itself, before any data is opened."""
    configs.check(config)
    configs.check_field(config, "data.on_bad_image", pipeline.ON_BAD_IMAGE)
    parse_augmentation(config.data.augment)
    evaluation(config.data.eval_crop, config.data.interpolation)


def claim(
    config: Any, workdir: pathlib.Path, data: Data, task: Task, stack: contextlib.ExitStack
) -> Checkpoints:
    """Lock the work folder for this run, and open its checkpoints; all processes run the same."""
    facts = data.facts()
    processes.check_same_everywhere(
        {**configs.flat_config(config), **processes.code_version(), "data": facts}
    )
    classes, defaults = data.train.info.classes, {**configs.DEFAULTS, **task_options(config.task)}
    processes.on_lead(
        lambda: (
            stack.enter_context(claim_workdir(config, workdir, classes, facts, defaults)) and None
        )
    )
    return Checkpoints(
        workdir / "checkpoints",
        keep=config.keep,
        monitor=task.monitor,
        frozen="" if task.frozen is None else sha256(task.frozen),
        regular=lambda step: loop.is_regular(config, step),
    )


def initial_state(config: Any, program: Program, task: Task, classes: int, key: Any) -> Any:
    """Draw the state from the seed; `config.init` replaces the model's weights."""
    state = with_frozen(program.init(key), program, task)
    if not config.init:
        return state
    from vitjax.weights.load import load_pretrained  # only such a run pays for it

    name, options = model_arguments(config.model.to_dict(), config.data.image_size)
    _, weights = load_pretrained(name, config.init, classes, **options)
    return with_variables(state, weights)


def summary(
    config: Any, data: Data, steps: int, mesh: Any, folder: str, start: int, kept: str
) -> str:
    """What is about to run, as a table."""
    d, classes, size = config.data, len(data.train.info.classes), config.data.image_size
    model = from_config(config.model.to_dict(), classes, size)
    parameters, macs, _ = cost.trace(model, (1, size, size, 3))
    rate = f"{config.optimizer.name}, {config.schedule.name} from {config.schedule.learning_rate:g}"
    epochs = steps * d.batch_size / len(data.train)
    tests = " and ".join(f"{len(source):,} {name}" for name, source in data.evals.items())
    rows = {
        "model": f"{config.model.name}, {parameters:,} parameters, {config.model.dtype}",
        "compute": f"{macs / 1e6:,.1f} M multiply-adds per image",
        "devices": sharding.describe(mesh),
        "data": f"{d.train}: {len(data.train):,} training and {tests} images, "
        f"{classes} classes, {size}×{size} pixels",
        "schedule": f"{steps:,} steps of {d.batch_size} images ({epochs:.1f} epochs), {rate}",
        "folder": folder + (f", going on from step {start:,}" if start else ""),
        "compiled": f"programs are kept in {kept}",
    }
    return table(rows.items())


def results(workdir: pathlib.Path, config: Any, monitor: str, begin: float) -> str:
    """What came out, as a table; draws the curves, and says how to use the model."""
    rows = read_metrics(workdir / "metrics.jsonl")
    tests = [r for r in rows if r["split"] == MAIN]
    best = max(tests, key=lambda r: (r.get(monitor, -r["loss"]), r["step"]))
    measured = {"step", "split", "images"}

    def line(row: dict[str, Any]) -> str:
        return f"step {row['step']}  {show({k: v for k, v in row.items() if k not in measured})}"

    others = {r["split"]: line(r) for r in rows if r["split"] in config.evals}  # the last of each
    curves = plot_curves(workdir, f"{config.model.name} on {config.data.train}")
    shown = {
        "last": line(tests[-1]),
        "best": line(best),
        **others,
        "time": f"{clock(time.perf_counter() - begin)} in this process",
        "curves": str(curves),
        "metrics": f"{workdir / 'metrics.jsonl'}, tensorboard --logdir={workdir / 'events'}",
        "config": str(workdir / "config.json"),
        "use it": f"vitjax predict --workdir={workdir} photo.png",
    }
    return f"\nResults on all {tests[-1]['images']:.0f} test images\n{table(shown.items())}"


def quiet_libraries() -> None:
    """Silence what Orbax says, with tracebacks, of errors that it raises besides."""
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
    sys.unraisablehook = without_late_failures(sys.unraisablehook)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
