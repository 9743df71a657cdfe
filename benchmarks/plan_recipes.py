"""Runs that docs/plan.md plans: `--config=benchmarks/plan_recipes.py:NAME`.

b16        ViT-B/16 as the plain baseline trains it (arXiv:2205.01580): ImageNet, 90 epochs,
           batch 1024, global average pooling, fixed positions, a hidden layer in the head.
l16_i21k   ViT-L/16 on ImageNet-21k as in arXiv:2010.11929, table 3: batch 4096, 90 epochs.
           Without its dropout of 0.1, which the plan of a step would not show to be cheap.
h14_jft    ViT-H/14 on JFT-300M, likewise: 14 epochs.
"""

from typing import Any

COMMON: dict[str, Any] = dict(
    schedule=dict(name="cosine", learning_rate=1e-3, warmup_steps=10_000),
    optimizer=dict(name="adamw", mu_dtype="bfloat16", weight_decay=1e-4, clip_norm=1.0),
)
IMAGENET = dict(train="tfds://imagenet2012", batch_size=1024, eval_batch_size=1024)
I21K = dict(train="tfds://imagenet21k", batch_size=4096, eval_batch_size=4096)
JFT = dict(train="jft300m", batch_size=4096, eval_batch_size=4096)


def vit(name: str, width: int) -> dict[str, Any]:
    """Build the hyperparameters of a ViT without class token, with a pretraining head."""
    return dict(
        name=name, dtype="bfloat16", pool="gap", position="sincos2d", representation_size=width
    )


def get_config(name: str) -> dict[str, Any]:
    """Return the config fields of one of the runs above."""
    runs = {
        "b16": dict(epochs=90.0, model=vit("vit_b16", 768), data=IMAGENET),
        "l16_i21k": dict(epochs=90.0, model=vit("vit_l16", 1024), data=I21K),
        "h14_jft": dict(epochs=14.0, model=vit("vit_h14", 1280), data=JFT),
    }
    return {**COMMON, **runs[name]}
