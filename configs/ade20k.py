"""ADE20K with the recipes of SegFormer, SETR, UPerNet and Semantic FPN; not run here.

Command: `vitjax train --config=ade20k:segformer_b0 --workdir=runs/b0 --config.init=mit_b0.pth
'--config.data.train=maps:///data/ADEChallengeData2016?classes=150&reduce_zero=1'`. `config.init` is
the backbone's weights from ImageNet, with which all papers begin (docs/dense.md).

Data: ADEChallengeData2016 as it is unpacked: `images/training`, `images/validation`,
`annotations/training`, `annotations/validation`; 20,210 and 2,000 images. Labels are 1 to 150 and 0
for none, hence `reduce_zero=1`. With `classes.txt` beside them, a name a line, `classes=150` is not
needed.

Papers and code (docs/recipes.md compares each field): SegFormer arXiv:2105.15203, its code is not
free and was not read, mmsegmentation's is; SETR arXiv:2012.15840, fudan-zvg/SETR; UPerNet with Swin
arXiv:2103.14030, BiFormer arXiv:2303.08810 and DeBiFormer arXiv:2410.08582, Semantic FPN with PVT
arXiv:2102.12122, PVT v2 arXiv:2106.13797 and BiFormer, their repositories. Where paper and code
differ, the code counts. Batches are global: 16 images on any number of chips.

Evaluated with a short side of 512 (B5 640), at one scale, "slide" in SETR and "whole" in the
others; of Semantic FPN both sides then become multiples of 32, rounded up. Whole, a canvas of 704
holds all of a 4:3 image; of ADE20K's validation images 74 % keep their scale in it and the others
become smaller, and images fill 66 % of it. The authors have no padding: expect other numbers than
theirs until that is measured. `--config.segmentation.eval_mode=slide` sees none.

Cost of each run: docs/plan.md, "The configs": counted operations, and core-days of TPU v3 at 20 to
40 % of its peak; of `segformer_b0` 0.06 to 0.12, `upernet_swin_tiny` 1.7 to 3.4, `setr_pup_vit_l16`
3.1 to 6.2. `vitjax plan --config=ade20k:segformer_b0 --topology=v3:2x2` has memory and time.

Expected mIoU (one scale; the repositories' README, of SegFormer the paper's table 1, in parentheses
mmsegmentation's), on the validation images, in %:
SegFormer B0 to B5 37.4 (37.4), 42.2 (41.0), 46.5 (45.6), 49.4 (47.8), 50.3 (48.5), 51.0 (49.6).
SETR naive 48.06, PUP 48.62, MLA 48.64 (ViT-L of ImageNet-21k).
UPerNet Swin-T 44.51, S 47.64, B 48.13; BiFormer-S 49.8, B 51.0; DeBiFormer-B 51.4.
Semantic FPN PVT-T 36.6, S 41.9, M 43.5, L 43.5; PVT v2's are in its paper; BiFormer-S 48.9, B 49.9.
"""

from typing import Any

MIXER = "bra(topk=1) | dbra ; bra(topk=4) | dbra ; bra(topk=16) | dbra ; dbra(topk=49)"
ALL = ((".*", 1.0),)
SHARED: dict[str, Any] = dict(
    crop=512, batch=16, steps=160_000, canvas=704, mode="whole", divisor=1,
    optimizer=dict(name="adamw", weight_decay=0.01), decay=ALL, rates=ALL,
    schedule="linear", learning_rate=6e-5, last_rate=0.0, warmup=0, first_factor=0.0, prefix=True,
)  # fmt: skip
"""Rates are absolute, after the warm-up and at the end; `decay` and `rates` are (regex, factor)."""

SEGFORMER = dict(
    SHARED,
    warmup=1500,
    first_factor=1e-6,
    decay=(("backbone/.*norm.*", 0.0), (".*", 1.0)),
    rates=(("head/.*", 10.0), (".*", 1.0)),
)
SETR = dict(
    SHARED, optimizer=dict(name="sgd", b1=0.9), decay=(), schedule="polynomial",
    learning_rate=1e-3, last_rate=1e-4,
    rates=(("head/.*", 10.0), ("auxiliary_.*", 10.0), (".*", 1.0)), mode="slide", canvas=853,
)  # fmt: skip
SWIN = dict(
    SHARED, warmup=1500, first_factor=1e-6, prefix=False,
    decay=(
        ("backbone/.*norm.*", 0.0), ("backbone/.*relative_position_bias", 0.0), (".*", 1.0),
    ),
)  # fmt: skip
BIFORMER = dict(
    SWIN,
    decay=(("backbone/stage_.*norm.*", 0.0), ("backbone/feature_norm.*", 0.0), (".*", 1.0)),
)
DEBIFORMER = dict(
    SWIN,
    warmup=3000,
    decay=(
        ("backbone/stage_.*norm.*", 0.0),
        ("backbone/feature_norm.*", 0.0),
        ("backbone/.*bias/table", 0.0),
        (".*", 1.0),
    ),
)
PVT = dict(
    SHARED, batch=32, steps=40_000, optimizer=dict(name="adamw", weight_decay=1e-4),
    schedule="polynomial", learning_rate=2e-4, divisor=32,
)  # fmt: skip
BIFORMER_FPN = dict(
    PVT, steps=80_000, schedule="cosine", last_rate=2e-12, warmup=1000, first_factor=0.1,
    prefix=False,
)  # fmt: skip

RUNS: dict[str, dict[str, Any]] = {
    **{f"segformer_b{i}": dict(SEGFORMER, backbone=f"mit_b{i}(drop_path_rate=0.1)")
       for i in range(5)},
    "segformer_b5": dict(SEGFORMER, backbone="mit_b5(drop_path_rate=0.1)", crop=640, canvas=880),
    "setr_naive_vit_l16": dict(SETR, backbone="vit_l16", learning_rate=1e-2),
    "setr_pup_vit_l16": dict(SETR, backbone="vit_l16"),
    "setr_mla_vit_l16": dict(SETR, backbone="vit_l16"),
    **{f"upernet_swin_{v}": dict(SWIN, backbone=f"swin_{v}(drop_path_rate=0.3)")
       for v in ("tiny", "small", "base")},
    "upernet_biformer_small": dict(
        BIFORMER, backbone="biformer_small(n_win=8, drop_path_rate=0.3)"),
    "upernet_biformer_base": dict(
        BIFORMER, backbone="biformer_base(n_win=8, drop_path_rate=0.4)"),
    "upernet_debiformer_small": dict(
        DEBIFORMER, first_factor=2e-6,
        backbone=f"debiformer_small(n_win=8, mixer='{MIXER}', drop_path_rate=0.3)"),
    "upernet_debiformer_base": dict(
        DEBIFORMER, backbone=f"debiformer_base(n_win=8, mixer='{MIXER}', drop_path_rate=0.4)"),
    **{f"semantic_fpn_pvt_{v}":
       dict(PVT, backbone=f"pvt_{v}(image_size=224, drop_path_rate=0.1)")
       for v in ("tiny", "small", "medium", "large")},
    **{f"semantic_fpn_pvt_v2_{v}": dict(PVT, backbone=f"pvt_v2_{v}(drop_path_rate=0.1)")
       for v in ("b0", "b1", "b2", "b2_li", "b3", "b4", "b5")},
    "semantic_fpn_biformer_small": dict(
        BIFORMER_FPN, backbone="biformer_small(n_win=8, drop_path_rate=0.15)"),
    "semantic_fpn_biformer_base": dict(
        BIFORMER_FPN, backbone="biformer_base(n_win=8, drop_path_rate=0.3)"),
}  # fmt: skip
"""Model of the menu → its recipe; the backbone's text holds what its authors chose there."""


def get_config(name: str = "segformer_b0") -> dict[str, Any]:
    if name not in RUNS:
        raise ValueError(f"No run {name!r} in configs/ade20k.py; choose from {', '.join(RUNS)}.")
    run = RUNS[name]
    rate, side = run["learning_rate"], run["crop"]
    crop = f"scaled_crop(scale=(0.5, 2.0), short_side={side}, max_share=0.75, pad_last=True, "
    return dict(
        task="segmentation",
        steps=run["steps"],
        model=dict(name=name, dtype="bfloat16", backbone=run["backbone"]),
        data=dict(
            train="maps://data/ADEChallengeData2016?classes=150&reduce_zero=1",
            image_size=side,
            batch_size=run["batch"],
            eval_batch_size=16,
            augment=f"{crop}interpolation='bilinear') | flip | photometric",
            interpolation="bilinear",
            num_threads=16,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        segmentation=dict(
            eval_mode=run["mode"],
            eval_size=(run["canvas"], run["canvas"]),
            eval_short_side=side,
            eval_divisor=run["divisor"],
            label_size=(1600, 1600),  # of the largest validation image
        ),
        optimizer=dict(
            run["optimizer"],
            weight_decay_rules=run["decay"],
            learning_rate_rules=run["rates"],
        ),
        schedule=dict(
            name=run["schedule"],
            learning_rate=rate,
            start_factor=run["first_factor"],
            end_factor=run["last_rate"] / rate,
            warmup_steps=run["warmup"],
            warmup_prefix=run["prefix"],
        ),
        log_every=50,
        eval_every=16_000,
        checkpoint_every=2000,
    )
