"""Command `vitjax sweep`: parses its arguments, and prints what `vitjax.sweep` found."""

import argparse
import json
import pathlib
import shlex
from typing import Any

from vitjax.names import check_choice

ACTIONS = ("run", "commands", "status", "fit", "plot")
LEAST = 40
"""Resamples, so that one lies beyond each bound of 95 %."""


def sweep(options: argparse.Namespace) -> tuple[Any, str]:
    """Run a grid of configs on any number of workers, and fit scaling laws: docs/scaling.md.

    sweep FILE            writes the table of its cells, cells.jsonl
    sweep run FILE        runs a cell (--index), or what is free, one after the other (--next)
    sweep commands FILE   prints a line a cell, for job arrays, GNU parallel, xpk, SkyPilot
    sweep status FILE     tells what is done, runs, failed and why, and the remaining time
    sweep fit FILE        fits L(N, D) and L(C) to the finished cells, with intervals
    sweep plot FILE       draws them

    FILE is a Python file whose get_sweep() yields configs, or the name of one that comes along.
    """
    from vitjax.sweep.cells import open_sweep

    *action, file = options.words
    if len(action) > 1:
        raise ValueError(f"vitjax sweep takes an action and a file; got {' '.join(options.words)}.")
    if action:
        check_choice("action", action[0], ACTIONS)
    elif file in ACTIONS:
        raise ValueError(f"vitjax sweep {file} needs the sweep's file; see vitjax sweep --help.")
    o = options
    running = o.next or o.index is not None
    if running != (action == ["run"]) or (o.next and o.index is not None):
        raise ValueError(
            "vitjax sweep run FILE takes one of --index=N and --next, and other actions none."
        )
    if o.lease_seconds <= 0 or o.limit < 0 or o.resamples < LEAST:
        raise ValueError(
            f"--lease-seconds must be above 0, --limit 0 or more, and --resamples {LEAST} or more; "
            f"{o.lease_seconds:g}, {o.limit} and {o.resamples} are given."
        )
    stem, _, argument = file.partition(":")
    name = "-".join(part for part in (pathlib.Path(stem).stem, argument.replace("/", "-")) if part)
    folder = o.workdir or pathlib.Path("runs") / name
    cells, rows = open_sweep(file, folder)
    if not action:
        return _table(rows, folder)
    return {"run": _run, "commands": _commands, "status": _status, "fit": _fit, "plot": _plot}[
        action[0]
    ](o, file, folder, cells, rows)


def sweep_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `sweep`."""
    add = sub.add_argument
    add(
        "words",
        nargs="+",
        metavar="[ACTION] FILE[:ARGUMENT]",
        help=f"{', '.join(ACTIONS)}; without one the table is written",
    )
    add(
        "--workdir",
        type=pathlib.Path,
        metavar="FOLDER",
        help="shared by all workers (runs/ and the file's name)",
    )
    add("--index", type=int, metavar="N", help="run: the cell of this number, from 0")
    add("--next", action="store_true", help="run: free cells until none is left")
    add("--limit", type=int, default=0, help="run --next: cells at most (any number)")
    add("--retry", action="store_true", help="run: also cells that failed")
    add(
        "--wait",
        action="store_true",
        help="run --next: wait for cells that others run or give back",
    )
    add("--lease-seconds", type=float, default=60.0, metavar="S", help="run, status: a worker "
        "without a heartbeat for so long has lost its cell (60)")  # fmt: skip
    add("--metric", default="test/loss", metavar="EVAL/METRIC", help="fit, plot: what the law is "
        "of; a share such as test/top1 becomes the odds of an error (test/loss)")  # fmt: skip
    add(
        "--axis",
        choices=("D", "images"),
        default="D",
        help="fit, plot: samples seen, or different training images (D)",
    )
    add("--resamples", type=int, default=500, help="fit, plot: for the intervals (500)")
    add("--predict", action="append", default=[], metavar="N,D", help="fit: the loss there; may be "
        "given again")  # fmt: skip
    add("--extrapolate", action="store_true", help="fit: predict beyond 10 times the largest cell")


def _table(rows: list[dict[str, Any]], folder: pathlib.Path) -> tuple[Any, str]:
    from vitjax.console import table

    def span(key: str) -> str:
        values = [row[key] for row in rows]
        return f"{min(values):,.4g} to {max(values):,.4g}"

    total = sum(row["own_flops"] for row in rows)
    branches = sum(bool(row["trunk"]) for row in rows)
    return rows, table(
        {
            "cells": f"{len(rows)}" + (f", {branches} of them branches" if branches else ""),
            "N, parameters": span("N"),
            "D, samples seen": span("D"),
            "C, FLOPs of a cell": span("flops"),
            "all together": f"{total:.3g} FLOP",
            "table": str(folder / "cells.jsonl"),
        }.items()
    )


def _run(
    o: argparse.Namespace, file: str, folder: pathlib.Path, cells: list[Any], rows: list[Any]
) -> tuple[Any, str]:
    from vitjax.sweep import work

    del file
    if o.index is not None:
        if not 0 <= o.index < len(cells):
            raise ValueError(f"--index={o.index}: the sweep has cells 0 to {len(cells) - 1}.")
        cell = cells[o.index]
        now = work.lease.file_time(folder)
        state = work.state_of(cell, folder, now, o.lease_seconds)
        if state.name in (work.DONE, work.RUNNING) or (state.name == work.FAILED and not o.retry):
            o.code = 0 if state.name != work.FAILED else 1
            return state._asdict(), f"{cell.id} {state.name}: {state.why}".rstrip(": ")
        if state.name == work.WAITING:
            o.code = work.signals.STOPPED  # start it again later
            return state._asdict(), f"{cell.id} waits {state.why}; start it again when it is done."
        code = work.take(cell, folder, work.run_cell, o.lease_seconds)
        o.code = code or 0
    else:
        o.code = work.work(
            cells, rows, folder, seconds=o.lease_seconds, limit=o.limit, retry=o.retry, wait=o.wait
        )
    found = work.status(cells, rows, folder, o.lease_seconds)
    return found, work.report(found, rows)


def _commands(
    o: argparse.Namespace, file: str, folder: pathlib.Path, cells: list[Any], rows: list[Any]
) -> tuple[Any, str]:
    from vitjax.sweep.work import read_result

    del o
    start = ["vitjax", "sweep", "run", file]
    lines = [
        shlex.join([*start, f"--workdir={folder}", f"--index={row['index']}"])
        for cell, row in zip(cells, rows)
        if read_result(folder / cell.id, cell.id) is None
    ]
    return lines, "\n".join(lines)


def _status(
    o: argparse.Namespace, file: str, folder: pathlib.Path, cells: list[Any], rows: list[Any]
) -> tuple[Any, str]:
    from vitjax.sweep.work import report, status

    del file
    found = status(cells, rows, folder, o.lease_seconds)
    return found, report(found, rows)


def _fit(
    o: argparse.Namespace, file: str, folder: pathlib.Path, cells: list[Any], rows: list[Any]
) -> tuple[Any, str]:
    from vitjax.sweep import fits
    from vitjax.sweep.cells import write_whole
    from vitjax.sweep.points import gather

    del file
    found = fits.fit_points(gather(cells, rows, folder, o.metric, o.axis), o.resamples)
    predicted = fits.predictions(found, o.predict, o.extrapolate)
    result = fits.to_json(found, o.metric, o.axis, predicted)
    write_whole(folder / "fit.json", json.dumps(result, indent=2) + "\n")
    return result, fits.report(result)


def _plot(
    o: argparse.Namespace, file: str, folder: pathlib.Path, cells: list[Any], rows: list[Any]
) -> tuple[Any, str]:
    from vitjax.sweep.fits import fit_points
    from vitjax.sweep.pictures import draw
    from vitjax.sweep.points import gather
    from vitjax.tools.commands import say

    points = gather(cells, rows, folder, o.metric, o.axis)
    try:
        fits = fit_points(points, o.resamples)
    except ValueError as error:  # too few cells
        say(f"Without fitted lines: {error}")
        fits = None
    title = pathlib.Path(file.partition(":")[0]).stem
    paths = draw(points, fits, folder, title, o.metric, o.axis)
    return [str(path) for path in paths], "\n".join(map(str, paths))
