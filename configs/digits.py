"""The default run: a small ViT on 1,797 scanned digits, in minutes on two CPU cores.

Data: scikit-learn's copy of the UCI optical digits (Alpaydin and Kaynak, 1998), 8×8 pixels; 1,437
images to train on, 360 held out (see vitjax/data/digits.py).
Command: `python train.py --config=configs/digits.py --workdir=runs/digits`, or `make train`.
"""

from typing import Any


def get_config() -> dict[str, Any]:
    return dict(
        epochs=100.0,
        model=dict(name="vit_ti2", width=96, depth=6, num_heads=3, pool="gap", drop_path_rate=0.1),
        data=dict(
            train="digits://", image_size=8, batch_size=128, eval_batch_size=360, augment="digits"
        ),
        loss=dict(label_smoothing=0.1),
        optimizer=dict(name="adamw", b2=0.99, weight_decay=0.05, clip_norm=1.0, ema=0.99),
        schedule=dict(name="cosine", learning_rate=2e-3, warmup_steps=100),
        log_every=50,
        eval_every=250,
        checkpoint_every=250,
    )
