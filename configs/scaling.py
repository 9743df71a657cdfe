"""The default sweep: four sizes of a ViT on four numbers of images, with three seeds each.

Data: `collages://`, images composed of scanned digits without end
(vitjax/data/sources/collages.py); each image is seen once, so that the number of images is the
number of samples seen. "test" has other scans and photographs; "fresh" has the training scans in
images that no run has seen, whose loss is the one that a law of one-pass training is of. Command:
`vitjax sweep run scaling --next`, by as many workers as there are cores or machines; then `vitjax
sweep fit scaling --metric fresh/loss` and `vitjax sweep plot scaling --metric fresh/loss`. Noise
keeps the loss above 0, and the smallest number of images is past the plateau at the beginning.
`scaling:branches` has the long data axis of one run a size: cooldown branches from its checkpoints.
Results: docs/scaling.md.
"""

from collections.abc import Iterator
from typing import Any

SIZES = {16: 1, 24: 2, 32: 3, 48: 4}
"""Width → depth."""
IMAGES = (40_960, 81_920, 163_840, 327_680)
SEEDS = (0, 1, 2)
BATCH = 32
RATE = 0.12
"""Peak learning rate times width: half and twice as much were worse for widths 16 and 64."""
SAVE = 256
"""Steps between a trunk's checkpoints."""
COLLAGES = "collages://?size=16&clutter=0&noise=128"


def fields(width: int, images: int, seed: int) -> dict[str, Any]:
    steps = images // BATCH
    return dict(
        seed=seed,
        steps=steps,
        model=dict(
            name="vit_ti4", width=width, depth=SIZES[width], num_heads=width // 8, pool="gap"
        ),
        data=dict(
            train=f"{COLLAGES}&count={images}",
            test=COLLAGES,
            image_size=16,
            batch_size=BATCH,
            eval_batch_size=500,
            eval_crop=1.0,
        ),
        evals=dict(fresh=f"{COLLAGES}&split=train&seed=1&count=4000"),
        optimizer=dict(name="adamw", b2=0.99, weight_decay=0.02, clip_norm=1.0),
        schedule=dict(name="cosine", learning_rate=RATE / width, warmup_steps=steps // 10),
        log_every=100,
        eval_every=100_000,  # at the end
        checkpoint_every=500,
        keep=1,
    )


def get_config() -> dict[str, Any]:
    """Largest cell of the grid, for `vitjax train --config=scaling`."""
    return fields(max(SIZES), IMAGES[-1], 0)


def get_sweep(kind: str = "grid") -> Iterator[dict[str, Any]]:
    from vitjax.sweep.cells import branch

    if kind not in ("grid", "branches"):
        raise ValueError(f"Unknown sweep {kind!r}. Choose from: grid, branches.")
    for seed in SEEDS:
        for width in SIZES:
            if kind == "grid":
                yield from (fields(width, images, seed) for images in IMAGES)
                continue
            trunk = fields(width, IMAGES[-1], seed) | dict(
                schedule=dict(
                    name="rsqrt", learning_rate=RATE / width, warmup_steps=100, timescale=200
                ),
                checkpoint_every=SAVE,
                keep=1000,
            )
            for images in IMAGES:
                steps = images // BATCH
                at = steps * 4 // 5 // SAVE * SAVE
                yield branch(trunk, at, steps - at)
