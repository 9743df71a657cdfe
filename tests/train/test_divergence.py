"""A loss that is no number, or jumps, and steps that never end."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.test_loop import config
from vitjax.train.checkpoint import Checkpoints
from vitjax.train.divergence import SETTLED, DivergedError, History
from vitjax.train.loop import is_regular
from vitjax.train.loop import train as loop
from vitjax.train.report import Report, read_metrics
from vitjax.train.signals import StopRequest, Watchdog
from vitjax.train.state import TrainState

ROOT = pathlib.Path(__file__).parents[2]


def test_a_loss_is_bad_when_it_is_no_number_or_jumps() -> None:
    history = History()
    assert history.first_bad(1, [2.0] * SETTLED, 3.0) is None
    assert history.first_bad(SETTLED + 1, [5.9, 6.1, 2.0], 3.0) == (
        SETTLED + 2,
        "is 6.1, over 3 × the usual 2,",
    )
    assert history.first_bad(9, np.array([1.0, np.nan, 1.0]), 0.0) == (10, "is nan")
    assert History().first_bad(1, [1.0, 100.0], 3.0) is None, "too few to know what is usual"
    again = History(json.loads(json.dumps(history.to_json())))
    assert again.losses == history.losses


def test_skips_add_up() -> None:
    history = History({"losses": [], "skips": [[10, 3], [10, 4], [20, 2]]})
    assert [history.data_step(s) for s in (9, 10, 19, 20)] == [9, 17, 26, 29]


def run(
    folder: pathlib.Path, bad: set[int], stop_at: tuple[int, ...] = (), **rules: object
) -> tuple[float, list]:
    """Run a model that sums the data; batches in `bad` yield NaN. Stop and resume at `stop_at`."""
    rules = {"action": "rollback", **rules}
    settings = config(**rules)
    kind = jax.ShapeDtypeStruct(
        (), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    )
    template = TrainState(
        jax.ShapeDtypeStruct((), jnp.int32, sharding=kind.sharding), {"sum": kind}, {}, (), None
    )

    def step(state: TrainState, batch: int) -> tuple[TrainState, dict]:
        total = state.params["sum"] * np.float32(0.9) + np.float32(batch)
        loss = np.float32("nan") if batch in bad else np.float32(1.0)
        return (
            state.replace(step=state.step + 1, params={"sum": total}),
            {"loss": jnp.asarray(loss)},
        )

    stops = list(stop_at)
    while True:
        checkpoints = Checkpoints(
            folder / "checkpoints", keep=1, regular=lambda s: is_regular(settings, s)
        )

        def begin_at(step: int, checkpoints: Checkpoints = checkpoints) -> TrainState:
            if step:
                return checkpoints.restore_step(step, template)
            return TrainState(
                jnp.zeros((), jnp.int32), {"sum": jnp.zeros((), jnp.float32)}, {}, (), None
            )

        start, state = checkpoints.restore(template) or (0, begin_at(0))
        stop, report = StopRequest(), Report(folder, start=start, steps=30, batch_size=1)

        def after(done: int, stop: StopRequest = stop) -> bool:
            if stops and done == stops[0]:
                stop.signal = f"at {stops.pop(0)}"
            return stop.signal is not None

        stop.after = after
        try:
            state = loop(
                state, settings, start=start, steps=30, step=step,
                batches=lambda start: iter(range(start, 999)),
                evaluate=lambda s: {"test": {"top1": 0.5}}, restore=begin_at,
                history=History(checkpoints.history(start) if start else None),
                checkpoints=checkpoints, report=report, stop=stop, watchdog=Watchdog(0),
            )  # fmt: skip
        finally:
            report.close()
            checkpoints.close()
        if int(state.step) == 30:
            return float(state.params["sum"]), read_metrics(folder / "metrics.jsonl")


def test_the_run_goes_back_and_leaves_the_stretch_out(tmp_path: pathlib.Path) -> None:
    total, rows = run(tmp_path, bad={12})
    expected = np.float32(0)
    for batch in (*range(10), *range(13, 33)):  # back to step 10; data 10, 11 and 12 left out
        expected = expected * np.float32(0.9) + np.float32(batch)
    assert total == float(expected)
    (back,) = [row for row in rows if row["split"] == "rollback"]
    assert back == {"step": 11, "split": "rollback", "from": 13, "skipped_batches": 3}
    steps = [row["step"] for row in rows if row["split"] == "train"]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_it_goes_the_same_way_when_it_is_interrupted(tmp_path: pathlib.Path) -> None:
    bad = {3, 12, 17, 18}
    whole, rows = run(tmp_path / "whole", bad, max=9)
    parts, others = run(tmp_path / "parts", bad, stop_at=(2, 11, 12, 14, 16, 26), max=9)
    assert parts == whole
    keep = ("step", "from", "skipped_batches")
    assert [[r[k] for k in keep] for r in others if r["split"] == "rollback"] == [
        [r[k] for k in keep] for r in rows if r["split"] == "rollback"
    ]


def test_it_does_so_a_few_times_only(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DivergedError, match=r"nan at step \d+\. It went back 2 times before"):
        run(tmp_path, bad=set(range(12, 999)), max=2)


@pytest.mark.slow
def test_a_step_that_never_ends_shows_every_thread() -> None:
    code = (
        "import time\n"
        "from vitjax.train.signals import Watchdog\n"
        "def stuck(): time.sleep(60)\n"
        "dog = Watchdog(0.4); dog.alive(); stuck()"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert out.returncode == 76
    assert "error: No step has ended for 0" in out.stderr or "for 1 s" in out.stderr
    assert "in stuck" in out.stderr
