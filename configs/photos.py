"""A ViT-Ti/16 from scratch on your own folder of photos, one subfolder per class.

Command: `python train.py --config=configs/photos.py --workdir=runs/photos
--config.data.train=photos/`. A folder without `train/` and `test/` inside gives a fifth of each
class to the test. Unreadable files stop the run by name; `--config.data.on_bad_image=skip` counts
them instead. Recipe: the plain ViT of arXiv:2205.01580 (global average pooling, fixed positions),
shortened. From scratch it wants thousands of photos a class; with fewer expect a baseline only.
Evaluation sees the whole central square of a photo, since nobody knows how yours are framed; the
paper's is `--config.data.eval_crop=0.875`.
"""

from typing import Any


def get_config() -> dict[str, Any]:
    return dict(
        epochs=90.0,
        model=dict(name="vit_ti16", pool="gap", position="sincos2d"),
        data=dict(
            train="photos/",
            image_size=224,
            batch_size=32,
            eval_batch_size=64,
            eval_crop=1.0,
            augment="crop_flip",
        ),
        optimizer=dict(name="adamw", weight_decay=0.1, clip_norm=1.0, ema=0.999),
        schedule=dict(name="cosine", learning_rate=1e-3, warmup_steps=500),
        log_every=20,
        eval_every=500,
        checkpoint_every=500,
    )
