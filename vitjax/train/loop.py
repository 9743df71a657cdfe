"""The loop: it knows a state, a step, batches and an evaluation, and no model."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vitjax.train.checkpoint import CheckpointError, Checkpoints
from vitjax.train.report import Report, progress
from vitjax.train.state import TrainState

IN_FLIGHT = 2
"""Steps that the host may be ahead of the devices: enough to keep them busy."""


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


class StopRequest:
    """Whether somebody asked the run to stop, by SIGTERM or Ctrl-C; a second Ctrl-C interrupts at
    once.
    """

    def __init__(self) -> None:
        self.signal: str | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Takes the two signals over while it is open."""

        def take(number: int, _: Any) -> None:
            if self.signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = signal.Signals(number).name

        old = {s: signal.signal(s, take) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def train(
    state: TrainState,
    *,
    start: int,
    steps: int,
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    batches: Iterator[Any],
    evaluate: Callable[[TrainState], dict[str, float]],
    checkpoints: Checkpoints,
    report: Report,
    stop: StopRequest,
    log_every: int,
    eval_every: int,
    checkpoint_every: int,
) -> TrainState:
    """Runs steps `start` to `steps`; returns early, saved, when a stop is requested.

    The host reads numbers only where they are written: every `log_every` steps and before a save.

    Raises:
      DivergedError: names the first step whose loss is not finite; nothing was saved since it.
      CheckpointError: the last state could not be saved.
    """
    pending: list[dict[str, Any]] = []
    for done in range(start + 1, steps + 1):
        batch = report.next_batch(batches, pending[-1]["loss"] if pending else None)
        state, metrics = step(state, batch)
        pending.append(metrics)
        if len(pending) > IN_FLIGHT:
            jax.block_until_ready(pending[-1 - IN_FLIGHT])

        # Read once: a request that comes while this step is reported is the next step's.
        stopping = stop.signal is not None
        last = stopping or done == steps
        evaluating = done % eval_every == 0 or done == steps
        saving = evaluating or last or done % checkpoint_every == 0
        if saving or done % log_every == 0:
            read = jax.device_get(pending)
            pending.clear()
            losses = np.array([m["loss"] for m in read])
            if not np.isfinite(losses).all():
                first = done - len(read) + 1 + int(np.argmin(np.isfinite(losses)))
                raise DivergedError(
                    f"The loss is {losses[~np.isfinite(losses)][0]} at step {first}. The last "
                    f"checkpoint ({_latest(checkpoints)}) is from before and was kept. A lower "
                    "learning rate, a longer warm-up or clip_norm=1.0 usually helps."
                )
            extra = {k: float(np.mean([m[k] for m in read])) for k in read[0] if k != "loss"}
            report.train(done, losses, extra)
        if saving:
            tested = evaluate(state) if evaluating else None
            if tested is not None:
                report.evaluation(done, tested)
            _save(checkpoints, done, state, tested, last)
            report.restart_clock(done)
        if stopping:
            break
    return state


def _save(
    checkpoints: Checkpoints,
    done: int,
    state: TrainState,
    tested: dict[str, float] | None,
    last: bool,
) -> None:
    """A save that fails in the middle of a run is reported, and training goes on; the last must not
    fail.
    """
    try:
        checkpoints.save(done, state, tested)
        if last:
            checkpoints.wait()
    except CheckpointError as error:
        if last:
            raise
        progress(f"{error} Training goes on; earlier checkpoints are intact.", last=True)


def _latest(checkpoints: Checkpoints) -> str:
    steps = checkpoints.steps()
    return f"step {steps[-1]}" if steps else "none yet"
