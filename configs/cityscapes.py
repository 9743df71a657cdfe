"""Cityscapes with the recipes of SegFormer and SETR; not run here.

Command: `vitjax train --config=cityscapes:segformer_b0 --workdir=runs/b0 --config.init=mit_b0.pth
'--config.data.train=maps:///data/cityscapes?classes=19'`. `config.init` is the backbone's weights
from ImageNet, with which both papers begin (docs/dense.md).

Data: the folders as they are unpacked, `leftImg8bit/{train,val}/CITY` and
`gtFine/{train,val}/CITY`, with the maps of 19 classes, `…_gtFine_labelTrainIds.png`, that
cityscapesscripts makes (`createTrainIdLabelImgs.py`); 255 stands for no class. 2,975 and 500 images
of 1024×2048.

Papers and code (docs/recipes.md compares each field): SegFormer arXiv:2105.15203, by
mmsegmentation, as the authors' code is not free and was not read; SETR arXiv:2012.15840,
fudan-zvg/SETR, with 80,000 steps. Batches are global: 8 images on any number of chips. Both are
evaluated in windows of a crop's size at the images' own size; SETR's code enlarges images by 1/2048
before, which is left out.

Cost of each run: docs/plan.md, "The configs": counted operations, and core-days of TPU v3 at 20 to
40 % of its peak; of `segformer_b0` 0.16 to 0.32.

Expected mIoU on the validation images, in %, one scale: SegFormer B0 to B5 76.5, 78.6, 81.1, 81.9,
81.9, 82.3 (mmsegmentation's README); SETR naive 77.90, PUP 79.34, MLA 77.24 (its README).
"""

from typing import Any

SHARED: dict[str, Any] = dict(
    mode="slide",
    optimizer=dict(name="adamw", weight_decay=0.01),
    schedule="linear",
    learning_rate=6e-5,
    last_rate=0.0,
)
"""Rates are absolute, after the warm-up and at the end; `decay` and `rates` are (regex, factor)."""
SEGFORMER = dict(
    SHARED, crop=1024, overlap=1 / 4, steps=160_000, warmup=1500, first_factor=1e-6,
    decay=(("backbone/.*norm.*", 0.0), (".*", 1.0)), rates=(("head/.*", 10.0), (".*", 1.0)),
)  # fmt: skip
SETR = dict(
    SHARED, crop=768, overlap=1 / 3, steps=80_000, warmup=0, first_factor=0.0,
    optimizer=dict(name="sgd", b1=0.9), decay=(), schedule="polynomial",
    learning_rate=1e-2, last_rate=1e-4,
    rates=(("head/.*", 10.0), ("auxiliary_.*", 10.0), (".*", 1.0)),
)  # fmt: skip

RUNS: dict[str, dict[str, Any]] = {
    **{
        f"segformer_b{i}": dict(SEGFORMER, backbone=f"mit_b{i}(drop_path_rate=0.1)")
        for i in range(6)
    },
    "setr_naive_vit_l16": dict(SETR, backbone="vit_l16"),
    "setr_pup_vit_l16": dict(SETR, backbone="vit_l16"),
    "setr_mla_vit_l16": dict(SETR, backbone="vit_l16", learning_rate=2e-3),
}
"""Model of the menu → its recipe; the backbone's text holds what its authors chose there."""


def get_config(name: str = "segformer_b0") -> dict[str, Any]:
    if name not in RUNS:
        raise ValueError(
            f"No run {name!r} in configs/cityscapes.py; choose from {', '.join(RUNS)}."
        )
    run = RUNS[name]
    rate = run["learning_rate"]
    return dict(
        task="segmentation",
        steps=run["steps"],
        model=dict(name=name, dtype="bfloat16", backbone=run["backbone"]),
        data=dict(
            train="maps://data/cityscapes?classes=19",
            image_size=run["crop"],
            batch_size=8,
            eval_batch_size=8,
            augment="scaled_crop(scale=(0.5, 2.0), max_share=0.75, pad_last=True, "
            "interpolation='bilinear') | flip | photometric",
            interpolation="bilinear",
            num_threads=16,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        segmentation=dict(
            eval_mode=run["mode"], eval_size=(1024, 2048), eval_overlap=run["overlap"]
        ),
        optimizer=dict(
            run["optimizer"],
            weight_decay_rules=run["decay"],
            learning_rate_rules=run["rates"],
        ),
        schedule=dict(
            name=run["schedule"],
            learning_rate=rate,
            warmup_steps=run["warmup"],
            start_factor=run["first_factor"],
            end_factor=run["last_rate"] / rate,
        ),
        log_every=50,
        eval_every=8000,
        checkpoint_every=2000,
    )
