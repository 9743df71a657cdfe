"""The loop compiles once, waits for data only when the devices do, and names a diverged step."""

import errno
import json
import logging
import os
import pathlib
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from vitjax.console import clock
from vitjax.train.checkpoint import Checkpoints, SavedSteps
from vitjax.train.defaults import RunConfig
from vitjax.train.divergence import DivergedError, DivergenceConfig, History
from vitjax.train.loop import fetch
from vitjax.train.loop import train as loop
from vitjax.train.report import Report, read_metrics
from vitjax.train.signals import StopRequest, Watchdog
from vitjax.train.state import TrainState

FLAGS = [
    "--config=configs/digits.py", "--config.model.width=16", "--config.model.depth=1",
    "--config.model.num_heads=2", "--config.epochs=0", "--config.steps=30", "--config.log_every=4",
    "--config.eval_every=10", "--config.schedule.warmup_steps=3",
]  # fmt: skip


@pytest.fixture
def compilations(caplog: pytest.LogCaptureFixture):
    """Compiled functions so far, by what jax logs."""
    caplog.set_level(logging.DEBUG, "jax._src.interpreters.pxla")

    def names() -> list[str]:
        messages = [r.getMessage() for r in caplog.records]
        return [m.split()[1] for m in messages if m.startswith("Compiling")]

    return names


@pytest.mark.slow
def test_nothing_is_compiled_after_the_first_of_each(
    tmp_path: pathlib.Path, compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    log_train = Report.train

    def watch(self, step, *rest):
        counts.append((step, len(compilations())))
        log_train(self, step, *rest)

    monkeypatch.setattr(Report, "train", watch)
    assert train.main([*FLAGS, f"--workdir={tmp_path}"]) == 0
    assert sum("train_step" in name for name in compilations()) == 1
    assert sum("eval_step" in name for name in compilations()) == 1
    by_step = dict(counts)
    assert by_step[4] == by_step[8] == by_step[10] > 0  # up to the first evaluation and save
    assert by_step[12] == by_step[20] == by_step[30]  # and from there to the end


@pytest.mark.slow
def test_nothing_moves_between_host_and_devices_unasked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are put on the devices, and results fetched, by name; all else stays there."""
    guarded = []

    def guard(*arguments: Any, **options: Any) -> Any:
        with jax.transfer_guard("disallow"):
            guarded.append(True)
            return loop(*arguments, **options)

    monkeypatch.setattr("vitjax.train.loop.train", guard)
    trace = f"--profile=12:3 --workdir={tmp_path / 'run'}".split()
    assert train.main([*FLAGS, *trace]) == 0
    assert guarded
    (folder,) = (tmp_path / "run" / "profile" / "plugins" / "profile").iterdir()
    assert {"perfetto_trace.json.gz"} < {p.name for p in folder.iterdir()}
    assert train.main([*FLAGS, "--profile=30:3", f"--workdir={tmp_path / 'other'}"]) == 2
    assert train.main([*FLAGS, "--profile=3", f"--workdir={tmp_path / 'other'}"]) == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_run_begins_with_the_weights_that_it_is_given(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    short = ["--config.steps=3", "--config.schedule.warmup_steps=0"]
    assert train.main([*FLAGS, *short, f"--workdir={first}"]) == 0
    still = ["--config.schedule.learning_rate=0.0", "--config.model.image_size=12"]
    flags = [*FLAGS, *short, *still, "--config.data.image_size=12"]
    assert train.main([*flags, f"--config.init={first}", f"--workdir={second}"]) == 0
    given, found = (SavedSteps(f / "checkpoints").read()[1]["params"] for f in (first, second))
    assert found.pop("pos_embed").shape[1] == 36 > given.pop("pos_embed").shape[1]
    chex.assert_trees_all_equal(found, given)  # nothing was learnt
    wrong = [*flags, f"--config.init={tmp_path}", f"--workdir={tmp_path / 'third'}"]
    assert train.main(wrong) == 2


class Result:
    """Fake of a result array of a step."""

    def __init__(self, ready: bool) -> None:
        self.ready = ready

    def is_ready(self) -> bool:
        return self.ready


def test_time_counts_as_waiting_only_when_the_devices_have_run_dry(tmp_path: pathlib.Path) -> None:
    report = Report(tmp_path, start=0, steps=9, batch_size=2)

    def slow():
        import time

        while True:
            time.sleep(0.02)
            yield 1

    batches = slow()
    fetch(batches, Result(ready=False), report)
    report.train(1, np.ones(1), {})
    fetch(batches, Result(ready=True), report)
    report.train(2, np.ones(1), {})
    fetch(batches, None, report)
    report.train(3, np.ones(1), {})
    report.close()
    busy, dry, first = read_metrics(tmp_path / "metrics.jsonl")
    assert busy["data_wait"] == 0
    assert dry["data_wait"] > 0.5
    assert first["data_wait"] > 0.5


def test_a_resumed_report_drops_what_lies_ahead(tmp_path: pathlib.Path) -> None:
    rows = [{"step": s, "split": "train", "loss": 1.0} for s in (5, 10, 15)]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 20, "spl'
    (tmp_path / "metrics.jsonl").write_text(text)
    Report(tmp_path, start=10, steps=20, batch_size=1).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == rows[:2]


class Kept(Checkpoints):
    """Remembers which steps were saved."""

    def __init__(self) -> None:
        self.saved: list[int] = []

    def steps(self) -> list[int]:
        return self.saved

    def save(self, step, state, metrics=None, history=None) -> None:
        self.saved.append(step)

    def wait(self) -> None:
        pass


def config(**divergence) -> RunConfig:
    rules = DivergenceConfig(**divergence)
    return RunConfig(log_every=7, eval_every=5, checkpoint_every=5, on_divergence=rules)


def run_loop(folder: pathlib.Path, losses, stop: StopRequest | None = None) -> list[int]:
    """Thirty steps with the given losses, logged every 7 and saved every 5; what was saved."""
    checkpoints, values = Kept(), iter(losses)
    report = Report(folder, start=0, steps=30, batch_size=1)
    state = TrainState(jnp.zeros((), jnp.int32), {}, {}, (), None)
    try:
        loop(
            state, config(), start=0, steps=30, batches=lambda start: iter(range(start, 99)),
            step=lambda s, b: (s, {"loss": jnp.asarray(next(values))}),
            evaluate=lambda s: {"test": {"top1": 0.5}}, restore=lambda step: state,
            history=History(), checkpoints=checkpoints, report=report, stop=stop or StopRequest(),
            watchdog=Watchdog(0),
        )  # fmt: skip
    finally:
        report.close()
        (folder / "saved.json").write_text(json.dumps(checkpoints.saved))
    return checkpoints.saved


def test_the_first_bad_step_is_named_and_nothing_bad_is_saved(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DivergedError, match=r"nan at step 14\. The last checkpoint \(step 10\)"):
        run_loop(tmp_path, [1.0] * 13 + [float("nan")] * 30)
    assert json.loads((tmp_path / "saved.json").read_text()) == [5, 10]


def test_a_stop_that_comes_while_a_step_is_reported_saves_the_next(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, log_train = StopRequest(), Report.train

    def interrupt(self, step, *rest):
        log_train(self, step, *rest)
        stop.signal = "SIGTERM" if step == 7 else stop.signal

    monkeypatch.setattr(Report, "train", interrupt)
    assert run_loop(tmp_path, [1.0] * 30, stop) == [5, 8]


def test_clock() -> None:
    assert [clock(s) for s in (0, 75, 3675)] == ["0:00", "1:15", "1:01:15"]


def events(path: pathlib.Path) -> list[Any]:
    """Parse a file of TensorBoard events: length, its checksum, the event, its checksum."""
    from tensorboardX.proto import event_pb2

    message: Any = event_pb2  # its names are made when it is imported
    data, found = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        found.append(message.Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def test_a_full_disk_stops_no_run_and_loses_no_metrics(tmp_path, monkeypatch, capsys):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    room = [10**6]

    class Small:
        """A file on a disk that has so many bytes left."""

        def __init__(self, path: str | pathlib.Path):
            self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def write(self, data: bytes) -> int:
            if not room[0]:
                raise full
            written = min(len(data), room[0])
            room[0] -= written
            return os.write(self.file, data[:written])

        def flush(self) -> None: ...

        def close(self) -> None:
            os.close(self.file)

    monkeypatch.setattr("tensorboardX.record_writer.open_file", Small)
    report = Report(tmp_path, start=0, steps=100, batch_size=2)
    report._file.close()
    report._file = Small(tmp_path / "metrics.jsonl")
    for step in range(1, 31):
        # Room for one more row, and for half of an event; then for none.
        room[0] = {11: 160, 21: 10**6}.get(step, room[0])
        report.train(step, np.ones(1), {"learning_rate": 0.1})
        if step == 15:
            with pytest.raises(OSError, match="No space left"):
                report.settle()
    report.settle()
    room[0] = 0
    report.train(31, np.ones(1), {"learning_rate": 0.1})
    report.close()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 31))
    told = [line for line in capsys.readouterr().out.splitlines() if "cannot be written" in line]
    assert len(told) == 3, "once for each stretch, and at the end"
    assert "No space left on device). Training goes on" in told[0]
    assert told[2].endswith("Make room there. They are lost.")
    seen = {
        e.step for p in (tmp_path / "events").iterdir() if p.name.endswith(".20") for e in events(p)
    }
    assert seen == {0, *range(21, 31)}


def test_what_tensorboard_reads(tmp_path):
    report = Report(tmp_path, start=7, steps=100, batch_size=2)
    report.evaluation(11, "test", {"top1": 0.5, "loss": 0.25})
    report.close()
    (path,) = (tmp_path / "events").iterdir()
    found = events(path)
    assert [event.step for event in found] == [0, 8, 11, 11]
    values = {value.tag: value.simple_value for event in found for value in event.summary.value}
    assert values == {"test/top1": 0.5, "test/loss": 0.25}
