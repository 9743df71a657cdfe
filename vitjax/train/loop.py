"""Training loop over a state, a step, batches and an evaluation, independent of the model."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vitjax.console import progress
from vitjax.data.sets import MAIN
from vitjax.train.checkpoint import CheckpointError, Checkpoints
from vitjax.train.defaults import RunConfig
from vitjax.train.divergence import DivergedError, History
from vitjax.train.profile import Profile
from vitjax.train.report import Report
from vitjax.train.signals import StopRequest, Watchdog
from vitjax.train.state import TrainState

IN_FLIGHT = 2
"""Steps that the host may be ahead of the devices: enough to keep them busy."""


def is_regular(config: RunConfig, step: int) -> bool:
    """Return whether every run saves after this step, not only a run that is stopped there."""
    return step % config.eval_every == 0 or step % config.checkpoint_every == 0


def train(
    state: TrainState,
    config: RunConfig,
    *,
    start: int,
    steps: int,
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    batches: Callable[[int], Iterator[Any]],
    evaluate: Callable[[TrainState], dict[str, dict[str, float]]],
    restore: Callable[[int], TrainState],
    history: History,
    checkpoints: Checkpoints,
    report: Report,
    stop: StopRequest,
    watchdog: Watchdog,
    profile: Profile | None = None,
) -> TrainState:
    """Run steps `start` to `steps`; when a stop is requested, save and return early.

    The host reads values from the devices only to write them: every `log_every` steps and before a
    save.

    Args:
      batches: step → iterator of the batches from that step on.
      evaluate: state → metrics of each evaluation by name; those of MAIN are saved with the state.
      restore: step that `is_regular` → the state after it; 0 for the initial state.

    Raises:
      DivergedError: names the first step with a bad loss; nothing was saved since that step.
      CheckpointError: the last state could not be saved.
    """
    done, stream = start, batches(history.data_step(start))
    pending: list[dict[str, Any]] = []
    while done < steps:
        batch = fetch(stream, pending[-1]["loss"] if pending else None, report)
        if profile:
            profile.before(done)
        with jax.profiler.StepTraceAnnotation("train", step_num=done):
            state, metrics = step(state, batch)
        if profile:
            profile.after(done, metrics)
        if done == start:  # compiled
            report.restart_clock(done)
        done += 1
        pending.append(metrics)
        if len(pending) > IN_FLIGHT:
            jax.block_until_ready(pending[-1 - IN_FLIGHT])
            watchdog.alive()

        # Read once: a request that comes while this step is reported is the next step's.
        stopping = stop.after(done)
        last = stopping or done == steps
        evaluating = done % config.eval_every == 0 or done == steps
        saving = evaluating or last or is_regular(config, done)
        if saving or done % config.log_every == 0:
            read = jax.device_get(pending)
            pending.clear()
            losses = np.array([m["loss"] for m in read])
            bad = history.first_bad(done - len(read) + 1, losses, config.on_divergence.spike)
            if bad is not None:
                done, history = _go_back(*bad, config, history, checkpoints, report)
                state, stream = restore(done), batches(history.data_step(done))
                report.restart_clock(done)
                continue
            extra = {k: float(np.mean([m[k] for m in read])) for k in read[0] if k != "loss"}
            report.train(done, losses, extra)
        if saving:
            tested = evaluate(state) if evaluating else None
            for name, metrics in (tested or {}).items():
                report.evaluation(done, name, metrics)
            _save(checkpoints, done, state, (tested or {}).get(MAIN), history, last)
            watchdog.alive()
            report.restart_clock(done)
        if stopping:
            break
    return state


def fetch(stream: Iterator[Any], ahead: Any, report: Report) -> Any:
    """Return the next batch, and count its time as waiting if the devices were idle.

    Args:
      ahead: a result of the last dispatched step. If it is not ready when the batch is, the devices
        were busy all the time, and nothing waited.
    """
    begin = time.perf_counter()
    batch = next(stream)
    if ahead is None or ahead.is_ready():
        report.waited(time.perf_counter() - begin)
    return batch


def _go_back(
    bad: int,
    what: str,
    config: RunConfig,
    history: History,
    checkpoints: Checkpoints,
    report: Report,
) -> tuple[int, History]:
    """Roll back: return the step to continue from and a history that skips data to the bad step.

    The step is one at which every run saves, so that a run that was stopped in between rolls back
    to the same step.
    """
    rules = config.on_divergence
    if rules.action == "stop" or len(history.skips) >= rules.max:
        tried = f" It went back {len(history.skips)} times before." if history.skips else ""
        raise DivergedError(
            f"The loss {what} at step {bad}.{tried} The last checkpoint ({_latest(checkpoints)}) "
            "is from before and was kept. A lower learning rate, a longer warm-up or "
            "clip_norm=1.0 usually helps."
        )
    checkpoints.wait()
    target = max((s for s in range(bad) if is_regular(config, s)), default=0)
    back = History(checkpoints.history(target) if target else None)
    back.skips = [*history.skips, (target, bad - target)]
    checkpoints.forget_after(target)
    report.rewind(target, bad, what, bad - target)
    return target, back


def _save(
    checkpoints: Checkpoints,
    done: int,
    state: TrainState,
    tested: dict[str, float] | None,
    history: History,
    last: bool,
) -> None:
    """Save the state; report a failure and go on, but raise it if the save is the last."""
    try:
        checkpoints.save(done, state, tested, history.to_json())
        if last:
            checkpoints.wait()
    except CheckpointError as error:
        if last:
            raise
        text = str(error).rstrip(".")
        progress(f"{text}. Training goes on; earlier checkpoints are intact.", last=True)


def _latest(checkpoints: Checkpoints) -> str:
    steps = checkpoints.steps()
    return f"step {steps[-1]}" if steps else "none yet"
