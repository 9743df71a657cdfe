"""The default run: a small ViT on 1,797 scanned digits, in a minute and a half on two CPU cores.

Data: scikit-learn's copy of the UCI optical digits (Alpaydin and Kaynak, 1998), 8×8 pixels; 1,437
images to train on, 360 held out (see vitjax/data/sources/digits.py).
Command: `python train.py --config=configs/digits.py --workdir=runs/digits`, or `make train`.
Choices were made on the last fifth of the training images:
`--config.data.train_split='train[:80%]' --config.data.test_split='train[80%:]'`.
"""

from typing import Any


def get_config() -> dict[str, Any]:
    return dict(
        epochs=150.0,
        model=dict(name="vit_ti2", width=64, depth=4, num_heads=4, pool="gap"),
        data=dict(
            train="digits://",
            image_size=8,
            batch_size=64,
            eval_batch_size=360,
            eval_crop=1.0,  # of 8×8 pixels none can be spared
            augment="digits",
        ),
        loss=dict(label_smoothing=0.1),
        optimizer=dict(name="adamw", b2=0.99, weight_decay=0.05, clip_norm=1.0),
        schedule=dict(name="cosine", learning_rate=3e-3, warmup_steps=50),
        log_every=100,
        eval_every=500,
        checkpoint_every=500,
    )
