"""A work folder belongs to one run, and to one at a time."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.train.test_config import load
from vitjax.train.config import ConfigError
from vitjax.train.workdir import LockedError, claim_workdir, lock, read_extensions

ROOT = pathlib.Path(__file__).parents[2]
AB = ["a", "b"]
DATA = {"training": {"fingerprint": "0f" * 8, "images": 1437}}


def test_a_folder_keeps_to_its_run(file: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "work"
    claim_workdir(load(file), folder, AB, DATA).close()
    claim_workdir(load(file, log_every="7", data__num_threads="9"), folder, AB, DATA).close()
    assert json.loads((folder / "classes.json").read_text()) == ["a", "b"]
    before = (folder / "config.json").read_text()
    with pytest.raises(
        ConfigError, match=r"optimizer.b1 \(there 0.9, now 0.5\); seed \(there 0, now 1\)"
    ):
        claim_workdir(load(file, optimizer__b1="0.5", seed="1"), folder, AB, DATA)
    assert (folder / "config.json").read_text() == before
    with pytest.raises(
        ConfigError, match=r"has 2 classes \(a, b\), and the data now has 3 \(a, b, c\)"
    ):
        claim_workdir(load(file), folder, ["a", "b", "c"], DATA)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        claim_workdir(load(file), tmp_path / "file" / "work", AB, DATA)


def test_data_that_changed_is_told_apart(file: str, tmp_path: pathlib.Path) -> None:
    claim_workdir(load(file), tmp_path, AB, DATA).close()
    for images, words in ((1400, "1,437 images then and 1,400 now"), (1437, "1,437 images as")):
        now = {"training": {"fingerprint": "aa" * 8, "images": images}}
        with pytest.raises(
            ConfigError, match=f"The training data .* has changed: {words}.*, now aa"
        ):
            claim_workdir(load(file), tmp_path, AB, now)


def test_what_a_run_that_goes_back_depends_on(file: str, tmp_path: pathlib.Path) -> None:
    back = dict(on_divergence__action="rollback")
    claim_workdir(load(file, **back), tmp_path, AB, DATA).close()
    claim_workdir(load(file, log_every="7", mesh__fsdp="2", **back), tmp_path, AB, DATA).close()
    with pytest.raises(ConfigError, match="checkpoint_every"):
        claim_workdir(load(file, checkpoint_every="7", **back), tmp_path, AB, DATA)


def test_two_at_once(tmp_path: pathlib.Path) -> None:
    code = (
        "import pathlib, sys, time; from vitjax.train.workdir import lock; "
        f"held = lock(pathlib.Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(LockedError, match=rf"at work in .*: process {other.pid} on \S+, since 20"):
        lock(tmp_path)
    other.kill()  # and its lock is gone with it
    other.wait()
    other.stdout.close()
    claim = lock(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["who"].startswith(f"process {os.getpid()}")
    claim.close()


def test_the_same_data_may_lie_elsewhere(
    file: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = dict(data__train="/old/photos"), dict(data__train="/new/photos/")
    facts = {**DATA, "test": {"fingerprint": "1e" * 8, "images": 360}}
    claim_workdir(load(file, **old), tmp_path, AB, facts).close()
    claim_workdir(load(file, **old), tmp_path, AB, facts).close()
    assert not caplog.text
    claim_workdir(load(file, **new), tmp_path, AB, facts).close()
    assert (
        "and is in another place: data.train (there '/old/photos', now '/new/photos/" in caplog.text
    )
    assert json.loads((tmp_path / "config.json").read_text())["data"]["train"] == "/new/photos/"
    with pytest.raises(ConfigError, match=r"another run: seed \(there 0, now 1\)\."):
        claim_workdir(load(file, seed="1", **old), tmp_path, AB, facts)
    others = (
        {**facts, "test": {"fingerprint": "00" * 8, "images": 360}},
        {**facts, "training": {"fingerprint": "00" * 8, "images": 1437}},
        {**facts, "v2": facts["test"]},  # one more evaluation
    )
    for changed in others:
        with pytest.raises(ConfigError, match=r"another run: data\.train"):
            claim_workdir(load(file, **old), tmp_path, AB, changed)


def test_a_teacher_may_lie_elsewhere(file: str, tmp_path: pathlib.Path) -> None:
    facts = {**DATA, "teacher": {"fingerprint": "7e" * 8, "images": 0}}
    claim_workdir(load(file, distillation__teacher="/old/t"), tmp_path, AB, facts).close()
    claim_workdir(load(file, distillation__teacher="/new/t"), tmp_path, AB, facts).close()
    facts["teacher"] = {"fingerprint": "00" * 8, "images": 0}
    with pytest.raises(ConfigError, match=r"another run: distillation.teacher"):
        claim_workdir(load(file, distillation__teacher="/old/t"), tmp_path, AB, facts)


def test_a_length_may_be_said_the_other_way(file: str, tmp_path: pathlib.Path) -> None:
    """1437 images, batches of 128: 2 epochs are 22 steps."""
    claim_workdir(load(file), tmp_path, AB, DATA).close()
    claim_workdir(load(file, steps="22"), tmp_path, AB, DATA).close()
    with pytest.raises(ConfigError, match=r"steps \(there 22, now 23\).* --extend goes on from 22"):
        claim_workdir(load(file, steps="23"), tmp_path, AB, DATA)
    with pytest.raises(ConfigError, match=r"or another --workdir\.$"):
        claim_workdir(load(file, steps="21"), tmp_path, AB, DATA)


def test_a_run_becomes_longer(file: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "work"

    def claim(**fields: str) -> None:
        claim_workdir(load(file, **fields), folder, AB, DATA, extend=True).close()

    with pytest.raises(ConfigError, match=r"makes a run longer, and .*work holds none"):
        claim()
    assert not folder.exists()
    claim_workdir(load(file), folder, AB, DATA).close()
    for steps in ("22", "20"):
        with pytest.raises(ConfigError, match=f"has 22 steps, and the config says {steps}"):
            claim(steps=steps)
    with pytest.raises(ConfigError, match=r"another run: seed \(there 0, now 1\)\."):
        claim(steps="40", seed="1")
    assert read_extensions(folder) == []
    claim(steps="40")
    claim(steps="40")  # the same command goes on
    claim_workdir(load(file, steps="40"), folder, AB, DATA).close()
    claim(epochs="4")
    assert read_extensions(folder) == [(22, 40), (40, 45)]
    with pytest.raises(ConfigError, match="has 45 steps, and the config says 40"):
        claim(steps="40")
