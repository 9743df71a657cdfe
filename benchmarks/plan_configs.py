"""Count and plan every run of configs/, and write the table of docs/plan.md.

  python benchmarks/plan_configs.py                 # runs without a row
  --count                                           # count only: seconds per run, no compiler
  --only=ade20k --limit=5                           # at most five runs whose name has "ade20k"
  --topology=v5e:2x2 --again                        # all runs again

Planning needs the extra `plan`, and no TPU. Each run is planned in a separate process, with
`--quick`. "Planned in" is the processor time and peak memory of that process. Rows are stored in
benchmarks/planned.json, from which the table is written, so that planning can be interrupted.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from plan_table import ROOT, write

ROWS = ROOT / "benchmarks" / "planned.json"
FILES = (
    "imagenet", "vit", "finetune", "ade20k", "cityscapes", "restoration", "detection", "video",
)  # fmt: skip


def runs(file: str) -> list[str]:
    """List the names of a config file's runs, as `--config` takes them."""
    spec = importlib.util.spec_from_file_location(file, ROOT / "configs" / f"{file}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [f"{file}:{name}" for name in module.RUNS]


def plan(run: str, *flags: str) -> dict[str, Any]:
    """Plan a run, and return its row, with the key "error" if the plan failed."""
    command = [sys.executable, "-m", "vitjax.cli", "plan", f"--config={run}", "--json", *flags]
    with tempfile.TemporaryDirectory() as folder:  # an empty cache: the seconds of a first plan
        files = [open(pathlib.Path(folder) / name, "w+") for name in ("out", "err")]  # noqa: SIM115
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=files[0],
            stderr=files[1],
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": folder},
        )
        _, status, usage = os.wait4(process.pid, 0)
        out, errors = (pathlib.Path(file.name).read_text().strip() for file in files)
        for file in files:
            file.close()
    seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6
    row = {"seconds": round(seconds), "peak_gb": round(peak, 2)}
    if status:
        return {**row, "error": errors.splitlines()[-1]}
    found = json.loads(out.splitlines()[-1])
    kept = (
        *("batch_size", "fits", "overflow", "memory", "estimate", "core_days", "steps", "macs"),
        "kernels",
    )
    return {**row, **{key: found[key] for key in kept if key in found}}


def table(rows: dict[str, dict[str, Any]], topology: str) -> str:
    """Format the rows of a topology, in the order of the configs."""
    lines = [
        "| run | steps × batch | G multiply-adds | v3 core-days, counted | "
        f"{topology}: GB a device | step, ms, calibrated | planned in |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in (name for file in FILES for name in runs(file)):
        counted, planned = rows.get(f"{run} count"), rows.get(f"{run} {topology}")
        if counted is None or "error" in counted:
            continue
        low, high = (f"{d:,.0f}" if d >= 100 else f"{d:.2g}" for d in counted["core_days"])
        lines.append(
            f"| `{run}` | {counted['steps']:,} × {counted['batch_size']:,} | "
            f"{counted['macs'] / 1e9:.2f} | {low} to {high} | {_planned(planned)} |"
        )
    return "\n".join(lines)


def _planned(row: dict[str, Any] | None) -> str:
    """Format a plan for three columns."""
    if row is None:
        return " | | "
    cost = f"{row['seconds']} s, {row['peak_gb']} GB"
    if "error" in row:
        return f"{row['error']} | | {cost}"
    if not row["fits"]:
        asked, there = (row["overflow"][k] / 1e9 for k in ("asked", "there"))
        return f"does not fit: {asked:.1f} of {there:.1f} | | {cost}"
    memory, (low, high) = row["memory"], row["estimate"]["calibrated_seconds"]
    return (
        f"{memory['total'] / 1e9:.2f} of {memory['capacity'] / 1e9:.1f} | "
        f"{1e3 * low:.0f} to {1e3 * high:.0f} | {cost}"
    )


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of the flags that all tables of plans have."""
    flags = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--only", default="", help="runs whose name has this text")
    flags.add_argument("--limit", type=int, default=1000, help="at most so many")
    flags.add_argument("--again", action="store_true", help="also those that have a row")
    return flags


def read(file: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Read the rows that there are."""
    return json.loads(file.read_text()) if file.exists() else {}


def fill(
    file: pathlib.Path,
    asked: dict[str, tuple[str, list[str]]],
    options: argparse.Namespace,
    after: Callable[[dict[str, dict[str, Any]]], None],
) -> None:
    """Plan what has no row, and store each row as soon as it is known.

    Args:
      asked: key of a row → run and flags of its plan.
      after: is called with all rows after each plan, and writes the table.
    """
    there = read(file)
    missing = [key for key in asked if options.again or key not in there]
    missing = [key for key in missing if options.only in key][: options.limit]
    for number, key in enumerate(missing, 1):
        print(f"{number}/{len(missing)} {key}", flush=True)
        run, flags = asked[key]
        row = plan(run, *flags)
        rows = {**read(file), key: row}  # read anew: another process may have stored rows
        file.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
        after(rows)


def main() -> None:
    """Count, then plan, runs without a row, and write the table after each."""
    flags = parser(__doc__)
    flags.add_argument("--topology", default="v5e:2x2")
    flags.add_argument("--count", action="store_true", help="compile nothing")
    options = flags.parse_args()
    kinds = {"count": ["--count"]}
    if not options.count:
        kinds[options.topology] = ["--quick", f"--topology={options.topology}"]
    for kind, kind_flags in kinds.items():
        asked = {f"{run} {kind}": (run, kind_flags) for file in FILES for run in runs(file)}
        fill(ROWS, asked, options, lambda rows: write("configs", table(rows, options.topology)))


if __name__ == "__main__":
    main()
