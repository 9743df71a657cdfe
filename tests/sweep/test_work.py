"""Workers share a grid: killed ones leave no trace in the results; failures and states are told."""

import json
import multiprocessing
import os
import pathlib
import random
import time
from typing import Any

import pytest

from tests.sweep.fake_worker import main as work_alone
from vitjax.sweep import lease, work
from vitjax.sweep.cells import Cell, read_cells

SWEEP = """
def get_sweep():
    for seed in range(9):
        yield dict(seed=seed, steps=4, model=dict(name="vit_ti2", width=16, depth=1, num_heads=2),
                   data=dict(image_size=8))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sweep") / "nine.py"
    path.write_text(SWEEP)
    return str(path)


def results(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/result.json")}


@pytest.mark.slow
def test_killed_workers_change_no_result(file: str, tmp_path: pathlib.Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert work_alone(file, whole) == 0
    rng, kills = random.Random(0), 0
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.sweep.fake_worker"])  # once for all workers
    workers: list[Any] = []
    while len(results(killed)) < 9:
        workers = [w for w in workers if w.is_alive()]
        while len(workers) < 2:
            workers.append(processes.Process(target=work_alone, args=(file, killed)))
            workers[-1].start()
        if kills < 3 and len(results(killed)) > 2 * kills:
            time.sleep(0.1 * rng.random())
            rng.choice(workers).kill()
            kills += 1
        time.sleep(0.05)
    for worker in workers:
        worker.join(30)
    assert kills == 3 and results(killed) == results(whole)
    assert any(len(list(p.iterdir())) > 1 for p in killed.glob("*/leases"))  # taken over


def cells_and_rows(file: str) -> tuple[list[Cell], list[dict]]:
    cells = read_cells(file)
    rows = [
        {"index": i, "id": c.id, "own_flops": 10.0 * (i + 1), "steps": 4}
        for i, c in enumerate(cells)
    ]
    return cells, rows


def test_a_failure_is_kept_and_told_and_tried_again_if_asked(
    file: str, tmp_path: pathlib.Path
) -> None:
    cells, rows = cells_and_rows(file)
    seen = []

    def run(cell: Cell, folder: pathlib.Path) -> int:
        seen.append(cell.id)
        if cell is cells[3] and seen.count(cell.id) == 1:
            raise ValueError("The loss is nan.")
        (folder / cell.id / "result.json").write_text(json.dumps({"id": cell.id}))
        return 0

    assert work.work(cells, rows, tmp_path, run=run, limit=2) == 0
    assert seen == [cells[8].id, cells[7].id]  # those that take most come first
    assert work.work(cells, rows, tmp_path, run=run) == 1
    found = work.status(cells, rows, tmp_path, 60.0)
    assert (found["done"], found["failed"], found["eta_seconds"]) == (8, 1, 0.0)
    assert "ValueError: The loss is nan." in work.report(found, rows)
    assert work.work(cells, rows, tmp_path, run=run) == 0 and len(seen) == 9  # not again
    assert work.work(cells, rows, tmp_path, run=run, retry=True) == 0
    assert work.status(cells, rows, tmp_path, 60.0)["done"] == 9


def test_a_stopped_run_is_given_back(file: str, tmp_path: pathlib.Path) -> None:
    cells, rows = cells_and_rows(file)
    assert work.work(cells, rows, tmp_path, run=lambda cell, folder: 75) == 75
    now = lease.file_time(tmp_path)
    states = [work.state_of(cell, tmp_path, now, 60.0) for cell in cells]
    assert [s.name for s in states] == ["free"] * 9 and states[8].why == "begun 1 times"


def test_status_tells_who_runs_and_when_all_is_done(file: str, tmp_path: pathlib.Path) -> None:
    cells, rows = cells_and_rows(file)
    for i in (0, 1):  # 5 s and 1 s for each 10 operations
        own = tmp_path / cells[i].id
        own.mkdir()
        (own / "result.json").write_text(json.dumps({"id": cells[i].id}))
        (own / "attempts.jsonl").write_text(json.dumps({"seconds": 6.0 + i, "code": 0}) + "\n")
    (tmp_path / cells[2].id).mkdir()
    (tmp_path / cells[2].id / "result.json").write_text(json.dumps({"id": "of another cell"}))
    held = lease.claim(tmp_path / cells[3].id / "leases", 60.0)
    assert held is not None
    metrics = {"step": 2, "split": "train", "loss": 1.0}
    (tmp_path / cells[3].id / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    found = work.status(cells, rows, tmp_path, 60.0)
    assert (found["done"], found["running"], found["free"]) == (2, 1, 6)
    expected = (5 + 3) + (5 + 4) / 2 + sum(5 + i for i in range(5, 10))
    assert found["eta_seconds"] == pytest.approx(expected)
    assert f"running  step 2 of 4  process {os.getpid()} on" in work.report(found, rows)
    held.release()
