"""Uformer for noise (SIDD), motion blur (GoPro) and rain (SPAD); not run here.

Command: `vitjax train --config=restoration:sidd_uformer_b --workdir=runs/sidd
--config.data.train=pairs:///data/sidd`. The weights begin at random.

Data: `train/` and `val/` or `test/`, each with `input/` and `groundtruth/`, files of the same names
(docs/dense.md).
- SIDD: 300 patches of 256×256 from random places of each of the 320 images of SIDD-Medium, 96,000
  pairs; tested on the 1,280 blocks of 256×256 of its validation set.
- GoPro: 2,103 and 1,111 pairs of 720×1280.
- SPAD: as many pairs as `IMAGES` says (the paper), patches of 256×256; 1,000 of 512×512.

Paper: arXiv:2106.03106; code ZhendongWang6/Uformer (docs/recipes.md compares each field). The menu
has T and S without the modulator, as the paper counts them. The rain's code is not published, and
what the paper says of it could not be read again.

Crops are turned by quarters and mirrored, the eight symmetries alike; pairs of SIDD are mixed from
epoch 6 on. The code pads GoPro's images with zeros to 1280×1280; here they are mirrored to
768×1280, which may change the result.

Cost of each run: docs/plan.md, "The configs": counted operations, and core-days of TPU v3 at 20 to
40 % of its peak; of `sidd_uformer_b` 1.5 to 2.9.

Expected, in the names of docs/dense.md: Uformer-B on SIDD psnr_rgb_float 39.89, on GoPro
psnr_rgb_float 32.97 and ssim_rgb_float 0.967 (the paper, version 2, as paperswithcode.com has it);
on SPAD 47.84 (noted from the paper, unverified).
"""

from typing import Any

IMAGES = dict(sidd=96_000, gopro=2_103, spad=64_000)
SETS: dict[str, dict[str, Any]] = {
    "sidd": dict(crop=128, batch=32, epochs=250, eval_size=(256, 256), eval_batch=32, mixup=1.2),
    "gopro": dict(crop=256, batch=8, epochs=3000, eval_size=(720, 1280), eval_batch=8, mixup=0.0),
    "spad": dict(crop=256, batch=16, epochs=10, eval_size=(512, 512), eval_batch=8, mixup=0.0),
}
"""Data → what differs. Of SPAD none is known but from the paper."""

RUNS: dict[str, tuple[str, str]] = {
    "sidd_uformer_t": ("sidd", "uformer_t"),
    "sidd_uformer_s": ("sidd", "uformer_s"),
    "sidd_uformer_b": ("sidd", "uformer_b"),
    "gopro_uformer_b": ("gopro", "uformer_b"),
    "spad_uformer_b": ("spad", "uformer_b"),
}


def get_config(name: str = "sidd_uformer_b") -> dict[str, Any]:
    if name not in RUNS:
        raise ValueError(
            f"No run {name!r} in configs/restoration.py; choose from {', '.join(RUNS)}."
        )
    data, model = RUNS[name]
    run = SETS[data]
    epoch = IMAGES[data] // run["batch"]  # in steps
    return dict(
        task="restoration",
        steps=run["epochs"] * epoch,
        model=dict(name=model, dtype="bfloat16", drop_path_rate=0.1),
        data=dict(
            train=f"pairs://data/{data}",
            image_size=run["crop"],
            batch_size=run["batch"],
            eval_batch_size=run["eval_batch"],
            augment="scaled_crop(scale=(1.0, 1.0)) | symmetry",
            num_threads=16,
        ),
        restoration=dict(
            mixup=run["mixup"],
            mixup_start=5 * epoch if run["mixup"] else 0,
            eval_size=run["eval_size"],
            quantize=False,
            monitor="psnr_y" if data == "spad" else "psnr_rgb",
        ),
        optimizer=dict(name="adamw", weight_decay=0.02, weight_decay_rules=((".*", 1.0),)),
        schedule=dict(  # the code changes the rate by epoch: 1/3, 2/3, 1, then along the cosine
            name="cosine",
            learning_rate=2e-4,
            warmup_steps=2 * epoch,
            start_factor=1 / 3,
            end_factor=1e-6 / 2e-4,
            hold_steps=epoch,
        ),
        log_every=50,
        eval_every=4 * epoch if data == "sidd" else 100 * epoch if data == "gopro" else 1000,
        checkpoint_every=1000,
    )
