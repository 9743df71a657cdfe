"""A teacher helps to train and stands in no checkpoint."""

import json
import pathlib
import shutil

import pytest

import train
from tests.train.test_loop import FLAGS
from vitjax.runs import open_run

SHORT = [*FLAGS, "--config.steps=4", "--config.schedule.warmup_steps=0", "--config.eval_every=2",
         "--config.checkpoint_every=2"]  # fmt: skip


def run(folder: pathlib.Path, *flags: str) -> int:
    return train.main([*SHORT, *flags, f"--workdir={folder}"])


@pytest.mark.slow
def test_a_teacher_is_frozen_and_in_no_checkpoint(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert run(teacher) == 0
    taught = (f"--config.distillation.teacher={teacher}", "--config.optimizer.ema=0.9")
    assert run(student, *taught) == 0
    manifest = open_run(student).checkpoints.manifest(4)
    assert not [path for path in manifest["arrays"] if "teacher" in path or "frozen" in path]
    assert len(manifest["frozen"]) == 64

    # It goes on: the last checkpoint is gone, and the run makes it again, bit for bit.
    before = manifest["arrays"]
    shutil.rmtree(student / "checkpoints" / "4")
    assert run(student, *taught) == 0
    assert open_run(student).checkpoints.manifest(4)["arrays"] == before

    # Its weights begin other runs, with a teacher or without.
    assert run(tmp_path / "next", f"--config.init={student}") == 0
    assert run(tmp_path / "both", f"--config.init={student}", *taught) == 0

    # With another teacher in its place it does not go on.
    capsys.readouterr()
    shutil.rmtree(teacher)
    assert run(teacher, "--config.seed=1") == 0
    shutil.rmtree(student / "checkpoints" / "4")
    assert run(student, *taught) == 1
    assert "its teacher had the SHA-256" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_of_an_older_version_is_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(tmp_path / "old") == 0
    (tmp_path / "old" / "checkpoints" / "4" / "manifest").rename(
        tmp_path / "old" / "checkpoints" / "4" / "seal"
    )
    before = sorted((tmp_path / "old").rglob("*"))
    capsys.readouterr()
    assert run(tmp_path / "old") == 1
    error = capsys.readouterr().err
    assert "were written by vitjax 0.1" in error and error.count("\n") == 1
    assert sorted((tmp_path / "old").rglob("*")) == before


@pytest.mark.slow
def test_other_classes_are_refused_before_training(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    test = "--config.data.test=synthetic://?size=400&classes=12&height=8&width=8"
    assert run(tmp_path / "run", test) == 2
    assert "config.data.test has classes that the training data lacks: '10', '11'" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
    assert run(tmp_path / "run", "--config.evals.first=digits://?split=test[:40]") == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    images = {row["split"]: row.get("images") for row in map(json.loads, lines)}
    assert images == {"process": None, "train": None, "test": 360, "first": 40}
