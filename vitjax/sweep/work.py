"""Workers: take a cell that is free, run it, write its result, and take the next."""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from vitjax.console import clock, progress
from vitjax.sweep import lease
from vitjax.sweep.cells import Cell, write_whole
from vitjax.train import signals
from vitjax.train.checkpoint import SavedSteps
from vitjax.train.goodput import PROCESS
from vitjax.train.report import read_metrics
from vitjax.train.state import sha256
from vitjax.training import quiet_libraries
from vitjax.training import run as train

DONE, FAILED, RUNNING, WAITING, FREE = "done", "failed", "running", "waiting", "free"
STATES = (DONE, RUNNING, FREE, WAITING, FAILED)
NOT_RESULTS = ("train", "rollback", PROCESS)
"""Splits of metrics that are not of evaluations."""
Run = Callable[[Cell, pathlib.Path], int]


class State(NamedTuple):
    """State of a cell, and why."""

    name: str
    why: str = ""


def state_of(cell: Cell, folder: pathlib.Path, now: float, seconds: float) -> State:
    """Tell the state of a cell from the files in the sweep's folder.

    Args:
      now, seconds: see `lease.is_alive`.
    """
    own = folder / cell.id
    if read_result(own, cell.id) is not None:
        return State(DONE)
    held = lease.latest(own / "leases")
    if held is not None and lease.is_alive(held, now, seconds):
        who = lease.owner(held)
        return State(RUNNING, f"process {who.get('pid', '?')} on {who.get('host', '?')}")
    failure = own / "failure.json"
    if failure.exists():
        return State(FAILED, json.loads(failure.read_text())["error"])
    if cell.trunk and read_result(folder / cell.trunk, cell.trunk) is None:
        return State(WAITING, f"for its trunk {cell.trunk}")
    return State(FREE, f"begun {int(held.name)} times" if held else "")


def read_result(folder: pathlib.Path, name: str) -> dict[str, Any] | None:
    """Read the result of a cell; None if it is not there, or of another cell."""
    path = folder / "result.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get("id") == name else None


def make_result(cell: Cell, folder: pathlib.Path) -> dict[str, Any]:
    """Make the result of a finished run: last metrics of each evaluation, SHA-256 of parameters.

    It has no times and no names of machines: the same run has the same bytes everywhere.
    """
    rows = [r for r in read_metrics(folder / "metrics.jsonl") if r["split"] not in NOT_RESULTS]
    step = max(row["step"] for row in rows)
    metrics = {
        row["split"]: {
            k: v for k, v in row.items() if k not in ("step", "split", "time", "seconds")
        }
        for row in rows
        if row["step"] == step
    }
    variables = SavedSteps(folder / "checkpoints").read(step)[1]
    return {"id": cell.id, "step": step, "sha256": sha256(variables["params"]), "metrics": metrics}


def run_cell(cell: Cell, folder: pathlib.Path) -> int:
    """Train a cell in its folder, write its result, and return the exit code of the run."""
    quiet_libraries()
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals.leave_at_once())
        code = train(cell.placed(folder), folder / cell.id, stack)
    jax.clear_caches()  # each cell has programs of its own
    if code == 0:
        text = json.dumps(make_result(cell, folder / cell.id), indent=2) + "\n"
        write_whole(folder / cell.id / "result.json", text)
    return code


def take(cell: Cell, folder: pathlib.Path, run: Run, seconds: float) -> int | None:
    """Run a cell if no other worker has it.

    A run that fails leaves its error in `failure.json`, and each attempt leaves a row in
    `attempts.jsonl`.

    Returns:
      Exit code: 0, 1 for a failure, 75 for a run that was stopped; None if another has the cell.
    """
    own = folder / cell.id
    held = lease.claim(own / "leases", seconds)
    if held is None:
        return None
    begin, code = time.monotonic(), 1
    try:
        if read_result(own, cell.id) is not None:
            return 0  # another finished it just now
        try:
            code = run(cell, folder)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            write_whole(own / "failure.json", json.dumps({"error": text}) + "\n")
            progress(f"The cell {cell.id} failed: {text}", last=True)
        else:
            (own / "failure.json").unlink(missing_ok=True)
        with (own / "attempts.jsonl").open("a") as file:
            row = {"seconds": round(time.monotonic() - begin, 3), "code": code}
            file.write(json.dumps(row) + "\n")
    finally:
        held.release()
    return code


def work(
    cells: Sequence[Cell],
    rows: Sequence[Mapping[str, Any]],
    folder: pathlib.Path,
    *,
    run: Run = run_cell,
    seconds: float = lease.SECONDS,
    limit: int = 0,
    retry: bool = False,
    wait: bool = False,
) -> int:
    """Run free cells, one after the other, until none is left.

    Trunks come first, and then the cells that take most: the small ones fill the time at the end.

    Args:
      rows: of the sweep's table, for the order.
      seconds: see `lease.claim`.
      limit: cells to run at most; 0 for any number.
      retry: also run cells that failed, once.
      wait: while other workers run cells, wait for those that they give back or make free.

    Returns:
      0, 1 if a cell failed, or 75 if a run was stopped.
    """
    trunks = {cell.trunk for cell in cells}
    cost = {row["id"]: row["own_flops"] for row in rows}
    order = sorted(cells, key=lambda cell: (cell.id not in trunks, -cost[cell.id]))
    tried: set[str] = set()
    code = 0

    def free() -> Iterator[Cell]:
        now = lease.file_time(folder)
        for cell in order:
            state = state_of(cell, folder, now, seconds).name
            again = state == FAILED and retry and cell.id not in tried
            if state == FREE or again:
                yield cell

    while not (limit and len(tried) >= limit):
        for cell in free():
            found = take(cell, folder, run, seconds)
            if found == signals.STOPPED:
                return found
            if found is not None:
                tried.add(cell.id)
                code = max(code, found)
                break
        else:
            now = lease.file_time(folder)
            left = {state_of(cell, folder, now, seconds).name for cell in cells}
            if not (wait and RUNNING in left):
                break
            time.sleep(min(seconds / lease.BEATS, 5.0))
    return code


def expected_seconds(
    cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]], folder: pathlib.Path
) -> Callable[[Mapping[str, Any]], float] | None:
    """Fit seconds of a cell = a + b · (its own FLOPs) to the finished cells, a and b at least 0.

    Returns:
      Row of the table → seconds; None if no cell is finished.
    """
    import numpy as np
    from scipy.optimize import nnls

    known = []
    for cell, row in zip(cells, rows):
        path = folder / cell.id / "attempts.jsonl"
        if read_result(folder / cell.id, cell.id) is None or not path.exists():
            continue
        attempts = [json.loads(line) for line in path.read_text().splitlines()]
        known.append((row["own_flops"], sum(attempt["seconds"] for attempt in attempts)))
    if not known:
        return None
    flops, seconds = np.array(known).T
    a, b = nnls(np.stack([np.ones_like(flops), flops / flops.max()], axis=1), seconds)[0]
    return lambda row: float(a + b * row["own_flops"] / flops.max())


def status(
    cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]], folder: pathlib.Path, seconds: float
) -> dict[str, Any]:
    """Tell the state of all cells, and when the sweep will be done.

    The ETA supposes that as many workers go on as run now, and one if none does.
    """
    now = lease.file_time(folder)
    states = [state_of(cell, folder, now, seconds) for cell in cells]
    expect, left = expected_seconds(cells, rows, folder), 0.0
    shown = []
    for cell, row, state in zip(cells, rows, states):
        step = 0
        if state.name not in (DONE, FAILED):
            seen = [r["step"] for r in read_metrics(folder / cell.id / "metrics.jsonl")]
            step = max([*seen, cell.config.init_step])
            whole = row["steps"] - cell.config.init_step
            share = 1 - (step - cell.config.init_step) / whole
            left += expect(row) * share if expect else 0.0
        shown.append({"index": row["index"], "id": cell.id, "state": state.name, "why": state.why,
                      "step": row["steps"] if state.name == DONE else step,
                      "steps": row["steps"]})  # fmt: skip
    counts = {name: sum(state.name == name for state in states) for name in STATES}
    unfinished = counts[RUNNING] + counts[FREE] + counts[WAITING]
    eta = (
        left / max(counts[RUNNING], 1) if expect and unfinished else 0.0 if not unfinished else None
    )
    return {**counts, "eta_seconds": eta, "cells": shown}


def report(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Format a status as text: the numbers, and a line for each cell that is not done or free."""
    counts = ", ".join(f"{found[name]} {name}" for name in STATES if found[name])
    eta = found["eta_seconds"]
    text = [f"{len(rows)} cells: {counts}; " + (
        "all that can be done is done" if eta == 0 else
        f"ETA {clock(eta)}" if eta is not None else "no ETA before a cell is done"
    )]  # fmt: skip
    for cell in found["cells"]:
        if cell["state"] in (RUNNING, FAILED, WAITING):
            at = f"step {cell['step']:,} of {cell['steps']:,}" if cell["state"] == RUNNING else ""
            words = [f"{cell['index']:>5}  {cell['id']}  {cell['state']}", at, cell["why"]]
            text.append("  ".join(word for word in words if word))
    return "\n".join(text)
