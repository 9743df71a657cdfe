"""Kill random workers of a sweep, and compare its results with those of a sweep left alone.

`python benchmarks/sweep_chaos.py FOLDER --kills=40` runs a grid of 48 small cells (two sizes of a
ViT on the digits, two lengths, twelve seeds) with one worker that is left alone, and again with two
workers, one of which is killed by SIGKILL at a random moment, again and again, and replaced: while
it starts, trains, saves, writes a result or holds a lease. The files `result.json` of both, which
hold the last metrics and the SHA-256 of the parameters, must have the same bytes.

The same command goes on where it was stopped.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
SWEEP = f"{pathlib.Path(__file__).parent / 'sweep_grid.py'}"


def start(folder: pathlib.Path, log: pathlib.Path, lease: float) -> subprocess.Popen:
    """Start a worker."""
    command = [
        sys.executable, "-m", "vitjax.cli", "sweep", "run", SWEEP, f"--workdir={folder}", "--next",
        "--wait", f"--lease-seconds={lease}",
    ]  # fmt: skip
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with log.open("a") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)


def results(folder: pathlib.Path) -> dict[str, bytes]:
    """Read the result files of a sweep, by cell."""
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/result.json")}


def attempts(folder: pathlib.Path) -> collections.Counter[int]:
    """Count the cells by the number of times that they were begun."""
    return collections.Counter(len(list(p.iterdir())) for p in folder.glob("*/leases"))


def main() -> None:
    """Run both sweeps, print the figures, and write them to `chaos.json` in the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=15.0, help="mean seconds between kills")
    parser.add_argument("--lease", type=float, default=6.0, help="seconds of a lease")
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    whole, killed, state = o.folder / "whole", o.folder / "killed", o.folder / "kills.json"
    o.folder.mkdir(parents=True, exist_ok=True)
    if start(whole, o.folder / "whole.log", o.lease).wait():
        raise SystemExit(f"The sweep that was left alone failed; see {o.folder / 'whole.log'}.")
    expected = results(whole)
    print(f"{len(expected)} cells are done, left alone.", flush=True)

    kills = json.loads(state.read_text()) if state.exists() else 0
    rng = random.Random(o.seed + kills)
    workers: list[subprocess.Popen] = []
    due = time.monotonic() + rng.expovariate(1 / o.every)
    while len(results(killed)) < len(expected):
        workers = [worker for worker in workers if worker.poll() is None]
        while len(workers) < o.workers:
            workers.append(start(killed, o.folder / "killed.log", o.lease))
        if kills < o.kills and time.monotonic() > due:
            rng.choice(workers).kill()
            kills += 1
            state.write_text(json.dumps(kills))
            due = time.monotonic() + rng.expovariate(1 / o.every)
            print(f"{kills} kills, {len(results(killed))} cells done", flush=True)
        time.sleep(0.05)
    for worker in workers:
        worker.wait()
    found = results(killed)
    same = sum(found[cell] == expected[cell] for cell in expected)
    figures = {
        "cells": len(expected),
        "kills": kills,
        "bit-identical": same,
        "cells by times begun": dict(sorted(attempts(killed).items())),
    }
    print(json.dumps(figures))
    (o.folder / "chaos.json").write_text(json.dumps(figures, indent=2) + "\n")
    if same != len(expected):
        raise SystemExit("Results differ.")


if __name__ == "__main__":
    main()
