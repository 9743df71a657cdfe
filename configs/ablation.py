"""One-line ablations: the same small pyramid with one token mixer after the other, on the digits.

Command: `python configs/ablation.py` trains the set (13 models, 3 seeds each) and prints one table:
test accuracy, parameters, FLOPs, images/s; `python configs/ablation.py 'swin*'` those that match.
One of them: `python train.py --config=configs/ablation.py:swin/dbra --workdir=runs/one`.
Each is a run of its own under runs/ablation/: stop it anywhere, and the same command goes on. The
whole set took 80 minutes on two CPU cores that did other work too; seeds share what is compiled.
The table is in docs/ablation.md.

The question of arXiv:2410.08582 that its tables leave open: what do deformable agents that route
(`dbra`) give where another paper's attention stands, and what is lost when DeBiFormer has only one
of its two halves? Digits of 8×8 pixels, drawn at 32×32, say how to ask it, and not the answer:
differences of a percent are within the spread of the seeds.
"""

import fnmatch
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

SMALL = dict(dims=(16, 32, 64, 128), num_heads=(1, 2, 4, 8), drop_path_rate=0.0)
SKELETONS: dict[str, dict[str, Any]] = {
    "swin": dict(name="swin_tiny", depths=(2, 2, 1, 1), **SMALL),
    "pvt_v2": dict(name="pvt_v2_b0", depths=(2, 2, 1, 1), **SMALL),
    "debiformer": dict(
        name="debiformer_tiny", dims=SMALL["dims"], depths=(2, 2, 2, 2), head_dim=16,
    ),
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "swin": dict(window_size=4),
    "pvt_v2": {},
    "debiformer": dict(
        n_win=2, offset_groups=(1, 2, 4, 8), table_size=(8, 4, 2, 1),
        mixer="bra(topk=1) | dbra(topk=2) ; bra(topk=2) | dbra(topk=3) "
        "; bra(topk=None) | dbra(topk=None) ; dbra(topk=None)",
    ),
}  # fmt: skip
"""Hyperparameters that a skeleton's own mixer alone takes."""
OTHERS = {
    "dbra": "dbra(n_win=2, topk=(2, 3, None, None), stride=(2, 1, 1, 1), kernel_size=3)",
    "bra": "bra(n_win=2, topk=(1, 2, None, None))",
    "deformable": "deformable(stride=(2, 1, 1, 1), kernel_size=3)",
    "outlook": "outlook(stride=1)",
}
ABLATIONS = {
    **{f"{s}/{m}": (s, OTHERS.get(m)) for s in ("swin", "pvt_v2") for m in ("own", *OTHERS)},
    **{f"debiformer/{m}": ("debiformer", OTHERS.get(m)) for m in ("own", "bra", "deformable")},
}
"""Name → skeleton and mixer; None for the skeleton's own."""
SEEDS = (0, 1, 2)


def get_config(name: str = "swin/dbra") -> dict[str, Any]:
    if name not in ABLATIONS:
        raise ValueError(f"Unknown ablation {name!r}. Choose from: {', '.join(ABLATIONS)}.")
    skeleton, mixer = ABLATIONS[name]
    return dict(
        epochs=20.0,
        model={**SKELETONS[skeleton], **({"mixer": mixer} if mixer else OWN[skeleton])},
        data=dict(
            train="digits://",
            image_size=32,
            batch_size=64,
            eval_batch_size=360,
            eval_crop=1.0,
            augment="digits",
        ),
        loss=dict(label_smoothing=0.1),
        optimizer=dict(name="adamw", b2=0.99, weight_decay=0.05, clip_norm=1.0),
        schedule=dict(name="cosine", learning_rate=2e-3, warmup_steps=50),
        log_every=50,
        eval_every=10_000,
        checkpoint_every=10_000,
        keep=1,
    )


def measure(name: str, folder: pathlib.Path) -> tuple[list[float], float]:
    """Test accuracy of each seed, and the median of images/s; trains what is not there yet."""
    from vitjax.train.report import read_metrics

    accuracies, speeds = [], []
    shared = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}  # by the seeds
    for seed in SEEDS:
        workdir = folder / name.replace("/", "-") / f"seed{seed}"
        workdir.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "train.py", f"--config={__file__}:{name}", f"--config.seed={seed}",
            f"--workdir={workdir}",
        ]  # fmt: skip
        with workdir.with_suffix(".log").open("a") as log:
            code = subprocess.run(command, stdout=log, stderr=log, env=shared).returncode
        if code:
            sys.exit(f"{' '.join(command)} ended with {code}; see {log.name}")
        rows = read_metrics(workdir / "metrics.jsonl")
        accuracies.append([r["top1"] for r in rows if r["split"] == "test"][-1])
        speeds += [r["images_per_second"] for r in rows if r["split"] == "train"][1:]
    return accuracies, statistics.median(speeds)


def main(pattern: str = "*") -> None:
    from vitjax.analysis.cost import count
    from vitjax.console import clock
    from vitjax.models import from_config
    from vitjax.names import unknown

    names, begin, rows = fnmatch.filter(ABLATIONS, pattern), time.perf_counter(), []
    if not names:
        sys.exit(unknown("ablation", pattern, ABLATIONS))
    for i, name in enumerate(names):
        config = get_config(name)
        side = config["data"]["image_size"]
        cost = count(
            from_config({"dtype": "float32", **config["model"]}, 10, side), (1, side, side, 3)
        )
        found, speed = measure(name, pathlib.Path("runs/ablation"))
        spread = statistics.stdev(found)
        rows.append(
            f"| {name} | {statistics.mean(found):.2%} ± {spread:.2%} | {cost.parameters:,} "
            f"| {cost.flops / 1e6:.2f} | {speed:,.0f} |"
        )
        left = (time.perf_counter() - begin) / (i + 1) * (len(names) - i - 1)
        print(f"{i + 1}/{len(names)} {rows[-1]} ETA {clock(left)}", flush=True)
    print(
        f"\nTest accuracy: mean and standard deviation over {len(SEEDS)} seeds\n\n"
        "| skeleton/mixer | accuracy | parameters | MFLOP per image | images/s |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
