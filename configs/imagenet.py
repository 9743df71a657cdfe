"""ImageNet with DeiT's recipe, and those of the backbones that took it over; ImageNet-22k for Swin.

Command: `python train.py --config=configs/imagenet.py:swin_tiny --workdir=runs/swin_tiny
'--config.data.train=tfds://imagenet2012?data_dir=/data'`; what it costs on which chips:
`vitjax plan --config=configs/imagenet.py:swin_tiny --topology=v3:4x4`. Hardware: 32 chips of a TPU
v3 or better, bfloat16; the global batch is 1,024 whatever the number of chips. As planned, in
TPUv3-core-days: `volo_d1` 31 to 36 (v3:4x4, 23 to 27 hours), `pretrain_swin_base` 200 to 233
(v3:8x8, 37 to 44 hours).

The recipe (arXiv:2012.12877, table 9): AdamW, 1e-3 for 1,024 images, cosine, weight decay 0.05,
label smoothing 0.1, RandAugment (9, 0.5), mixup 0.8, CutMix 1.0, random erasing 0.25, stochastic
depth, 300 epochs. What other authors' code does otherwise stands in RUNS; where code and paper
differ, the code counts. docs/recipes.md compares each field with both, and names the files.

Expected: the published top-1 in docs/models.md, which names the sources (deit_tiny 72.2, swin_tiny
81.2, pvt_small 79.8, dat_tiny 82.0, biformer_tiny 81.4, debiformer_tiny 81.9; one crop of 224).
None of these runs has been made with this code yet.

A distilled DeiT names its teacher, a run or published weights of a model on the menu (the paper's
own, a RegNetY-16GF, is none): `:deit_tiny_distilled --config.distillation.teacher=runs/teacher`.

A VOLO (arXiv:2106.13112, section 4) has token labels and MixToken instead of mixup and CutMix:
`vitjax token-labels TEACHER --data=URI --to=maps`, then `:volo_d1
--config.token_labels.maps=maps`, 84.2 (D2 85.2, D3 85.4, D4 85.7, D5 86.1; table 4). Their
annotator was an NFNet-F6 (86.3). Without maps every token has its image's label. D4 and D5 are
evaluated on a crop of 1.15.

Swin at 22k, then 1k (arXiv:2103.14030, section 4.1; arXiv:2111.09883, appendix): 90 epochs of
`:pretrain_swin_base --config.data.train=URI`, 22k classes, batch 4,096 (128 chips); then 30 epochs
of `:finetune_swin_base_384 --config.init=runs/pretrained`: 86.4 (224: 85.2; Swin-L 87.3 and 86.3).
Swin V2-B is pretrained at 192 with windows of 12: 86.2 at 256 (`_w16`), 87.1 at 384 (`_w24`). The
same fine-tuning takes a Swin-B of ImageNet-1k from 224 to 384 pixels: 84.5, with
`--config.model.drop_path_rate=0.5`.
"""

from typing import Any

IMAGES, PRETRAINING_IMAGES = 1_281_167, 14_055_150  # 99 % of ImageNet-22k's 14,197,121

IMAGENET = dict(train="tfds://imagenet2012", test_split="validation")
IMAGENET_22K = dict(train="tfds://imagenet21k", train_split="train[1%:]", test_split="train[:1%]")
MIXED = dict(mixup=0.8, cutmix=1.0, erase=0.25)
DEIT: dict[str, Any] = dict(
    data=IMAGENET, images=IMAGES, image_size=224, batch=1024, repeats=3, eval_crop=0.875,
    epochs=300.0, warmup=5, learning_rate=1e-3, warmup_rate=1e-6, last_rate=1e-5, by_epoch=True,
    prefix=False, weight_decay=0.05, clip_norm=0.0, mixing=MIXED, group=128, token_labels={},
    model={},
    augment="deit",
)  # fmt: skip
"""Rates are absolute: at the start of the warm-up, after it, and at the end of the cosine. A group
of images shares a draw of mixup or CutMix, as those of one process do in the authors' code."""

SWIN = dict(repeats=1, warmup=20, clip_norm=5.0, by_epoch=False, prefix=True)
DAT = dict(SWIN, prefix=False)
DEBIFORMER = dict(repeats=1, warmup=20, clip_norm=5.0, last_rate=5e-6, weight_decay=0.1)
VOLO = dict(
    repeats=1,
    warmup=20,
    eval_crop=0.96,
    mixing=dict(mixtoken=1.0, erase=0.25),
    token_labels=dict(weight=0.5, class_target="maps"),
    augment="crop(interpolation='bicubic') | flip | randaugment(n=2, m=9, mstd=0.5)",
)
PRETRAIN = dict(
    SWIN, data=IMAGENET_22K, images=PRETRAINING_IMAGES, batch=4096, epochs=90.0, warmup=5,
    drop_path_rate=0.2,
)  # fmt: skip
FINETUNE = dict(
    SWIN, epochs=30.0, warmup=5, learning_rate=4e-5, warmup_rate=4e-8, last_rate=4e-7,
    weight_decay=1e-8, drop_path_rate=0.2,
)  # fmt: skip
AT_384 = dict(FINETUNE, image_size=384, eval_crop=0.0)
V2_PRETRAIN = dict(PRETRAIN, weight_decay=0.1, image_size=192)
FROM_192 = dict(pretrained_window_size=(12, 12, 12, 6))

RUNS: dict[str, dict[str, Any]] = {
    **{
        f"deit_{v}{d}": dict(drop_path_rate=0.1, group=256)
        for v in ("tiny", "small", "base")
        for d in ("", "_distilled")
    },
    "swin_tiny": dict(SWIN, drop_path_rate=0.2),
    "swin_small": dict(SWIN, drop_path_rate=0.3),
    "swin_base": dict(SWIN, drop_path_rate=0.5),
    "swinv2_tiny_w8": dict(SWIN, drop_path_rate=0.2, image_size=256),
    "swinv2_small_w8": dict(SWIN, drop_path_rate=0.3, image_size=256),
    "swinv2_base_w8": dict(SWIN, drop_path_rate=0.5, image_size=256),
    "pvt_tiny": dict(drop_path_rate=0.1),
    "pvt_small": dict(drop_path_rate=0.1),
    "pvt_medium": dict(drop_path_rate=0.3, clip_norm=1.0),
    "pvt_large": dict(drop_path_rate=0.3, clip_norm=1.0),
    **{f"pvt_v2_{v}": dict(drop_path_rate=0.1) for v in ("b0", "b1", "b2", "b2_li")},
    **{f"pvt_v2_{v}": dict(drop_path_rate=0.3, clip_norm=1.0) for v in ("b3", "b4", "b5")},
    "dat_tiny": dict(DAT, drop_path_rate=0.2),
    "dat_small": dict(DAT, drop_path_rate=0.3),
    "dat_base": dict(DAT, drop_path_rate=0.5),
    "dat_pp_tiny": dict(DAT, drop_path_rate=0.2),
    "dat_pp_small": dict(DAT, drop_path_rate=0.4),
    "dat_pp_base": dict(DAT, drop_path_rate=0.7),
    "biformer_tiny": dict(drop_path_rate=0.1),
    "biformer_small": dict(drop_path_rate=0.15),
    "biformer_base": dict(drop_path_rate=0.4),
    "debiformer_tiny": dict(DEBIFORMER, drop_path_rate=0.1),
    "debiformer_small": dict(DEBIFORMER, drop_path_rate=0.2),
    "debiformer_base": dict(DEBIFORMER, drop_path_rate=0.4),
    "volo_d1": dict(VOLO, drop_path_rate=0.1, learning_rate=1.6e-3),
    "volo_d2": dict(VOLO, drop_path_rate=0.2),
    "volo_d3": dict(VOLO, drop_path_rate=0.5),
    "volo_d4": dict(VOLO, drop_path_rate=0.5, eval_crop=1.15),
    "volo_d5": dict(VOLO, drop_path_rate=0.75, eval_crop=1.15, learning_rate=8e-4),
    "pretrain_swin_base": PRETRAIN,
    "pretrain_swin_large": PRETRAIN,
    "pretrain_swinv2_base_w8": dict(V2_PRETRAIN, model=dict(window_size=12)),
    "finetune_swin_base": FINETUNE,
    "finetune_swin_large": FINETUNE,
    "finetune_swin_base_384": AT_384,
    "finetune_swin_large_384": AT_384,
    "finetune_swinv2_base_w16": dict(FINETUNE, image_size=256, model=FROM_192),
    "finetune_swinv2_base_w24": AT_384,
}
"""Model of the menu, and what is done with it → what differs from DeiT; warm-up is in epochs."""


def get_config(name: str = "deit_tiny") -> dict[str, Any]:
    if name not in RUNS:
        raise ValueError(f"No run {name!r} in configs/imagenet.py; choose from {', '.join(RUNS)}.")
    run = DEIT | RUNS[name]
    epoch = run["images"] // run["batch"]  # in steps
    rate = run["learning_rate"]
    model = name.removeprefix("pretrain_").removeprefix("finetune_")
    return dict(
        epochs=run["epochs"],
        model=dict(
            name=model, dtype="bfloat16", drop_path_rate=run["drop_path_rate"], **run["model"]
        ),
        data=dict(
            run["data"],
            image_size=run["image_size"],
            batch_size=run["batch"],
            eval_batch_size=1024,
            eval_crop=run["eval_crop"],
            augment=run["augment"],
            repeats=run["repeats"],
            interpolation="bicubic",
            num_threads=16,
            on_bad_image="skip",
            max_bad_images=100,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        loss=dict(label_smoothing=0.1),
        mixing=dict(run["mixing"], group_size=run["group"]),
        token_labels=run["token_labels"],
        optimizer=dict(weight_decay=run["weight_decay"], clip_norm=run["clip_norm"]),
        schedule=dict(
            name="cosine",
            learning_rate=rate,
            warmup_steps=run["warmup"] * epoch,
            start_factor=run["warmup_rate"] / rate,
            end_factor=run["last_rate"] / rate,
            warmup_prefix=run["prefix"],
            hold_steps=epoch if run["by_epoch"] else 1,
        ),
        log_every=50,
        eval_every=5 * epoch,
        checkpoint_every=epoch,
    )
