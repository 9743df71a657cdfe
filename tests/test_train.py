"""`train.py` as a user runs it: to the end, interrupted, killed, resumed, and with mistakes."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

import train
from vitjax.cli import main as cli
from vitjax.train.goodput import PROCESS
from vitjax.train.report import read_metrics

ROOT = pathlib.Path(__file__).parent.parent
TINY = [
    "--config=configs/digits.py",
    "--config.model.name=vit_ti4",
    "--config.model.width=16",
    "--config.model.depth=2",
    "--config.model.num_heads=2",
    "--config.data.batch_size=67",
    "--config.data.eval_batch_size=101",
    "--config.epochs=0",
    "--config.steps=40",
    "--config.schedule.warmup_steps=5",
    "--config.log_every=3",
    "--config.eval_every=16",
    "--config.checkpoint_every=8",
]


def start(workdir: pathlib.Path, *flags: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [*prefix, sys.executable, "train.py", *TINY, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def here(capsys: pytest.CaptureFixture, workdir: pathlib.Path, *flags: str) -> tuple[int, str]:
    """Run in this process, which saves starting one; return the exit code and what was printed."""
    capsys.readouterr()
    code = train.main([*TINY, f"--workdir={workdir}", *flags])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def info(workdir: pathlib.Path, capsys: pytest.CaptureFixture) -> dict:
    capsys.readouterr()
    assert cli(["info", f"--workdir={workdir}", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def rows(workdir: pathlib.Path) -> list[dict]:
    """Read the rows of metrics, without those that depend on time."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = ("images_per_second", "data_wait", "time", "seconds")
    return [
        {k: v for k, v in row.items() if k not in timed} for row in found if row["split"] != PROCESS
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    workdir = tmp_path_factory.mktemp("run") / "work"
    process = start(workdir)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return workdir, output


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(uninterrupted, capsys: pytest.CaptureFixture) -> None:
    workdir, output = uninterrupted
    for text in (
        "parameters",
        "multiply-adds per image",
        "programs are kept in",
        "40 steps of 67 images",
        "ETA",
        "vitjax predict",
    ):
        assert text in output
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((workdir / "events").iterdir())
    assert json.loads((workdir / "config.json").read_text())["model"]["width"] == 16
    tests = [row for row in rows(workdir) if row["split"] == "test"]
    assert [row["step"] for row in tests] == [16, 32, 40]
    assert {row["images"] for row in tests} == {360}
    found = info(workdir, capsys)
    assert found["step"] == 40
    assert found["best"]["top1"] == max(row["top1"] for row in tests)


@pytest.mark.slow
def test_a_finished_run_is_shown_not_repeated(uninterrupted, capsys) -> None:
    workdir, first = uninterrupted
    before = info(workdir, capsys), (workdir / "metrics.jsonl").read_text()
    code, output = here(capsys, workdir)
    assert code == 0
    assert "ETA" not in output
    assert next(line for line in first.splitlines() if "  last " in line) in output
    assert (info(workdir, capsys), (workdir / "metrics.jsonl").read_text()) == before


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_bits(
    uninterrupted, sent: signal.Signals, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    process = start(tmp_path / "work")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 9/"):
            process.send_signal(sent)
            break
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert f"Stopped by {sent.name}" in output
    stopped = info(tmp_path / "work", capsys)["step"]
    assert 9 <= stopped < 40
    code, output = here(capsys, tmp_path / "work")
    assert code == 0
    assert f"going on from step {stopped}" in output
    assert info(tmp_path / "work", capsys)["sha256"] == info(uninterrupted[0], capsys)["sha256"]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(
    uninterrupted, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    workdir, kills, rng, begin = tmp_path / "work", 0, random.Random(0), time.time()
    for _ in range(30):
        process = start(workdir)
        assert process.stdout is not None
        goal = rng.choice([6, 9, 15, 16, 24])  # steps to see, some of them while a save goes on
        seen = 0
        for line in process.stdout:
            seen += 3 * line.startswith("step ")
            if seen >= goal and kills < 3:
                time.sleep(rng.random() * 0.05)
                process.kill()
                kills += 1
                break
        process.stdout.close()
        if process.wait(timeout=300) == 0:
            break
    wall = time.time() - begin
    assert kills == 3
    found = info(workdir, capsys)
    times = read_metrics(workdir / "metrics.jsonl")
    told = sum(found["seconds"].values())
    assert told == pytest.approx(times[-1]["time"] - times[0]["began"], rel=1e-3)
    assert wall - 6 < told <= wall * 1.01  # an interpreter takes a while to start, and to end
    assert found["seconds"]["lost"] > 0 and found["seconds"]["productive"] > 0
    assert found["sha256"] == info(uninterrupted[0], capsys)["sha256"]
    losses = {(r["step"], r["split"]): r["loss"] for r in rows(workdir)}
    whole = {(r["step"], r["split"]): r["loss"] for r in rows(uninterrupted[0])}
    tests = {k: v for k, v in whole.items() if k[1] == "test"}
    assert {k: losses[k] for k in tests} == tests
    assert len(losses) == len(rows(workdir)), "a step stands twice in metrics.jsonl"


@pytest.mark.slow
def test_a_full_disk_costs_checkpoints_not_training(
    uninterrupted, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    workdir, small = tmp_path / "work", ("bash", "-c", 'ulimit -f 24 && exec "$0" "$@"')
    process = start(workdir, prefix=small)  # no file beyond 24 KiB
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert "step 40/40" in output
    assert output.strip().splitlines()[-1].startswith(f"error: Saving in {workdir}/checkpoints")
    assert "Traceback" not in output
    assert not list(workdir.glob("checkpoints/[0-9]*/manifest/metadata"))
    code, output = here(capsys, workdir)
    assert code == 0, output
    assert info(workdir, capsys)["sha256"] == info(uninterrupted[0], capsys)["sha256"]


@pytest.mark.slow
def test_a_spike_with_nowhere_to_go_is_named(tmp_path: pathlib.Path, capsys) -> None:
    code, output = here(
        capsys,
        tmp_path / "work",
        "--config.on_divergence.action=rollback",
        "--config.on_divergence.max=1",
        "--config.on_divergence.spike=1e-3",
    )
    assert code == 1
    assert "going back to step 16, and leaving out the next 5 batches of data." in output
    assert "It went back 1 times before." in output.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_run_on_photos_with_every_option_on(tmp_path: pathlib.Path, capsys) -> None:
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for i in range(34):
        folder = tmp_path / "photos" / ("bright" if i % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        shape = (rng.integers(20, 70), rng.integers(20, 70), 3)
        image = rng.integers(0, 120, shape) + 130 * (i % 2)
        cv2.imwrite(str(folder / f"{i}.{'jpg' if i % 3 else 'png'}"), image.astype(np.uint8))
    flags = [
        f"--config.data.train={tmp_path / 'photos'}", "--config.data.image_size=24",
        "--config.data.augment=crop_flip", "--config.data.batch_size=8", "--config.steps=6",
        "--config.model.dtype=bfloat16", "--config.model.scan=True", "--config.model.remat=True",
        "--config.model.pool=map", "--config.model.position=sincos2d",
        "--config.model.num_registers=2", "--config.model.representation_size=16",
        "--config.model.layer_scale_init=1e-4", "--config.loss.name=sigmoid",
        "--config.optimizer.name=adafactor", "--config.optimizer.accumulate=2",
        "--config.optimizer.mu_dtype=bfloat16", "--config.schedule.name=rsqrt",
        "--config.schedule.cooldown_steps=1", "--config.schedule.warmup_steps=1",
    ]  # fmt: skip
    code, output = here(capsys, tmp_path / "work", *flags)
    assert code == 0, output
    assert "2 classes" in output


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    flags = [
        "--config.schedule.learning_rate=1e30",
        "--config.optimizer.clip_norm=0.0",
        "--config.schedule.warmup_steps=0",
        "--config.schedule.name=constant",
        "--config.optimizer.name=sgd",
    ]
    code, output = here(capsys, tmp_path / "work", *flags)
    assert code == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: The loss is")
    assert "at step" in last
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.model.name=vit_x16"], "Unknown model 'vit_x16'; did you mean 'vit_"),
        (["--config.model.mixer=ful"], "Unknown token mixer 'ful'; did you mean 'full'?"),
        (["--config.model.mixer=full(heads=3)"], "Unknown hyperparameter of 'full' 'heads'"),
        (["--config.data.train=digit://"], "did you mean 'digits://'"),
        (["--config.model.patch_size=3"], "8×8 pixels cannot be cut into patches of 3×3"),
        (["--config.data.batch_size=2000"], "2000"),
        (["--config.data.train=/nowhere/photos"], "/nowhere/photos"),
        (["--config.optimiser.name=adam"], "did you mean 'optimizer.name'"),
        (["--workdri=x"], "Unknown argument '--workdri'"),
        (["--config.model.num_heads=5"], "a width of 16 cannot be split into 5 heads"),
        (["--config.mesh.fsdp=3"], "fsdp=3, tensor=1, which takes a multiple of 3 devices; there"),
        (["--config.on_divergence.action=back"], "Choose from: stop, rollback"),
        (["--workdir=/sys/kernel/run"], "The work folder /sys/kernel/run cannot be written"),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    tmp_path: pathlib.Path, capsys, flags: list[str], message: str
) -> None:
    code, output = here(capsys, tmp_path / "work", *flags)
    assert code == 2, output
    assert "Traceback" not in output
    assert message in output.strip().splitlines()[-1]


@pytest.mark.slow
def test_another_runs_folder_is_left_alone(uninterrupted, capsys) -> None:
    workdir, _ = uninterrupted
    before = sorted((p, p.stat().st_mtime_ns) for p in workdir.rglob("*"))
    code, output = here(capsys, workdir, "--config.seed=1")
    assert code == 2
    assert "seed (there 0, now 1)" in output
    assert sorted((p, p.stat().st_mtime_ns) for p in workdir.rglob("*")) == before


@pytest.mark.slow
def test_an_extended_run_is_the_longer_one(tmp_path: pathlib.Path, capsys) -> None:
    """Of a constant rate both have the same bits: moments, averages and data go on."""
    constant = (
        "--config.schedule.name=constant",
        "--config.schedule.warmup_steps=0",
        "--config.optimizer.ema=0.9",
    )
    length = ("--config.epochs=1.4", "--config.steps=0")  # 30 steps of 67 among 1437 images
    for flags in (("--config.steps=20",), (*length, "--extend")):
        code, output = here(capsys, tmp_path / "work", *constant, *flags)
        assert code == 0, output
    assert "Extended from 20 to 30 steps: " in output
    assert "at step 20 its learning rate is 0.003, and that of 20 has 0.003." in output
    code, output = here(capsys, tmp_path / "other", *constant, "--config.steps=30")
    assert code == 0, output
    longer, other = (info(tmp_path / name, capsys) for name in ("work", "other"))
    assert longer["step"] == other["step"] == 30
    assert longer["sha256"] == other["sha256"]
