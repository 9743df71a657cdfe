"""DeiT's recipe with everything on, end to end, on the digits."""

import json
import pathlib

import pytest

import train
from vitjax.cli import main as cli

SHARED = [
    "--config=configs/digits.py",
    "--config.model.width=16",
    "--config.model.depth=1",
    "--config.model.num_heads=2",
    "--config.data.image_size=32",
    "--config.data.batch_size=16",
    "--config.data.test_split=test[:40]",
    "--config.data.eval_batch_size=20",
    "--config.epochs=0",
    "--config.steps=4",
    "--config.schedule.warmup_steps=1",
    "--config.log_every=1",
    "--config.eval_every=4",
    "--config.checkpoint_every=2",
]
DEIT = [
    "--config.model.name=deit_tiny_distilled",
    "--config.model.patch_size=8",
    "--config.model.pool=token",
    "--config.model.drop_path_rate=0.1",
    "--config.data.augment=crop(area=(0.5, 1.0), interpolation='bicubic') | randaugment(n=2, m=9)",
    "--config.data.repeats=3",
    "--config.mixing.mixup=0.8",
    "--config.mixing.cutmix=1.0",
    "--config.mixing.erase=0.25",
    "--config.optimizer.ema=0.99",
    "--config.distillation.kind=hard",
]


def run(workdir: pathlib.Path, *flags: str) -> None:
    assert train.main([*SHARED, f"--workdir={workdir}", *flags]) == 0


@pytest.mark.slow
def test_everything_on(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    teacher = tmp_path / "teacher"
    run(teacher, "--config.model.name=vit_ti8")
    student = [*DEIT, f"--config.distillation.teacher={teacher}"]
    run(tmp_path / "whole", *student)
    rows = [json.loads(r) for r in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert len(losses) == 4 and max(losses) < 10
    capsys.readouterr()
    assert cli(["info", f"--workdir={tmp_path / 'whole'}", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["sha256"]) == 64
