"""Plan one model of each family beside ViTs, and write the table of docs/plan.md.

  python benchmarks/plan_variants.py                 # rows that are missing, both topologies
  --topology=v5e:2x2 --only=swin --again             # as benchmarks/plan_configs.py

A step of training at 224 pixels with 64 images a chip, bfloat16, as the recipe of
`configs/imagenet.py` has it, with `scan=True`, which compiles in a third of the time, by the extra
`plan`'s compiler, without a TPU. The last column is the time over that of a ViT with as many
multiply-adds: the time of a multiply-add is interpolated between DeiT-Ti, DeiT-S and DeiT-B, which
are compiled alike. Rows are stored in benchmarks/planned_variants.json, so that planning can be
interrupted.
"""

import json
from typing import Any

import numpy as np
from plan_configs import fill, parser
from plan_table import ROOT, write

ROWS = ROOT / "benchmarks" / "planned_variants.json"
VITS = ("deit_tiny", "deit_small", "deit_base")
MODELS = (
    *VITS, "swin_tiny", "swinv2_tiny_w8", "pvt_tiny", "pvt_v2_b2", "dat_tiny", "dat_pp_tiny",
    "biformer_tiny", "debiformer_tiny", "volo_d1",
)  # fmt: skip
TOPOLOGIES = ("v5e:2x2", "v3:2x2")
BATCH = 256
"""64 images for each of four chips."""
FLAGS = [
    *(f"--config.data.{name}={BATCH}" for name in ("batch_size", "eval_batch_size")),
    *("--config.mixing.group_size=0", "--config.optimizer.accumulate=1"),
    "--config.model.scan=True",
]


def macs(model: str) -> float:
    """Return the multiply-adds of a forward pass, from the rows of benchmarks/plan_configs.py."""
    counted = json.loads((ROOT / "benchmarks" / "planned.json").read_text())
    return counted[f"imagenet:{model} count"]["macs"]


def beside_vit(model: str, topology: str, rows: dict[str, dict[str, Any]]) -> float | None:
    """Return the time of a model's step over that of a ViT with as many multiply-adds."""
    vits = [rows.get(f"{name} {topology}", {}) for name in VITS]
    if not all("estimate" in row for row in vits):
        return None
    known = [macs(name) for name in VITS]
    each = [row["estimate"]["seconds"] / m for row, m in zip(vits, known)]
    own = macs(model)
    vit = own * float(np.interp(np.log(own), np.log(known), each))
    return rows[f"{model} {topology}"]["estimate"]["seconds"] / vit


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Format the rows that there are, in the order of MODELS."""
    lines = [
        "| topology | model | G multiply-adds | GB a device | step, ms, estimate | "
        "bound by memory | over a ViT of as many multiply-adds | compiled, s, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for topology in TOPOLOGIES:
        for model in MODELS:
            row = rows.get(f"{model} {topology}")
            if row is None:
                continue
            cost = f"{row['seconds']}, {row['peak_gb']}"
            head = f"| {topology} | `{model}` | {macs(model) / 1e9:.2f}"
            if "error" in row or not row["fits"]:
                lines.append(f"{head} | {row.get('error', 'does not fit')} | | | | {cost} |")
                continue
            memory, guess = row["memory"], row["estimate"]
            share = guess["memory_bound"] / guess["seconds"]
            ratio = beside_vit(model, topology, rows)
            lines.append(
                f"{head} | {memory['total'] / 1e9:.2f} of {memory['capacity'] / 1e9:.1f} | "
                f"{1e3 * guess['seconds']:.1f} | {share:.0%} | "
                f"{'' if ratio is None else f'{ratio:.2f}'} | {cost} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Plan what is missing, and write the table after each."""
    flags = parser(__doc__)
    flags.add_argument("--topology", default="", help="one of them alone")
    options = flags.parse_args()
    asked = {
        f"{model} {topology}": (f"imagenet:{model}", [f"--topology={topology}", *FLAGS])
        for topology in TOPOLOGIES
        for model in MODELS
        if options.topology in topology
    }
    fill(ROWS, asked, options, lambda rows: write("variants", table(rows)))


if __name__ == "__main__":
    main()
