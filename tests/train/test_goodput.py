"""Wall time by bucket: cases computed by hand, and a loop whose clock is told what time it is."""

import json
import pathlib
from typing import Any

import cv2
import numpy as np
import pytest

from vitjax.train.goodput import BUCKETS, carried, describe, process_began, spent
from vitjax.train.report import Report, plot_curves, read_metrics


def row(step: int, split: str, time: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "split": split, "time": time, **more}


FIRST = [
    row(0, "process", 110.0, began=100.0),
    row(10, "train", 140.0, seconds=20.0, data_wait=0.25),  # 10 s of compilation before it
    row(20, "train", 160.0, seconds=20.0, data_wait=0.0),
    row(20, "test", 165.0),
    row(20, "v2", 167.0),
    row(30, "train", 188.0, seconds=20.0, data_wait=0.0),  # a save of 1 s before it
]
ENDED = [row(30, "process", 191.0, saving=2.0)]


def non_zero(totals: dict[str, float]) -> dict[str, float]:
    return {name: seconds for name, seconds in totals.items() if seconds}


def test_a_run_by_hand() -> None:
    totals = spent([*FIRST, *ENDED])
    assert non_zero(totals) == {
        "productive": 55,
        "data": 5,
        "evaluation": 7,
        "checkpoint": 3,
        "initialisation": 21,
    }
    assert sum(totals.values()) == 191 - 100
    assert list(totals) == list(BUCKETS)
    assert describe(totals) == (
        "60.4% of 1:31 productive; data 5.5%, evaluation 7.7%, checkpoint 3.3%, "
        "initialisation 23.1%"
    )
    assert describe(spent([])) == ""
    assert sum(spent([{"step": 1, "split": "train", "loss": 1.0}]).values()) == 0


def test_what_a_killed_run_did_after_its_checkpoint_is_lost() -> None:
    """Killed after step 30, it goes on at 500 from step 20; and once more, from step 10."""
    kept = [r for r in FIRST if r["step"] <= 20]
    gone = carried(kept, FIRST[len(kept) :])
    assert gone == {"carried": {"lost": 21, "initialisation": 0, "stopped": 0}, "until": 188}
    second = [
        row(20, "process", 504.0, began=500.0, **gone),
        row(30, "train", 530.0, seconds=20.0, data_wait=0.0),
    ]
    totals = spent([*kept, *second])
    assert sum(totals.values()) == 530 - 100
    assert non_zero(totals) == {
        "productive": 55,
        "data": 5,
        "evaluation": 7,
        "initialisation": 20 + 4 + 6,
        "lost": 21,
        "stopped": 500 - 188,
    }
    earlier = [r for r in kept if r["step"] <= 10]
    gone = carried(earlier, [*kept[len(earlier) :], *second])
    third = [*earlier, row(10, "process", 610.0, began=600.0, **gone)]
    totals = spent(third)
    assert sum(totals.values()) == 610 - 100
    assert totals["lost"] == 21 + 20 + 7 + 20 and totals["stopped"] == 312 + 70
    assert totals["productive"] == 15


def test_a_rollback_loses_what_lies_behind_it() -> None:
    gone = carried(FIRST[:2], FIRST[2:])
    back = row(11, "rollback", 190.0, seconds=2.0, **{"from": 31}, **gone)
    totals = spent([*FIRST[:2], back])
    assert sum(totals.values()) == 190 - 100
    assert totals["lost"] == 190 - 140


class Clock:
    """Clock of a test, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("vitjax.train.report.time.time", lambda: self.now)
        monkeypatch.setattr("vitjax.train.report.time.perf_counter", lambda: self.now - 900)


def test_a_report_writes_what_is_needed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed, one that goes back, and one that only shows the result."""
    at, losses = Clock(monkeypatch), np.ones(1)

    def process(start: int) -> Report:
        at.now += 50  # nothing ran
        began, at.now = at.now, at.now + 5
        report = Report(tmp_path, start=start, steps=30, batch_size=1, began=began)
        at.now += 7
        report.restart_clock(start)  # compiled
        return report

    report = process(0)
    for step in (10, 20):
        at.now += 20
        report.waited(4.0)
        report.train(step, losses, {})
        if step == 10:
            at.now += 3
            report.evaluation(step, "test", {"top1": 0.5, "loss": 1.0})
            at.now += 1
            report.restart_clock(step)  # saved
    report.close()  # killed, and its last row is of step 20
    at.now += 9

    report = process(10)
    at.now += 30
    report.rewind(10, 15, "is nan", 5)
    report.restart_clock(10)
    for step in (20, 30):
        at.now += 20
        report.train(step, losses, {})
    at.now += 2
    report.evaluation(30, "test", {"top1": 0.6, "loss": 1.0})
    at.now += 3
    report.restart_clock(30)  # saved
    at.now += 1
    report.end()
    report.close()

    rows = read_metrics(tmp_path / "metrics.jsonl")
    totals = spent(rows)
    assert sum(totals.values()) == pytest.approx(at.now - 1050)
    assert totals == pytest.approx({
        "productive": 16 + 40, "data": 4, "evaluation": 5, "checkpoint": 3,
        "initialisation": 12 + 12 + 1, "lost": 1 + 20 + 30, "stopped": 9 + 50,
    })  # fmt: skip
    before = (tmp_path / "metrics.jsonl").read_text()
    report = Report(tmp_path, start=30, steps=30, batch_size=1, began=at.now)
    report.end()
    report.close()
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert plot_curves(tmp_path, "a run").stat().st_size > 10_000


def test_when_a_process_began() -> None:
    import time

    assert 0 <= time.time() - process_began() < 24 * 3600


def test_the_curves_show_a_run_with_a_single_row_of_training(tmp_path: pathlib.Path) -> None:
    rows = [{"step": 100, "split": "train", "loss": 1.5, "learning_rate": 1e-3, "time": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    picture = cv2.imread(str(plot_curves(tmp_path, "a run")))
    assert picture is not None
    grey = (picture == 0x7F).all(axis=2)  # "tab:gray", that of the learning rate
    rate = grey[picture.shape[0] // 4 : 3 * picture.shape[0] // 4, 3 * picture.shape[1] // 4 :]
    assert 9 < rate.sum() < 400
