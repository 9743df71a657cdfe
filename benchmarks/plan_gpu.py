"""Compile every run of configs/ for one H100, and write the table of docs/plan.md.

  python benchmarks/plan_gpu.py                     # runs without a row
  --only=ade20k --limit=5 --again                   # as benchmarks/plan_configs.py
  --topology=h100x8                                 # of more GPUs
  --whole                                           # at the run's own depth and batch

Needs the extra `plan-gpu`, and no GPU. Unless --whole is given, stages have one block and a batch
has 16 images a GPU, so that a run takes a minute or so: the table says that its step compiles, and
for which kernels. Rows are stored in benchmarks/planned_gpu.json, from which the table is written.
"""

from typing import Any

from plan_configs import FILES, fill, parser, runs
from plan_table import ROOT, write

from vitjax.models import model_options
from vitjax.names import parse_call
from vitjax.plan.gpus import parse_gpus
from vitjax.plan.kernels import describe
from vitjax.training import load_config

ROWS = ROOT / "benchmarks" / "planned_gpu.json"
IMAGES = 16
"""Of a GPU in a small step."""


def small(run: str, gpus: int) -> list[str]:
    """Return flags that make a run's step small: a block in each stage, few images."""
    config = load_config(run, {})
    batch = IMAGES * gpus
    flags: dict[str, Any] = {"data.batch_size": batch, "data.eval_batch_size": batch}
    flags["optimizer.accumulate"] = 1
    if "mixing" in config.to_dict():
        flags["mixing.group_size"] = 0  # all images of the batch
    known = model_options(config.model["name"])
    if "depth" in known:
        flags["model.depth"] = 1
    elif "depths" in known:
        flags["model.depths"] = tuple(1 for _ in known["depths"])
    elif call := parse_call(config.model.get("backbone", known.get("backbone", ""))):
        name, options = call
        if depths := model_options(name).get("depths"):  # SETR reads its ViT at given depths
            options["depths"] = tuple(1 for _ in depths)
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
        flags["model.backbone"] = f"{name}({shown})"
    return [f"--config.{key}={value}" for key, value in flags.items()]


def table(rows: dict[str, dict[str, Any]], topology: str) -> str:
    """Format the rows of a topology, in the order of the configs."""
    lines = [
        f"| run | {topology}: GB a device | attention | the rest | compiled, s of processor |",
        "|---|---|---|---|---|",
    ]
    for run in (name for file in FILES for name in runs(file)):
        row = rows.get(f"{run} {topology}")
        if row is None:
            continue
        if "error" in row:
            lines.append(f"| `{run}` | {row['error']} | | | {row['seconds']} |")
            continue
        memory, kernels = row["memory"], row["kernels"]
        lines.append(
            f"| `{run}` | {memory['total'] / 1e9:.2f} of {memory['capacity'] / 1e9:.1f} | "
            f"{describe(kernels['attention'])} | {describe(kernels['rest'])} | {row['seconds']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Plan runs without a row, and write the table after each."""
    flags = parser(__doc__)
    flags.add_argument("--topology", default="h100")
    flags.add_argument("--whole", action="store_true", help="nothing is made smaller")
    options = flags.parse_args()
    gpus = parse_gpus(options.topology)
    if gpus is None:
        flags.error(f"{options.topology} is no GPU; see benchmarks/plan_configs.py for TPUs.")
    key = f"{options.topology}, whole" if options.whole else options.topology
    asked = {}
    for run in (name for file in FILES for name in runs(file)):
        made_small = [] if options.whole else small(run, gpus[1] * gpus[2])
        asked[f"{run} {key}"] = (run, [f"--topology={options.topology}", *made_small])
    fill(ROWS, asked, options, lambda rows: write("gpus", table(rows, key)))


if __name__ == "__main__":
    main()
