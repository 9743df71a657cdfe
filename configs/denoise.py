"""Restoration to try: Gaussian noise of σ 25 taken off photographs, with a small Uformer.

Data: `photos://`, nine photographs of scikit-learn and scikit-image to train on, two others held
out (see vitjax/data/sources/photos.py). It needs `pip install 'vitjax[photos]'`.
Command: `vitjax train --config=denoise --workdir=runs/denoise`, eight minutes on two busy cores.
Result: 30.2 dB (RGB, 8 bits) on average of the two photographs. The noisy ones have 20.5, the best
Gaussian filter of each 28.1, OpenCV's non-local means at its best strength 28.6 (per channel).
"""

from typing import Any


def get_config() -> dict[str, Any]:
    return dict(
        task="restoration",
        steps=800,
        model=dict(
            name="uformer_t", depths=(1,) * 9, window_size=4, modulator=True, drop_path_rate=0.0
        ),
        data=dict(
            train="photos://?count=1000",
            image_size=64,
            batch_size=8,
            eval_batch_size=1,
            augment="scaled_crop(scale=(1.0, 1.0)) | flip",
        ),
        restoration=dict(degradation="noise(sigma=25)", eval_size=(400, 600)),
        optimizer=dict(name="adamw", b2=0.99, weight_decay=0.0, clip_norm=1.0),
        schedule=dict(name="cosine", learning_rate=1e-3, warmup_steps=100),
        log_every=100,
        eval_every=400,
        checkpoint_every=400,
    )
