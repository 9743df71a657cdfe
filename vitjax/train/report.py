"""Reports of a run: a progress line, `metrics.jsonl`, TensorBoard events, tables, `curves.png`."""

import contextlib
import csv
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.console import clock, is_share, progress, show
from vitjax.figures import new_figure
from vitjax.train.goodput import BUCKETS, PROCESS, carried, spent
from vitjax.train.processes import is_lead

NOT_MEASURED = ("step", "split", "images", "time", "seconds")
"""Fields of a row that are no metrics."""


class Report:
    """Metrics of one run, written to its work folder by the first process.

    A resumed run continues the same files: rows that an interrupted run wrote after the resumed
    step are dropped first, so that every step occurs once. If the disk is full, rows wait in
    memory.

    Args:
      start: step from which the run continues; `steps`: length of the whole run.
      batch_size: images per step.
      listeners: called by the first process with each row of measurements.
      began: when this process was started, in seconds since 1970; the rows then say where the time
        goes, see `vitjax.train.goodput`. Without it they have no times.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        start: int,
        steps: int,
        batch_size: int,
        listeners: Sequence[Callable[[dict[str, Any]], None]] = (),
        began: float | None = None,
    ) -> None:
        self.folder, self.steps, self.batch_size = folder, steps, batch_size
        self._listeners = listeners
        self.path = folder / "metrics.jsonl"
        self._file: Any = None
        self._told, self._timed = False, began is not None and start < steps
        gone = self._open(start)
        self._since, self._step, self._waited = time.perf_counter(), start, 0.0
        self._written = self._since
        if self._timed:
            self._append({"step": start, "split": PROCESS, **gone, "began": began, **self._now()})

    def _open(self, start: int) -> dict[str, Any]:
        """Open the files behind a step, and summarise the time of the rows that are dropped."""
        self._unwritten = b""
        if not is_lead():
            return {}
        found = read_metrics(self.path)
        rows = [row for row in found if row["step"] <= start]
        gone = carried(rows, [row for row in found if row["step"] > start])
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        temporary.replace(self.path)
        self._file = self.path.open("ab", buffering=0)
        self._events = _Events(self.folder / "events", start)
        return gone if self._timed else {}

    def _now(self) -> dict[str, float]:
        return {"time": round(time.time(), 3)} if self._timed else {}

    def _seconds(self, elapsed: float) -> dict[str, float]:
        return {"seconds": round(elapsed, 3)} if self._timed else {}

    def rewind(self, step: int, bad: int, what: str, batches: int) -> None:
        """Roll back to `step`: drop all rows written since then, and report the rollback."""
        self.close()
        times = {**self._open(step), **self._seconds(time.perf_counter() - self._since)}
        self._write(step + 1, "rollback", {"from": bad, "skipped_batches": batches}, **times)
        progress(
            f"The loss {what} at step {bad}: going back to step {step}, and leaving out the next "
            f"{batches} batches of data.",
            last=True,
        )

    def waited(self, seconds: float) -> None:
        """Add time in which the devices were idle and waited for data."""
        self._waited += seconds

    def restart_clock(self, step: int) -> None:
        """Restart the clock, so that compilation and evaluation do not count as training time."""
        self._since, self._step, self._waited = time.perf_counter(), step, 0.0

    def train(self, step: int, losses: np.ndarray, metrics: Mapping[str, float]) -> None:
        """Report the mean loss and the speed of the steps since the last report, up to `step`."""
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        pace = elapsed / max(step - self._step, 1)
        row = {
            "loss": float(losses.mean()),
            **metrics,
            "images_per_second": self.batch_size / pace,
            "data_wait": self._waited / elapsed,
        }
        self._write(step, "train", row, **self._seconds(elapsed))
        progress(
            f"step {step}/{self.steps}  loss {row['loss']:.4f}  {row['images_per_second']:,.0f} "
            f"images/s  "
            f"waiting for data {row['data_wait']:.1%}  ETA {clock(pace * (self.steps - step))}",
            last=step == self.steps,
        )
        self.restart_clock(step)

    def evaluation(self, step: int, name: str, metrics: Mapping[str, float]) -> None:
        """Report the metrics of one evaluation, such as "test"."""
        self._write(step, name, metrics)
        progress(f"step {step}/{self.steps}  {name}: {show(metrics)}", last=True)

    def end(self) -> None:
        """Report that the process ends as it should, so that its last seconds are known."""
        if self._timed:
            saving = round(max(self._since - self._written, 0.0), 3)
            row = {"step": self._step, "split": PROCESS, "saving": saving, **self._now()}
            with contextlib.suppress(OSError):  # a full disk is told when the files are closed
                self._append(row)

    def settle(self) -> None:
        """Write the rows that waited for room on the disk.

        Raises:
          OSError: the disk is still full.
        """
        try:
            self._drain()
        except OSError as error:
            raise OSError(
                f"Metrics, {len(self._unwritten):,} bytes of them, cannot be written to "
                f"{self.folder} ({error.strerror or error}). Make room there."
            ) from error

    def close(self) -> None:
        """Close the files; rows for which there is no room are lost, with a message."""
        if self._file is None:
            return
        try:
            self.settle()
        except OSError as error:
            progress(f"{error} They are lost.", last=True)
        self._file.close()
        self._events.close()

    def _drain(self) -> None:
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def _append(self, row: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._unwritten += f"{json.dumps(row)}\n".encode()
            self._written = time.perf_counter()
            self._drain()

    def _write(self, step: int, split: str, metrics: Mapping[str, float], **times: Any) -> None:
        if self._file is None:
            return
        row = {"step": step, "split": split, **metrics, **times, **self._now()}
        try:
            self._append(row)
            self._events.write(step, {f"{split}/{name}": value for name, value in metrics.items()})
            self._told = False
        except OSError as error:
            if not self._told:
                progress(
                    f"The metrics cannot be written to {self.folder} ({error.strerror or error}). "
                    f"Training goes on, and metrics.jsonl gets them when there is room.",
                    last=True,
                )
            self._told = True
        for listener in self._listeners:
            listener(dict(row))


class _Events:
    """TensorBoard events after the step `start`; older events of these steps are hidden.

    They are written without a thread. The thread of tensorboardX's SummaryWriter dies when the disk
    is full, and the loop would then wait for it for ever.
    """

    def __init__(self, folder: pathlib.Path, start: int) -> None:
        self._folder, self._flushed = folder, 0.0
        self._writer = self._begin(start)

    def _begin(self, start: int) -> Any:
        # It takes 0.1 s, and only a run needs it.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        proto: Any = event_pb2  # the names of its messages are made when it is imported
        self._event, self._scalar = proto.Event, scalar
        self._folder.mkdir(exist_ok=True)
        writer = EventsWriter(str(self._folder / "events"), f".{start}")
        begin = proto.SessionLog(status=proto.SessionLog.START)
        writer.write_event(proto.Event(step=start + 1, session_log=begin))
        return writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one value for each name; they are on disk within half a minute.

        Raises:
          OSError: the disk is full. These values are lost, and the next ones go into another file,
            because the last record of this one may have been cut off.
        """
        now = time.time()
        try:
            if self._writer is None:
                self._writer = self._begin(step - 1)
            for name, value in values.items():
                event = self._event(step=step, wall_time=now, summary=self._scalar(name, value))
                self._writer.write_event(event)
            if now > self._flushed + 30:  # it waits for the disk
                self._writer.flush()
                self._flushed = now
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()


def write_by_class(
    folder: pathlib.Path, name: str, step: int, found: Mapping[str, Mapping[str, float]]
) -> None:
    """Write an evaluation's measures of each class to `by_class/NAME.csv`, replacing older ones.

    Only the first process writes. If the disk is full, the table is skipped with a message.
    """
    if not (found and is_lead()):
        return
    path = folder / "by_class" / f"{name}.csv"
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        with temporary.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["step", "class", *next(iter(found.values()))])
            for label, values in found.items():
                rows.writerow([step, label, *(f"{value:.10g}" for value in values.values())])
        temporary.replace(path)
    except OSError as error:
        progress(f"{path} cannot be written ({error.strerror or error}).", last=True)


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the rows of `metrics.jsonl`, without a line that a crash cut off."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


COLOURS = ("#009E73", "#E69F00", "#56B4E9", "#0072B2", "#CC79A7", "#D55E00", "#BBBBBB")
"""Of the buckets of time, of Okabe and Ito's palette, which colour-blind people tell apart."""


def plot_curves(folder: pathlib.Path, title: str) -> pathlib.Path:
    """Draw loss, test metrics and learning rate from `metrics.jsonl` into `curves.png`."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    rows = read_metrics(folder / "metrics.jsonl")

    def curve(split: str, name: str) -> tuple[list[int], list[float]]:
        points = [(r["step"], r[name]) for r in rows if r["split"] == split and name in r]
        return [p[0] for p in points], [p[1] for p in points]

    def train_curve(axes: Any, name: str, **style: Any) -> None:
        steps, values = curve("train", name)
        axes.plot(steps, values, marker="." if len(steps) == 1 else "", **style)  # no line is seen

    totals = spent(rows)
    figure = new_figure(12, 5.0 if any(totals.values()) else 3.6)
    if any(totals.values()):
        above, below = figure.subfigures(2, 1, height_ratios=(3.7, 1.3))
        plot_time(below.subplots(), totals)
    else:
        above = figure
    loss, accuracy, rate = above.subplots(1, 3)
    train_curve(loss, "loss", color="tab:blue", linewidth=1, label="training")
    loss.plot(*curve("test", "loss"), color="tab:orange", marker="o", markersize=3, label="test")
    loss.set(yscale="log", ylabel="loss")
    loss.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    for which in (loss.yaxis.set_major_formatter, loss.yaxis.set_minor_formatter):
        which(StrMethodFormatter("{x:g}"))
    loss.legend(frameon=False)
    tests = [row for row in rows if row["split"] == "test"]
    names = [k for k in (tests[-1] if tests else {}) if k not in (*NOT_MEASURED, "loss")]
    for name, colour in zip(names, ("tab:orange", "tab:green", "tab:purple", "tab:brown")):
        steps, values = curve("test", name)
        share = is_share(name)
        label = f"{name}, last {values[-1]:.2%}" if share else f"{name}, last {values[-1]:.4g}"
        shown = [100 * v for v in values] if share else values
        accuracy.plot(steps, shown, color=colour, marker="o", markersize=3, label=label)
    percent = any(map(is_share, names))
    accuracy.set(ylabel="test accuracy (%)" if percent else "test")
    if accuracy.lines:
        accuracy.legend(frameon=False, loc="lower right")
    train_curve(rate, "learning_rate", color="tab:gray")
    rate.set(ylabel="learning rate")
    for axes in (loss, accuracy, rate):
        axes.set(xlabel="step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    path = folder / "curves.png"
    figure.savefig(path, dpi=120)
    return path


def plot_time(axes: Any, totals: Mapping[str, float]) -> None:
    """Draw where the wall time went, as one bar with the share of each bucket."""
    wall, left = sum(totals.values()), 0.0
    for name, colour in zip(BUCKETS, COLOURS, strict=True):
        share = 100 * totals[name] / wall
        if share >= 0.05:
            label = f"{name} {share:.1f}%"
            axes.barh(0, share, left=left, color=colour, edgecolor="white", label=label)
        left += share
    axes.set(xlim=(0, 100), yticks=[], xlabel=f"wall time (%), of {clock(wall)}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(
        frameon=False, ncols=len(BUCKETS), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9
    )
