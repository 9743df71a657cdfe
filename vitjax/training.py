"""Training run, from its config to its last checkpoint."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax

from vitjax.analysis import cost
from vitjax.console import clock, progress, show, table
from vitjax.data import pipeline
from vitjax.data.sets import MAIN, Data, open_data
from vitjax.data.source import Source, class_labels
from vitjax.data.transforms.augment import check_channels, evaluation, parse_augmentation
from vitjax.data.transforms.crops import height_and_width
from vitjax.models import model_options
from vitjax.runs import published_pixels
from vitjax.task import Task
from vitjax.tasks import task_config, task_from_config
from vitjax.train import config as configs
from vitjax.train import loop, processes, sharding, signals
from vitjax.train.checkpoint import (
    Checkpoints,
    without_late_failures,
)
from vitjax.train.compiler import keep_compiled
from vitjax.train.defaults import RunConfig
from vitjax.train.feed import Feed, open_probes
from vitjax.train.goodput import describe, spent
from vitjax.train.loggers import check_loggers, open_loggers
from vitjax.train.optimizer import make_schedule
from vitjax.train.profile import Profile
from vitjax.train.program import Program, compile_program
from vitjax.train.report import NOT_MEASURED, Report, plot_curves, read_metrics
from vitjax.train.state import sha256
from vitjax.train.states import States
from vitjax.train.workdir import TEACHER, check_branch, claim_workdir, read_extensions


def load_config(path: str, overrides: Mapping[str, str]) -> RunConfig:
    """Resolve a run's config; see `vitjax.train.config.load_config`.

    If `data.mean` and `data.std` are empty, they become those of the initial weights.
    """
    return resolve(configs.call_file(path, "get_config"), path, overrides)


def resolve(fields: Mapping[str, Any], path: str, overrides: Mapping[str, str]) -> RunConfig:
    """Resolve a run's config from the fields that a file gives; see `load_config`."""
    config = configs.resolve(fields, path, overrides, model_options, task_config)
    d = config.data
    if d.mean and d.std:
        return config
    shown = published_pixels(config.model["name"], config.init)
    d = dataclasses.replace(d, mean=d.mean or shown.mean, std=d.std or shown.std)
    return dataclasses.replace(config, data=d)


def run(
    config: RunConfig,
    workdir: pathlib.Path,
    stack: contextlib.ExitStack,
    profile: str = "",
    extend: bool = False,
    on_metrics: Callable[[dict[str, Any]], None] | None = None,
    began: float | None = None,
) -> int:
    """Start or resume the training run of a config, and return the exit code.

    Args:
      stack: closes the resources of the run when it ends.
      profile: steps to trace, see `vitjax.train.profile`.
      extend: make the existing run longer, see `vitjax.train.workdir.claim_workdir`.
      on_metrics: called in the first process with each row of measurements in `metrics.jsonl`, once
        it is written: {"step": 50, "split": "train", "loss": …}. An exception from it ends the run.
      began: when the process was started, in seconds since 1970; None for now.
    """
    begin, kept = time.perf_counter(), keep_compiled()
    began = time.time() if began is None else began
    check(config)
    mesh = sharding.make_mesh(config.mesh)
    configs.check_batches(config, sharding.batch_parts(mesh))
    data, task, probed = open_task(config)
    steps = configs.count_steps(config, len(data.train))
    check_branch(config, steps)
    trace = Profile(profile, workdir / "profile", steps)
    program = compile_program(config, task, mesh, steps)
    checkpoints = claim(config, workdir, data, task, stack, extend)
    states = States(config, program, task, checkpoints)
    start, state, history = states.latest()
    progress(summary(config, data, task, program, mesh, steps, workdir, start, kept), last=True)
    if extend:
        progress(extension(config, workdir, start, program), last=True)
    report = open_report(config, workdir, start, steps, stack, on_metrics, began)
    stop, watchdog = signals.StopRequest(), signals.Watchdog(config.stall_seconds)
    for part in (watchdog, report, trace):
        stack.callback(part.close)
    feed = Feed(workdir, config, data, task, program, probed)
    if start < steps:
        with stop.listening():
            state = loop.train(
                state,
                config,
                start=start,
                steps=steps,
                step=lambda state, batch: program.train_step(state, batch, states.key),
                batches=feed.train,
                evaluate=lambda state: feed.evaluate(state, watchdog.alive),
                restore=states.at,
                history=history,
                checkpoints=checkpoints,
                report=report,
                stop=stop,
                watchdog=watchdog,
                profile=trace,
            )
    checkpoints.close()
    return finish(config, workdir, task, report, stop.signal, int(state.step), begin)


def check(config: RunConfig) -> None:
    """Check the config itself, before any data is opened."""
    configs.check(config)
    check_loggers(config)
    configs.check_field("data.on_bad_image", config.data.on_bad_image, pipeline.ON_BAD_IMAGE)
    pipeline.check_sampling(config.data.sampling, config.data.repeats)
    parse_augmentation(config.data.augment)
    check_channels(config.data.augment, config.data.channels)
    evaluation(config.data.eval_crop, config.data.interpolation)


def open_task(config: RunConfig) -> tuple[Data, Task, dict[str, Source]]:
    """Open the data of a run, with the fields that its task adds, the task, and data to probe."""
    data = open_data(config.data, config.evals)
    if config.data.sampling == "balanced":
        class_labels(data.train)  # told what is missing before anything is begun
    task = task_from_config(config, data.info)
    probed = open_probes(config, data, task)
    evals = {name: task.add_eval_fields(source) for name, source in data.evals.items()}
    return Data(task.add_fields(data.train), evals), task, probed


def claim(
    config: RunConfig,
    workdir: pathlib.Path,
    data: Data,
    task: Task,
    stack: contextlib.ExitStack,
    extend: bool = False,
) -> Checkpoints:
    """Lock the work folder, open its checkpoints, and check that all processes run the same."""
    facts, frozen = data.facts(), "" if task.frozen is None else sha256(task.frozen)
    if frozen:
        facts[TEACHER] = {"fingerprint": frozen[:16], "images": 0}
    processes.check_same_everywhere(
        {**configs.flat_config(config), **processes.code_version(), "data": facts}
    )
    classes = data.train.info.classes
    processes.on_lead(
        lambda: stack.enter_context(claim_workdir(config, workdir, classes, facts, extend)) and None
    )
    return Checkpoints(
        workdir / "checkpoints",
        keep=config.keep,
        monitor=task.monitor,
        frozen=frozen,
        regular=lambda step: loop.is_regular(config, step),
    )


def summary(
    config: RunConfig,
    data: Data,
    task: Task,
    program: Program,
    mesh: Any,
    steps: int,
    workdir: pathlib.Path,
    start: int,
    kept: str,
) -> str:
    """Format the summary of a run, as a table."""
    d, classes = config.data, len(data.train.info.classes)
    height, width = height_and_width(d.image_size)
    state = program.state
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    macs = cost.per_sample(task.forward, state, program.batch_spec, program.key)
    rate = f"{config.optimizer.name}, {config.schedule.name} from {config.schedule.learning_rate:g}"
    epochs = steps * d.batch_size / len(data.train)
    tests = " and ".join(f"{len(source):,} {name}" for name, source in data.evals.items())
    rows = {
        "model": f"{config.model['name']}, {parameters:,} parameters, {config.model['dtype']}",
        "compute": f"{macs / 1e6:,.1f} M multiply-adds per image",
        "devices": sharding.describe(mesh),
        "data": f"{d.train}: {len(data.train):,} training and {tests} images, "
        + (f"{classes} classes, " if classes else "")
        + f"{height}×{width} pixels"
        + ("" if d.channels == 3 else f", channels: {d.channels}"),
        "schedule": f"{steps:,} steps of {d.batch_size} images ({epochs:.1f} epochs), {rate}",
        "folder": f"{workdir}" + (f", going on from step {start:,}" if start else ""),
        "compiled": f"programs are kept in {kept}",
    }
    return table(rows.items())


def extension(config: RunConfig, workdir: pathlib.Path, start: int, program: Program) -> str:
    """Describe what an extension of a run changes, and what it keeps."""
    before, now = read_extensions(workdir)[-1]
    old = make_schedule(config.schedule, before)
    rate = (
        f"at step {start:,} its learning rate is {float(program.schedule(start)):.3g}, and "
        f"that of {before:,} has {float(old(start)):.3g}"
    )
    return (
        f"Extended from {before:,} to {now:,} steps: the schedule is that of {now:,} steps, "
        f"{rate}. Parameters, moments, averages and the place in the data are kept."
    )


def open_report(
    config: RunConfig,
    workdir: pathlib.Path,
    start: int,
    steps: int,
    stack: contextlib.ExitStack,
    on_metrics: Callable[[dict[str, Any]], None] | None,
    began: float,
) -> Report:
    """Open the loggers of a run and its report, which goes on from step `start`."""
    listeners = [*stack.enter_context(open_loggers(config, workdir, steps))]
    return Report(
        workdir,
        start=start,
        steps=steps,
        batch_size=config.data.batch_size,
        listeners=listeners + ([on_metrics] if on_metrics else []),
        began=began,
    )


def finish(
    config: RunConfig,
    workdir: pathlib.Path,
    task: Task,
    report: Report,
    stopped_by: str | None,
    step: int,
    begin: float,
) -> int:
    """Report the end of a run, or that a signal stopped it, and return the exit code."""
    if stopped_by and step < report.steps:
        report.end()
        told = f"Stopped by {stopped_by} at step {step} of {report.steps}, saved."
        progress(f"{told} The same command goes on.", last=True)
        return signals.STOPPED
    if processes.is_lead():
        report.settle()
        print(results(workdir, config, task, begin))
        report.end()
    return 0


def results(workdir: pathlib.Path, config: RunConfig, task: Task, begin: float) -> str:
    """Draw the curves, and format the results and the next command as a table."""
    rows = read_metrics(workdir / "metrics.jsonl")
    tests = [r for r in rows if r["split"] == MAIN]
    best = max(tests, key=lambda r: (r.get(task.monitor, -r.get("loss", math.inf)), r["step"]))

    def line(row: dict[str, Any]) -> str:
        return f"step {row['step']}  {show({k: row[k] for k in row if k not in NOT_MEASURED})}"

    others = {r["split"]: line(r) for r in rows if r["split"] in config.evals}  # the last of each
    curves = plot_curves(workdir, f"{config.model['name']} on {config.data.train}")
    shown = {
        "last": line(tests[-1]),
        "best": line(best),
        **others,
        "time": f"{clock(time.perf_counter() - begin)} in this process",
        "goodput": describe(spent(rows)) or "unknown",
        "curves": str(curves),
        "metrics": f"{workdir / 'metrics.jsonl'}, tensorboard --logdir={workdir / 'events'}",
        **({"by class": f"{workdir / 'by_class'}"} if (workdir / "by_class").is_dir() else {}),
        "config": str(workdir / "config.json"),
        "use it": f"vitjax predict --workdir={workdir} {task.example}",
    }
    return f"\nResults on all {tests[-1]['images']:.0f} test images\n{table(shown.items())}"


def quiet_libraries() -> None:
    """Silence tracebacks that Orbax logs for errors that it also raises."""
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
    sys.unraisablehook = without_late_failures(sys.unraisablehook)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
