"""Two tables on the digits: one skeleton with one token mixer after the other, and all families.

Command: `python configs/ablation.py` trains the pyramids (13, with 3 seeds each), `python
configs/ablation.py families` the families (31), and prints a table: test accuracy, parameters,
multiply-adds, images/s. `python configs/ablation.py 'families/*vit*' 1` trains what matches, with
one seed. One of them: `python train.py --config=configs/ablation.py:swin/dbra --workdir=runs/one`.
Each is a run of its own under runs/ablation/: stop it anywhere, and the same command goes on; seeds
share what is compiled. A run takes 30 to 60 s of processor time, and the compiler most of it.
The tables are in docs/ablation.md.

`swin/…`, `pvt_v2/…`, `debiformer/…` ask the question of arXiv:2410.08582 that its tables leave
open: what do deformable agents that route (`dbra`) give where another paper's attention stands, and
what is lost when DeBiFormer has only one of its two halves? Digits of 8×8 pixels, drawn at 32×32,
say how to ask it, and not the answer: differences of a percent are within the spread of the seeds.

`families/…` has each family's smallest variant, scaled down to train in a minute. It shows that a
family learns by its own kind of optimizer: SGD with momentum where its authors have that (ResNet,
BiT, GhostNet, RANet), AdamW elsewhere. Patches are small, or the last stages left out, as papers do
for small images. ViTs without convolutions or windows learn more slowly and take more epochs, of
fewer operations.
"""

import argparse
import fnmatch
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

from vitjax.names import check_choice

SMALL = dict(dims=(16, 32, 64, 128), num_heads=(1, 2, 4, 8), drop_path_rate=0.0)
SKELETONS: dict[str, dict[str, Any]] = {
    "swin": dict(name="swin_tiny", depths=(2, 2, 1, 1), **SMALL),
    "pvt_v2": dict(name="pvt_v2_b0", depths=(2, 2, 1, 1), **SMALL),
    "debiformer": dict(
        name="debiformer_tiny",
        dims=SMALL["dims"],
        depths=(2, 2, 2, 2),
        head_dim=16,
    ),
}
OWN: dict[str, dict[str, Any]] = {
    "swin": dict(window_size=4),
    "pvt_v2": {},
    "debiformer": dict(
        n_win=2,
        offset_groups=(1, 2, 4, 8),
        table_size=(8, 4, 2, 1),
        mixer="bra(topk=1) | dbra(topk=2) ; bra(topk=2) | dbra(topk=3) "
        "; bra(topk=None) | dbra(topk=None) ; dbra(topk=None)",
    ),
}
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

PLAIN = dict(width=64, depth=4, num_heads=4, patch_size=8)
SHALLOW = dict(SMALL, depths=(1, 1, 1, 1))
FINE = dict(SMALL, depths=(1, 1, 2, 2), patch_size=2)
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": dict(name="vit_ti16", **PLAIN),
    "hybrid": dict(name="r_vit_ti16", **PLAIN),
    "resnet": dict(name="resnet50", depths=(1, 1)),
    "nonlocal_resnet": dict(
        name="resnet50_nonlocal", depths=(1, 1), inserted=((), (-1,)),
    ),
    "bit": dict(name="bit_r50x1", depths=(1, 1)),
    "efficientnet": dict(name="efficientnet_b0", width_factor=0.5, depth_factor=0.25),
    "coatnet": dict(
        name="coatnet_0", dims=(16, 32, 64, 128), depths=(1, 1, 2, 1), stem_width=(16, 16),
        head_dim=16, drop_path_rate=0.0,
    ),
    "deit": dict(name="deit_tiny", **PLAIN),
    "deit3": dict(name="deit3_small", **PLAIN),
    "dinov3": dict(name="dinov3_s16", **PLAIN),
    "cait": dict(name="cait_xxs24", **PLAIN),
    "swin": dict(SKELETONS["swin"], window_size=4),
    "swinv2": dict(SKELETONS["swin"], name="swinv2_tiny_w8", window_size=4),
    "pvt": dict(name="pvt_tiny", **SHALLOW, sr_ratio=(4, 2, 1, 1)),
    "pvt_v2": dict(name="pvt_v2_b0", **SHALLOW, sr_ratio=(4, 2, 1, 1)),
    "ranet": dict(name="ranet_cifar_3scale", layers=1, stem_width=8),
    "dat": dict(
        name="dat_tiny", **FINE, window_size=4, kernel_size=3, offset_groups=(1, 1, 2, 4),
    ),
    "dat_pp": dict(
        name="dat_pp_tiny", **SMALL, depths=(1, 1, 2, 1), neighborhood_size=3, kernel_size=3,
        stride=(2, 1, 1, 1), offset_groups=(1, 1, 2, 4),
    ),
    "biformer": dict(
        name="biformer_tiny", dims=SMALL["dims"], depths=(1, 1, 2, 1), head_dim=16, n_win=2,
        mixer="bra(topk=1) ; bra(topk=2) ; bra(topk=None) ; full_lepe(num_heads=8, qkv_bias=False)",
    ),
    "debiformer": {**SKELETONS["debiformer"], **OWN["debiformer"]},
    "nat": dict(name="nat_mini", **SMALL, depths=(1, 1, 2, 1), neighborhood_size=3),
    "dinat": dict(
        name="dinat_mini", **SMALL, depths=(2, 1, 2, 1), neighborhood_size=3,
        mixer="neighborhood | neighborhood(dilation=(2, 1, 1, 1))",
    ),
    "volo": dict(
        name="volo_d1", dims=(32, 64, 64, 64), num_heads=(2, 4, 4, 4), depths=(2, 1, 1, 1),
        stem_width=16, patch_size=4, drop_path_rate=0.0,
    ),
    "mlp_mixer": dict(name="mixer_s16", **PLAIN),
    "efficientformer": dict(
        name="efficientformer_l1", dims=SMALL["dims"], depths=(2, 1, 1, 2), num_attention=1,
    ),
    "ghostnet": dict(
        name="ghostnet_050", hidden_width=128,
        stages=(
            ((3, 32, 32, False, 1),), ((3, 64, 48, False, 2),), ((3, 96, 48, False, 1),),
            ((5, 144, 80, True, 2),), ((5, 240, 80, True, 1),),
        ),
    ),
    "mobile_former": dict(
        name="mobile_former_26m", lite=(24, 12, 1), hidden_width=128, token_dim=64,
        blocks=((1, 36, 12), (2, 72, 24), (1, 72, 24), (2, 144, 48), (1, 192, 48)),
    ),
    "container": dict(name="container_light", **SHALLOW, kernel_size=3),
    "poolformer": dict(name="poolformer_s12", dims=SMALL["dims"], depths=(2, 2, 2, 1)),
    "convnext": dict(name="convnext_atto", dims=SMALL["dims"], depths=(2, 2, 2, 1)),
    "mit": dict(name="mit_b0", **SHALLOW, sr_ratio=(4, 2, 1, 1)),
}  # fmt: skip
"""Each family's smallest variant, scaled down for images of 32 pixels."""
BY_SGD = ("resnet", "nonlocal_resnet", "bit", "ghostnet", "ranet")
EPOCHS = dict(
    vit=30.0,
    hybrid=30.0,
    mlp_mixer=30.0,
    deit=60.0,
    deit3=60.0,
    cait=60.0,
    dinov3=60.0,
    efficientnet=60.0,
)
"""Of families that learn slowly, with neither convolutions nor windows (DeiT and CaiT with 30 end
at 96 to 97 %), and of EfficientNet, whose running statistics need more steps. The others: 12."""
SETS = {"mixers": [*ABLATIONS], "families": [f"families/{name}" for name in FAMILIES]}
RUNS = [name for names in SETS.values() for name in names]


def model_of(name: str) -> dict[str, Any]:
    if name.startswith("families/"):
        return FAMILIES[name.removeprefix("families/")]
    skeleton, mixer = ABLATIONS[name]
    if not mixer:
        return {**SKELETONS[skeleton], **OWN[skeleton]}
    tables = {"table_size": (8, 4, 2, 1)} if name == "debiformer/deformable" else {}
    return {**SKELETONS[skeleton], "mixer": mixer, **tables}


def epochs_of(name: str) -> float:
    group, _, own = name.partition("/")
    return EPOCHS.get(own, 12.0) if group == "families" else 20.0


def get_config(name: str = "swin/dbra") -> dict[str, Any]:
    check_choice("ablation", name, RUNS)
    optimizer: dict[str, Any] = dict(name="adamw", b2=0.99, weight_decay=0.05, clip_norm=1.0)
    rate = 2e-3
    if name.removeprefix("families/") in BY_SGD:
        optimizer, rate = dict(name="sgd", b1=0.9, weight_decay=1e-4), 0.05
    return dict(
        epochs=epochs_of(name),
        model=model_of(name),
        data=dict(
            train="digits://",
            image_size=32,
            batch_size=64,
            eval_batch_size=360,
            eval_crop=1.0,
            augment="digits",
        ),
        loss=dict(label_smoothing=0.1),
        optimizer=optimizer,
        schedule=dict(name="cosine", learning_rate=rate, warmup_steps=50),
        log_every=50,
        eval_every=10_000,
        checkpoint_every=10_000,
        keep=1,
    )


def measure(name: str, folder: pathlib.Path, seeds: int) -> tuple[list[float], float]:
    """Test accuracy of each seed, and the median of images/s; trains what is not there yet."""
    from vitjax.train.report import read_metrics

    accuracies, speeds = [], []
    shared = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}  # by the seeds
    for seed in range(seeds):
        workdir = folder / name.replace("/", "-") / f"seed{seed}"
        workdir.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "train.py",
            f"--config={__file__}:{name}",
            f"--config.seed={seed}",
            f"--workdir={workdir}",
        ]
        with workdir.with_suffix(".log").open("a") as log:
            code = subprocess.run(command, stdout=log, stderr=log, env=shared).returncode
        if code:
            sys.exit(f"{' '.join(command)} ended with {code}; see {log.name}")
        rows = read_metrics(workdir / "metrics.jsonl")
        accuracies.append([r["top1"] for r in rows if r["split"] == "test"][-1])
        speeds += [r["images_per_second"] for r in rows if r["split"] == "train"][1:]
    return accuracies, statistics.median(speeds)


def main() -> None:
    from vitjax.analysis.cost import trace
    from vitjax.console import clock
    from vitjax.models import from_config
    from vitjax.names import unknown

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="?", default="mixers", help="mixers, families or a pattern")
    parser.add_argument("seeds", nargs="?", type=int, default=3, help="of each (default: 3)")
    options = parser.parse_args()
    names = SETS.get(options.runs) or fnmatch.filter(RUNS, options.runs)
    begin, rows = time.perf_counter(), []
    if not names:
        sys.exit(unknown("ablation", options.runs, (*SETS, *RUNS)))
    if options.seeds < 1:
        sys.exit(f"{options.seeds} is no number of seeds; give 1 or more.")
    for i, name in enumerate(names):
        config = get_config(name)
        side = config["data"]["image_size"]
        model = from_config({"dtype": "float32", **config["model"]}, 10, side)
        parameters, macs, _ = trace(model, (1, side, side, 3))
        found, speed = measure(name, pathlib.Path("runs/ablation"), options.seeds)
        spread = f" ± {statistics.stdev(found):.2%}" if len(found) > 1 else ""
        rows.append(
            f"| {name.removeprefix('families/')} | {statistics.mean(found):.2%}{spread} "
            f"| {parameters:,} | {macs / 1e6:.2f} | {speed:,.0f} |"
        )
        left = (time.perf_counter() - begin) / (i + 1) * (len(names) - i - 1)
        print(f"{i + 1}/{len(names)} {rows[-1]} ETA {clock(left)}", flush=True)
    print(
        f"\nTest accuracy: mean and standard deviation over {options.seeds} seeds\n\n"
        "| run | accuracy | parameters | multiply-adds per image (M) | images/s |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows)
    )


if __name__ == "__main__":
    main()
