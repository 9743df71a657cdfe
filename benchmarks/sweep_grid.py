"""Grid of 48 small cells that `benchmarks/sweep_chaos.py` disturbs."""

from collections.abc import Iterator
from typing import Any


def get_sweep() -> Iterator[dict[str, Any]]:
    """Yield two sizes, two lengths and twelve seeds."""
    for seed in range(12):
        for width in (16, 32):
            for steps in (60, 120):
                yield dict(
                    seed=seed,
                    steps=steps,
                    model=dict(name="vit_ti2", width=width, depth=1, num_heads=2, pool="gap"),
                    data=dict(
                        train="digits://",
                        image_size=8,
                        batch_size=32,
                        eval_batch_size=360,
                        augment="digits",
                    ),
                    optimizer=dict(name="adamw", b2=0.99, weight_decay=0.05, clip_norm=1.0),
                    schedule=dict(name="cosine", learning_rate=3e-3, warmup_steps=10),
                    log_every=20,
                    eval_every=60,
                    checkpoint_every=20,
                    keep=2,
                )
