"""Detection: digits on photographs to try on two CPU cores, and the recipes of COCO, not run here.

  :digits                          a small RetinaNet on `boxes://`, the default
  :digits_masks                    a small Mask R-CNN on the same
  :digits_mosaic                   the first, half of its images four in one (arXiv:2004.10934)
  :retinanet_swin_tiny_1x …        the papers' recipes of COCO (RUNS)
  :detr_r50, :deformable_detr_r50  their own (SETS)

Command: `vitjax train --config=detection --workdir=runs/boxes`: 83.2 % AP (98.2 AP50, 95.3 AP75) on
the 1000 scenes held out, in 8:47 minutes of two cores with two evaluations; 79.8 % halfway. The
masks': 75.4 % mask AP and 78.8 AP of boxes on the same, in 16:21 minutes of one core, which are
about ten of two.
COCO: `vitjax train --config=detection:mask_rcnn_swin_tiny_1x --workdir=runs/swin
--config.init=swin_tiny.pth --config.data.train=coco:///data/coco`. `config.init` is the backbone's
weights from ImageNet, with which all papers begin. Measuring needs the extra `coco`.

Data of the first: scenes of digits (vitjax/data/sources/boxes.py), 100,000 to train on and 1000 of
other parts and other scans held out.

Papers and code: Swin arXiv:2103.14030 (Mask R-CNN of its detection repository, the RetinaNet with
its optimizer and BiFormer's rate, as none was published), PVT arXiv:2102.12122 and PVT v2
arXiv:2106.13797 (whai362/PVT), DAT++ arXiv:2309.01430 (LeapLabTHU/DAT-Detection), BiFormer
arXiv:2303.08810, DeBiFormer arXiv:2410.08582, their repositories. All are based on mmdetection,
whose anchors, samples and L1 losses these are (`aligned`, `sampling_ratio`, `box_beta`). Schedules
of 12 (1x) or 36 epochs (3x), a tenth of the rate after 2/3 and 11/12 (27 and 33 of 36), behind 500
steps of warm-up.

DETR arXiv:2005.12872 and Deformable DETR arXiv:2010.04159 (facebookresearch/detr,
fundamentalvision/Deformable-DETR), whose rate falls once, to a tenth. As in their code all
parameters decay, and the stem, the first stage and the norms of the ResNet do not train.
`--config.init=resnet50.pth` is the backbone's.

What differs from the authors: docs/recipes.md, field by field. Images stand in squares of 1344
pixels, as all images of a batch have one size, where theirs are padded to the largest of a batch.

Expected AP on COCO's validation images, of boxes / of masks (the repositories' READMEs): Mask R-CNN
1x: Swin-T 43.7 / 39.8, PVT-T 36.7 / 35.1, S 40.4 / 37.8, M 42.0 / 39.0, L 42.9 / 39.5,
PVT v2-B2 45.3 / 41.2, DAT-T++ 48.7 / 43.7, S++ 49.8 / 44.5, BiFormer-S 47.8 / 43.2, B 48.6 / 43.7,
DeBiFormer-S 47.5 / 42.5, B 48.5 / 43.2; 3x: Swin-T 46.0 / 41.6, S 48.5 / 43.3,
PVT v2-B2 47.8 / 43.1, DAT-T++ 50.5 / 45.1, S++ 51.2 / 45.7. RetinaNet 1x: PVT-T 36.7, S 40.4,
M 41.9, L 42.6, PVT v2-B2 44.6, DAT-T++ 46.8, S++ 48.3, BiFormer-S 45.9, B 47.1, DeBiFormer-S 45.6,
B 47.1; 3x: DAT-T++ 49.2, S++ 50.2. DETR 40.6 (the paper's table 2, as its repository's issue 61
says; 42.0 after 500 epochs), Deformable DETR 44.5.
"""

from typing import Any

SMALL = "resnet18(depths=(1, 1, 1), width=32, pool=False)"
NO_NORMS = (("backbone/.*norm.*", 0.0), (".*", 1.0))
NO_TABLES = {
    "swin": (("backbone/.*relative_position_bias.*", 0.0), *NO_NORMS),
    "dat": (("backbone/.*bias/table", 0.0), *NO_NORMS),
}
"""Decay of all but norms, and tables of relative positions."""
NO_STAGE_NORMS = (
    ("backbone/stage_.*norm.*", 0.0), ("backbone/feature_norm.*", 0.0), (".*", 1.0),
)  # fmt: skip
"""The same of BiFormer and DeBiFormer, where the norms of stem and downsampling have no name."""
ALL = ((".*", 1.0),)
MMDET_MASKS: dict[str, Any] = dict(
    name="mask_rcnn", aligned=True, sampling_ratio=0, box_beta=0.0, proposals=(1000, 1000)
)
MMDET_RETINANET: dict[str, Any] = dict(name="retinanet", extra_from_backbone=True)

SWIN = dict(batch=16, rate=1e-4, decay=0.05, rules=NO_TABLES["swin"], scales="several")
PVT = dict(batch=16, decay=1e-4, rules=ALL, scales="one")
DAT = dict(batch=64, decay=0.05, rules=NO_TABLES["dat"], scales="several")
BIFORMER = dict(batch=16, rate=1e-4, scales="one")
DEBIFORMER = dict(batch=16, scales="one")
DEBIFORMER_MIXER = "bra(topk=1) | dbra ; bra(topk=4) | dbra ; bra(topk=16) | dbra ; dbra(topk=49)"

PVTS = {
    **{f"pvt_{v}": f"image_size=224, drop_path_rate={drop}"
       for v, drop in (("tiny", 0.1), ("small", 0.1), ("medium", 0.0), ("large", 0.0))},
    **{f"pvt_v2_{v}": "drop_path_rate=0.1" for v in ("b0", "b1", "b2", "b2_li", "b3", "b4", "b5")},
}  # fmt: skip
HALVED = {
    "mask_rcnn": ("pvt_large", "pvt_v2_b4", "pvt_v2_b5"), "retinanet": ("pvt_v2_b4", "pvt_v2_b5"),
}  # fmt: skip
"""What PVT's authors train with half the batch, and 1/1.4 of the rate."""


def _run(kind: str, backbone: str, options: str, epochs: int, recipe: dict[str, Any], **own: Any):
    masks = kind == "mask_rcnn"
    model = MMDET_MASKS if masks else MMDET_RETINANET
    name = f"{kind}_{backbone}_{epochs // 12}x"
    text = f"{backbone}({options})" if options else backbone
    return {name: dict(recipe, model=dict(model, backbone=text), epochs=epochs, **own)}


RUNS: dict[str, dict[str, Any]] = {}
for _epochs, _drop in ((12, 0.1), (36, 0.2)):
    for _kind in ("mask_rcnn", "retinanet"):
        RUNS |= _run(_kind, "swin_tiny", f"drop_path_rate={_drop}", _epochs, SWIN)
RUNS |= _run("mask_rcnn", "swin_small", "drop_path_rate=0.2", 36, SWIN)
for _kind, _rate in (("mask_rcnn", 2e-4), ("retinanet", 1e-4)):
    for _name, _options in PVTS.items():
        RUNS |= _run(_kind, _name, _options, 12, PVT, rate=_rate)
    for _name in HALVED[_kind]:
        RUNS[f"{_kind}_{_name}_1x"] |= dict(batch=8, rate=_rate / 1.4)
RUNS |= _run("mask_rcnn", "pvt_v2_b2", "drop_path_rate=0.1", 36, SWIN, rules=NO_NORMS)
for _kind, _rate, _drops in (
    ("mask_rcnn", 4e-4, (0.0, 0.3, 0.1, 0.5)),
    ("retinanet", 2e-4, (0.0, 0.2, 0.1, 0.5)),
):
    for _i, (_size, _epochs) in enumerate(
        (("tiny", 12), ("tiny", 36), ("small", 12), ("small", 36))
    ):
        _options = f"drop_path_rate={_drops[_i]}"
        RUNS |= _run(_kind, f"dat_pp_{_size}", _options, _epochs, DAT, rate=_rate)
for _size, _drop in (("small", 0.2), ("base", 0.3)):
    _options = f"n_win=16, frozen_statistics=True, drop_path_rate={_drop}"
    RUNS |= _run(
        "mask_rcnn", f"biformer_{_size}", _options, 12, BIFORMER, decay=0.05, rules=NO_STAGE_NORMS
    )
    RUNS |= _run("retinanet", f"biformer_{_size}", _options, 12, BIFORMER, decay=1e-4, rules=ALL)
for _size, _drop, _windows, _rate, _warmup in (
    ("small", 0.2, 16, 5e-5, 1500),
    ("base", 0.3, 32, 2.5e-5, 5000),
):
    _options = f"n_win={_windows}, mixer='{DEBIFORMER_MIXER}', drop_path_rate={{}}"
    RUNS |= _run(
        "mask_rcnn", f"debiformer_{_size}", _options.format(_drop), 12,
        dict(DEBIFORMER, batch=8), rate=_rate, decay=0.05, warmup=_warmup,
        rules=(("backbone/.*bias/table", 0.0), *NO_STAGE_NORMS),
    )  # fmt: skip
    RUNS |= _run(
        "retinanet", f"debiformer_{_size}", _options.format(0.0), 12, DEBIFORMER, rate=1e-4,
        decay=1e-4, rules=NO_STAGE_NORMS,
    )  # fmt: skip
"""Model, backbone and schedule → recipe; the backbone's text holds what its authors chose there."""

FIXED = ("backbone/stem/.*", "backbone/stage_0/.*", "backbone/.*/norm/.*")
SETS: dict[str, dict[str, Any]] = {
    "detr_r50": dict(
        name="detr", epochs=300, drop=200, batch=64, rate=1e-4, slower=("backbone/.*",)
    ),
    "deformable_detr_r50": dict(
        name="deformable_detr", epochs=50, drop=40, batch=32, rate=2e-4,
        slower=("backbone/.*", "head/.*/offset/.*", "head/reference/.*"),
    ),
}  # fmt: skip
"""Recipe → epochs in all, and until the rate drops; what learns at a tenth of the rate."""
RUNS |= SETS

DIGITS = ("digits", "digits_masks", "digits_mosaic")
CANVAS = 1344
AUGMENT = {
    "one": "multi_scale(short_sides=(800, 800, 1), part=0.0, interpolation='bilinear') | flip",
    "several": "multi_scale(interpolation='bilinear') | flip",
    "pillow": "multi_scale(interpolation='antialias') | flip",
}


def get_config(name: str = "digits") -> dict[str, Any]:
    if name in DIGITS:
        return _digits(name == "digits_masks", name == "digits_mosaic")
    if name in SETS:
        return _set_prediction(**SETS[name])
    if name not in RUNS:
        names = ", ".join((*DIGITS, *RUNS))
        raise ValueError(f"No run {name!r} in configs/detection.py; choose from {names}.")
    run = RUNS[name]
    return dict(
        _coco(run["epochs"], run["batch"], run["scales"]),
        model=dict(run["model"], dtype="bfloat16"),
        optimizer=dict(name="adamw", weight_decay=run["decay"], weight_decay_rules=run["rules"]),
        schedule=dict(
            name="step",
            learning_rate=run["rate"],
            milestones=(8 / 12, 11 / 12) if run["epochs"] == 12 else (27 / 36, 33 / 36),
            start_factor=1e-3,
            warmup_steps=run.get("warmup", 500),
            warmup_prefix=False,
        ),
    )


def _set_prediction(
    name: str, epochs: int, drop: int, batch: int, rate: float, slower: tuple[str, ...]
) -> dict[str, Any]:
    """Build the recipe of a DETR: dropout of 0.1, and gradients of a norm of 0.1 at most."""
    return dict(
        _coco(epochs, batch, "pillow"),
        model=dict(name=name, backbone="resnet50(frozen_statistics=True)", dtype="bfloat16"),
        optimizer=dict(
            name="adamw",
            weight_decay=1e-4,
            weight_decay_rules=ALL,
            learning_rate_rules=(*((pattern, 0.1) for pattern in slower), (".*", 1.0)),
            freeze=FIXED,
            clip_norm=0.1,
        ),
        schedule=dict(name="step", learning_rate=rate, milestones=(drop / epochs,)),
    )


def _coco(epochs: int, batch: int, scales: str) -> dict[str, Any]:
    """Build what all recipes of COCO share."""
    return dict(
        task="detection",
        epochs=float(epochs),
        data=dict(
            train="coco://data/coco",
            image_size=CANVAS,
            batch_size=batch,
            eval_batch_size=16,
            augment=AUGMENT[scales],
            interpolation="antialias" if scales == "pillow" else "bilinear",
            num_threads=16,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        detection=dict(eval_short_side=800),
        log_every=50,
        eval_every=7330,
        checkpoint_every=2000,
    )


def _digits(masks: bool, mosaic: bool) -> dict[str, Any]:
    """Build the small run: images of 96 pixels, scans of 24 to 48 on maps of strides 4 to 16."""
    model: dict[str, Any] = dict(backbone=SMALL, ratios=(1.6,))  # digits are higher than wide
    if masks:
        model |= dict(
            name="mask_rcnn", width=32, box_width=128, anchor_scale=4.0, aligned=True,
            box_beta=0.0, rpn_samples=64, rpn_candidates=(50, 50), proposals=(50, 30), samples=16,
        )  # fmt: skip
    else:
        model |= dict(
            name="retinanet", width=64, depth=2, group_norm=True, extra_levels=0, anchor_scale=2.0,
            octave_scales=2, box_loss="giou", candidates=100,
        )  # fmt: skip
    return dict(
        task="detection",
        steps=1500 if masks else 2400,
        model=model,
        data=dict(
            train="boxes://?size=96&digits=5",
            image_size=96,
            batch_size=32,
            eval_batch_size=50,
            augment="lsj(scale=(0.8, 1.6)) | mosaic(p=0.5)" if mosaic else "centre",
        ),
        detection=dict(limit=20 if mosaic else 5, mask_size=56, eval_limit=5),
        optimizer=dict(name="adamw", weight_decay=0.01, clip_norm=1.0, ema=0.998),
        schedule=dict(name="cosine", learning_rate=3e-3, warmup_steps=100),
        log_every=50,
        eval_every=500 if masks else 1200,
        checkpoint_every=500,
    )
