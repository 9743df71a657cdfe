"""Video classification, from clips that anyone has to the recipes of Kinetics-400.

  :moving   the default: which way a digit moves. Data: `moving://`, scans of scikit-learn's digits
            that move in one of eight directions (vitjax/data/sources/moving.py); a single frame
            tells nothing of the class. A small pyramid of dbra3d has 98.5 % of 400 held-out clips
            after 800 steps, in eight minutes of one core's time. Other mixers are one string:
            `--config.model.mixer="window3d | window3d(shift='half')"`.
  :swin3d_tiny, :swin3d_small, :swin3d_base   Video Swin on Kinetics-400 (arXiv:2106.13230, section
            4.1, as mmaction2's configs/recognition/swin have it): 30 epochs, batch 64, AdamW at
            1e-3, a tenth of it below the head, 32 frames at a stride of 2, and 4×3 views in
            evaluation: 78.8, 80.6 and 80.6 %. It begins with Swin's weights of ImageNet-1k:
            `--config.init=swin_tiny_patch4_window7_224.pth`.
  :vivit_b16x2   ViViT-B/16x2, unfactorised, on Kinetics-400 (google-research/scenic,
            projects/vivit/configs/kinetics400/vivit_base_k400.py): 30 epochs, batch 64, momentum at
            0.1, clipping at 1, 32 frames at a stride of 2, 4×3 views: 79.9 %. It begins with a
            ViT-B/16 of ImageNet-21k: `--config.init=…`.

docs/recipes.md compares each field with the papers and their code.

Command: `vitjax train --config=video --workdir=runs/video`, or
`--config=configs/video.py:swin3d_tiny --config.data.train=kinetics:///folder/of/tables`. Neither
recipe of Kinetics has been run with this code yet.
"""

from typing import Any

DBRA = "dbra3d(n_win=2, n_win_t=2, topk=4, stride=2, kernel_size=3, lepe_kernel_size=3)"


def get_config(name: str = "moving") -> dict[str, Any]:
    """Return the run of this name: moving, or swin3d_tiny … and vivit_b16x2 on Kinetics-400."""
    if name == "moving":
        return moving()
    if name not in RUNS:
        raise ValueError(f"No run {name!r}; choose from moving, {', '.join(RUNS)}.")
    return swin3d(name) if name in SWIN else vivit()


def moving() -> dict[str, Any]:
    return dict(
        task="video",
        steps=800,
        model=dict(
            name="swin3d_tiny", dims=(32, 64), depths=(2, 2), num_heads=(2, 4), drop_path_rate=0.0,
            mixer=f"{DBRA} ; {DBRA} | full",
        ),
        clip=dict(frames=8, stride=2),
        data=dict(
            train="moving://?count=20000", test="moving://?count=4000", image_size=32,
            batch_size=32, eval_batch_size=100,
        ),
        optimizer=dict(name="adamw", weight_decay=0.05, clip_norm=1.0),
        schedule=dict(name="cosine", learning_rate=2e-3, warmup_steps=50),
        log_every=50,
        eval_every=200,
        checkpoint_every=200,
    )  # fmt: skip


FRAMES = dict(frames=32, stride=2, eval_clips=4, eval_crops=3)
"""Of both papers: 32 frames of 64, and 4×3 views."""
SWIN = {"swin3d_tiny": 0.02, "swin3d_small": 0.02, "swin3d_base": 0.05}
"""Name → weight decay."""
RUNS = (*SWIN, "vivit_b16x2")


def swin3d(name: str) -> dict[str, Any]:
    per_epoch = 240_436 // 64
    return dict(
        task="video",
        epochs=30.0,
        model=dict(name=name, dtype="bfloat16"),
        clip=FRAMES,
        data=_kinetics(
            augment="crop(interpolation='bilinear') | flip", eval_crop=1.0, interpolation="bilinear"
        ),
        optimizer=dict(
            name="adamw",
            weight_decay=SWIN[name],
            weight_decay_rules=((".*relative_position_bias", 0.0), (".*norm.*", 0.0), (".*", 1.0)),
            learning_rate_rules=(("head/.*", 1.0), (".*", 0.1)),
        ),
        schedule=dict(
            name="cosine",
            learning_rate=1e-3,
            warmup_steps=round(2.5 * per_epoch),
            start_factor=0.1,
            warmup_prefix=False,
        ),
        eval_every=3 * per_epoch,
        checkpoint_every=1000,
    )


def vivit() -> dict[str, Any]:
    per_epoch = 214_834 // 64
    colour = "jitter(brightness=0.125, contrast=0.4, saturation=0.4)"
    return dict(
        task="video",
        epochs=30.0,
        model=dict(name="vivit_b16x2", dtype="bfloat16"),
        clip=FRAMES,
        data=_kinetics(
            augment=f"scaled_crop(scale=(0.9, 1.33), short_side=256) | flip | {colour}",
            eval_crop=0.875,
            interpolation="bilinear",
        ),
        optimizer=dict(name="sgd", b1=0.9, clip_norm=1.0),
        schedule=dict(name="cosine", learning_rate=0.1, warmup_steps=round(2.5 * per_epoch)),
        eval_every=5 * per_epoch,
        checkpoint_every=1000,
    )


def _kinetics(**parts: Any) -> dict[str, Any]:
    """What both share."""
    return dict(
        train="kinetics:///data/kinetics400", image_size=224, batch_size=64, eval_batch_size=16,
        num_threads=16, on_bad_image="skip", max_bad_images=1000, mean=(), std=(), **parts,
    )  # fmt: skip
