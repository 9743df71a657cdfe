"""ImageNet-1k, 300 epochs: the recipe of DeiT, and of the backbones that took it over.

Command: `python train.py --config=configs/imagenet.py:swin_tiny --workdir=runs/swin_tiny
'--config.data.train=tfds://imagenet2012?data_dir=/data'`; what it costs on which chips:
`vitjax plan --config=configs/imagenet.py:swin_tiny --topology=v3:4x4`. Hardware: 32 chips of a TPU
v3 or better, bfloat16; the global batch is 1,024 whatever the number of chips.

The recipe (arXiv:2012.12877, table 9): AdamW, 1e-3 for 1,024 images, cosine, weight decay 0.05,
label smoothing 0.1, RandAugment (9, 0.5), mixup 0.8, CutMix 1.0, random erasing 0.25, stochastic
depth. What a paper does otherwise stands in RUNS.

Expected: the published top-1 in docs/models.md, which names the sources (deit_tiny 72.2, swin_tiny
81.2, pvt_small 79.8, dat_tiny 82.0, biformer_tiny 81.4, debiformer_tiny 81.9; one crop of 224).
None of these runs has been made with this code yet.

A distilled DeiT names its teacher, a run or published weights of a model on the menu (the paper's
own, a RegNetY-16GF, is none): `:deit_tiny_distilled --config.distillation.teacher=runs/teacher`.
"""

from typing import Any

IMAGES, BATCH = 1_281_167, 1024

SWIN = dict(warmup=20, clip_norm=5.0)
BIFORMER = dict(warmup=20)
RUNS: dict[str, dict[str, Any]] = {
    **{f"deit_{v}{d}": dict(warmup=5, repeats=3, drop_path_rate=0.1)
       for v in ("tiny", "small", "base") for d in ("", "_distilled")},
    "swin_tiny": dict(SWIN, drop_path_rate=0.2),
    "swin_small": dict(SWIN, drop_path_rate=0.3),
    "swin_base": dict(SWIN, drop_path_rate=0.5),
    "swinv2_tiny_w8": dict(SWIN, drop_path_rate=0.2, image_size=256),
    "swinv2_small_w8": dict(SWIN, drop_path_rate=0.3, image_size=256),
    "swinv2_base_w8": dict(SWIN, drop_path_rate=0.5, image_size=256),
    "pvt_tiny": dict(warmup=5, repeats=3, drop_path_rate=0.1),
    "pvt_small": dict(warmup=5, repeats=3, drop_path_rate=0.1),
    "pvt_medium": dict(warmup=5, repeats=3, drop_path_rate=0.3),
    "dat_tiny": dict(SWIN, drop_path_rate=0.2),
    "dat_small": dict(SWIN, drop_path_rate=0.3),
    "dat_base": dict(SWIN, drop_path_rate=0.5),
    "biformer_tiny": dict(BIFORMER, drop_path_rate=0.1),
    "biformer_small": dict(BIFORMER, drop_path_rate=0.15),
    "biformer_base": dict(BIFORMER, drop_path_rate=0.4),
    "debiformer_tiny": dict(BIFORMER, drop_path_rate=0.1),
    "debiformer_small": dict(BIFORMER, drop_path_rate=0.2),
    "debiformer_base": dict(BIFORMER, drop_path_rate=0.4),
}  # fmt: skip
"""Model of the menu → epochs of warm-up, and what differs from DeiT."""


def get_config(name: str = "deit_tiny") -> dict[str, Any]:
    if name not in RUNS:
        raise ValueError(f"No run {name!r} in configs/imagenet.py; choose from {', '.join(RUNS)}.")
    run = dict(warmup=5, repeats=1, clip_norm=0.0, image_size=224) | RUNS[name]
    return dict(
        epochs=300.0,
        model=dict(name=name, dtype="bfloat16", drop_path_rate=run["drop_path_rate"]),
        data=dict(
            train="tfds://imagenet2012",
            test_split="validation",
            image_size=run["image_size"],
            batch_size=BATCH,
            eval_batch_size=BATCH,
            augment="deit",
            repeats=run["repeats"],
            interpolation="bicubic",
            num_threads=16,
            on_bad_image="skip",
            max_bad_images=100,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        loss=dict(label_smoothing=0.1),
        mixing=dict(mixup=0.8, cutmix=1.0, erase=0.25),
        optimizer=dict(weight_decay=0.05, clip_norm=run["clip_norm"]),
        schedule=dict(
            learning_rate=1e-3,
            warmup_steps=run["warmup"] * IMAGES // BATCH,
            end_factor=0.01,
        ),
        log_every=50,
        eval_every=6255,  # five epochs
        checkpoint_every=1251,
    )
