"""Video classification, from clips that anyone has to the recipes of Kinetics-400.

Default: which way a digit moves. Data: `moving://`, scans of scikit-learn's digits that move in one
of eight directions (see vitjax/data/sources/moving.py); a single frame tells nothing of the class.
Command: `vitjax train --config=video --workdir=runs/video`; other mixers by one string:
`--config.model.mixer="window3d | window3d(shift='half')"`.
"""

from typing import Any

DBRA = "dbra3d(n_win=2, n_win_t=2, topk=4, stride=2, kernel_size=3, lepe_kernel_size=3)"


def get_config(name: str = "moving") -> dict[str, Any]:
    """Return the run of this name: moving, or swin3d_tiny … and vivit_b16x2 on Kinetics-400."""
    if name == "moving":
        return moving()
    if name == "vivit_b16x2":
        return vivit()
    if name in SWIN:
        return swin3d(name)
    raise ValueError(f"No run {name!r}; choose from moving, {', '.join(SWIN)}, vivit_b16x2.")


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


SWIN = {"swin3d_tiny": 0.02, "swin3d_small": 0.02, "swin3d_base": 0.05}
"""Name → weight decay (arXiv:2106.13230, section 4.1)."""
