"""Plan the runs of docs/plan.md, and write its tables: `python benchmarks/plan_table.py`.

Needs `pip install 'vitjax[plan]'`; no TPU. Cached programs are not compiled again.
  --only=TEXT   the rows whose name has the text; the tables are then printed, not written
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "plan.md"
RECIPES = "benchmarks/plan_recipes.py"
RUNS = [  # recipe, topology, further flags
    ("b16", "v3:4x4", []),
    ("b16", "v5e:4x4", []),
    ("b16", "v3:4x4", ["--config.data.batch_size=4096"]),
    ("l16_i21k", "v3:8x8", ["--config.mesh.fsdp=8"]),
    ("h14_jft", "v3:16x16", []),
]
PAPER = [  # recipe whose step it is, schedule, images, core-days of arXiv:2010.11929, table 2
    ("l16_i21k", "ViT-L/16, ImageNet-21k, 90 epochs", 90 * 14_197_122, 230),
    ("l16_i21k", "ViT-L/16, JFT-300M, 14 epochs", 14 * 303_000_000, 680),
    ("h14_jft", "ViT-H/14, JFT-300M, 14 epochs", 14 * 303_000_000, 2500),
]
SCALING = ["v3:2x2", "v3:4x4", "v3:8x8", "v3:16x16", "v3:32x32"]
PER_CORE = 32


def plan(recipe: str, topology: str, flags: list[str]) -> dict[str, Any]:
    """Plan a run in a separate process, because compilation takes 2 to 3 GB."""
    command = [sys.executable, "-m", "vitjax.cli", "plan", f"--config={RECIPES}:{recipe}",
               f"--topology={topology}", "--json", *flags]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"{' '.join(command)}\n{out.stderr[-2000:]}")
    return json.loads(out.stdout.strip().splitlines()[-1])


def runs_table(rows: list[dict[str, Any]]) -> str:
    """Format the table of models × topologies."""
    lines = [
        "| run | topology | batch | memory a device, GB (temporaries) | step, ms: estimate | "
        "calibrated | images/s, calibrated | MFU, calibrated | core-days, calibrated |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        head = f"| {r['name']} | {r['topology']} ({r['cores']} cores) | {r['batch_size']:,} |"
        if not r["fits"]:
            asked, there = r["overflow"]["asked"] / 1e9, r["overflow"]["there"] / 1e9
            lines.append(f"{head} does not fit: {asked:.1f} of {there:.1f} | | | | | |")
            continue
        m, e = r["memory"], r["estimate"]
        low, high = (1e3 * s for s in e["calibrated_seconds"])
        rate, mfu, days = r["images_per_second"], r["mfu"], r["core_days"]
        lines.append(
            f"{head} {m['total'] / 1e9:.2f} ({m['temporaries'] / 1e9:.2f}) of "
            f"{m['capacity'] / 1e9:.1f} | {1e3 * e['seconds']:.1f} | {low:.0f} to {high:.0f} | "
            f"{rate[2]:,.0f} to {rate[1]:,.0f} | {mfu[2]:.0%} to {mfu[1]:.0%} | "
            f"{days[1]:,.1f} to {days[2]:,.1f} |"
        )
    return "\n".join(lines)


def papers_table(rows: list[dict[str, Any]]) -> str:
    """Format the table of our core-days of a paper's schedules, beside those of the paper."""
    lines = ["| schedule | estimate | calibrated | published |", "|---|---|---|---|"]
    steps = {r["name"]: r for r in rows if r["fits"]}
    for recipe, schedule, images, published in PAPER:
        r = steps[recipe]
        seconds = (r["estimate"]["seconds"], *r["estimate"]["calibrated_seconds"])
        days = [s * images / r["batch_size"] * r["cores"] / 86400 for s in seconds]
        lines.append(
            f"| {schedule} | {days[0]:,.0f} | {days[1]:,.0f} to {days[2]:,.0f} | {published:,} |"
        )
    return "\n".join(lines)


def scaling_table(rows: list[dict[str, Any]]) -> str:
    """Format the table of weak scaling: the share of a step on the links, without overlap."""
    lines = [
        "| topology | cores | batch | compute, ms | on the links, ms | share | compiled in, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        e = r["estimate"]
        lines.append(
            f"| {r['topology']} | {r['cores']} | {r['batch_size']:,} | {1e3 * e['compute']:.1f} | "
            f"{1e3 * e['communication']:.2f} | {e['communication'] / e['seconds']:.1%} | "
            f"{r['compile_seconds']:.0f} |"
        )
    return "\n".join(lines)


def write(name: str, table: str, page: pathlib.Path = PAGE) -> None:
    """Replace the text between the page's marks for this table."""
    text = page.read_text()
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, rest = text.split(begin)
    page.write_text(f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}")


def main() -> None:
    """Plan everything, in the order of the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="plans whose name has this text; prints them")
    only = parser.parse_args().only
    names = [f"{r} {t} {' '.join(f)}" for r, t, f in RUNS]
    rows = []
    for (recipe, topology, flags), name in zip(RUNS, names, strict=True):
        if only in name:
            rows.append({"name": recipe, **plan(recipe, topology, flags)})
            print(json.dumps(rows[-1]), flush=True)
    scaled = []
    for topology in SCALING:
        if only in f"scaling {topology}":
            x, y = map(int, topology.split(":")[1].split("x"))
            batch = 2 * x * y * PER_CORE
            sizes = [f"--config.data.{k}={batch}" for k in ("batch_size", "eval_batch_size")]
            # As many steps as in the first row of the other table, so that it is the same program.
            sizes += ["--config.epochs=0", "--config.steps=112603"]
            scaled.append(plan("b16", topology, sizes))
            print(json.dumps(scaled[-1]), flush=True)
    if only:
        print(runs_table(rows), scaling_table(scaled), sep="\n\n")
    else:
        write("runs", runs_table(rows))
        write("papers", papers_table(rows))
        write("weak scaling", scaling_table(scaled))


if __name__ == "__main__":
    main()
