"""A task that only this file defines is trained, evaluated, planned, used by predict, resumed."""

import dataclasses
import json
import math
import pathlib
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from vitjax.cli import main
from vitjax.data import DataInfo
from vitjax.data.kinds import Image
from vitjax.runs import open_run
from vitjax.task import Loss, Presentation, Task
from vitjax.tasks import TASKS, TaskEntry
from vitjax.train.defaults import RunConfig


class Denoiser(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        return nn.Conv(3, (3, 3))(nn.Dropout(0.1, deterministic=not train)(x))


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    sigma: float = 0.1


@dataclasses.dataclass(frozen=True)
class DenoisingRun(RunConfig):
    noise: NoiseConfig = NoiseConfig()


def denoising(config: DenoisingRun, info: DataInfo, abstract: bool) -> Task:
    """Noise is drawn on the device, and taken away; each pixel counts, and PSNR is a mean of dB."""
    del info, abstract
    model, size, sigma = Denoiser(), config.data.image_size, config.noise.sigma
    kinds = {"image": Image(size)}

    def scaled(batch: Any) -> Any:
        return jnp.asarray(batch["image"], jnp.float32) / 255

    def loss(params: Any, collections: Any, batch: Any, keys: Any, frozen: Any) -> Loss:
        clean = scaled(batch)
        noisy = clean + sigma * jax.random.normal(keys("noise"), clean.shape)
        rngs = {"dropout": keys("dropout")}
        out = model.apply({"params": params, **collections}, noisy, True, rngs=rngs)
        squares = jnp.sum((out - clean) ** 2, axis=(1, 2, 3))
        pixels = jnp.full(len(clean), float(size * size * 3))
        return Loss(squares, pixels, collections, {"brightness": clean.mean(axis=(1, 2, 3))})

    def measure(prediction: Any, batch: Any) -> Any:
        error = jnp.mean((prediction - scaled(batch)) ** 2, axis=(1, 2, 3))
        psnr = -10 * jnp.log10(error + 1e-12)
        mask = batch["mask"]
        return {"psnr": jnp.sum(psnr * mask), "loss": jnp.sum(error * mask), "images": mask.sum()}

    def summarize(sums: Any, rows: Any) -> dict[str, float]:
        assert rows["mean"].shape == (int(sums["images"]),)
        return {k: float(v / sums["images"]) for k, v in sums.items() if k != "images"} | {
            "images": float(sums["images"])
        }

    return Task(
        kinds=kinds,
        eval_kinds=kinds,
        init=lambda key: dict(model.init(key, jnp.zeros((1, size, size, 3)))),
        loss=loss,
        predict=lambda variables, batch: model.apply(variables, scaled(batch)),
        measure=measure,
        summarize=summarize,
        monitor="psnr",
        present=lambda prediction, sample: Presentation(
            [f"mean {prediction.mean():.3f}"], {"mean": float(prediction.mean())}, prediction
        ),
        decay_rules=((".*", 0.0),),
        rows=lambda prediction, batch: {"mean": prediction.mean(axis=(1, 2, 3))},
    )


@pytest.fixture
def menu(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = TaskEntry(denoising, DenoisingRun)
    monkeypatch.setitem(TASKS, "denoising", entry)


FLAGS = [
    "--config=digits", "--config.task=denoising", "--config.noise.sigma=0.2", "--config.epochs=0",
    "--config.steps=12", "--config.eval_every=4", "--config.checkpoint_every=4",
    "--config.log_every=2", "--config.optimizer.accumulate=2", "--config.schedule.warmup_steps=0",
    "--config.data.eval_batch_size=100", "--config.data.augment=crop | flip",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("menu")
def test_a_new_task_is_one_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    workdir = tmp_path / "run"
    assert train.main([*FLAGS, f"--workdir={workdir}"]) == 0
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    tests = [row for row in rows if row["split"] == "test"]
    assert [row["step"] for row in tests] == [4, 8, 12]
    assert tests[-1]["psnr"] > tests[0]["psnr"] and tests[-1]["images"] == 360
    assert {"brightness", "loss", "grad_norm"} <= rows[1].keys()

    run = open_run(workdir)
    best = run.checkpoints.best()
    assert best and best[1]["psnr"] == max(row["psnr"] for row in tests)
    before = run.checkpoints.manifest(12)["arrays"]
    for step in ("8", "12"):
        for path in sorted((workdir / "checkpoints" / step).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (workdir / "checkpoints" / step).rmdir()
    assert train.main([*FLAGS, f"--workdir={workdir}"]) == 0
    assert run.checkpoints.manifest(12)["arrays"] == before

    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8, 3), 128, np.uint8))
    capsys.readouterr()
    assert main(["predict", f"--workdir={workdir}", str(tmp_path / "a.png"), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert math.isfinite(shown["mean"])

    assert main(["plan", *FLAGS, "--topology=cpu", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] and plan["memory"]["parameters"] == 4 * (3 * 9 * 8 + 8 + 8 * 9 * 3 + 3)


@pytest.mark.usefixtures("menu")
def test_its_fields_are_its_own(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main([*FLAGS, "--config.mixing.mixup=0.8", f"--workdir={tmp_path / 'x'}"]) == 2
    assert "Unknown config field 'mixing.mixup'" in capsys.readouterr().err
    flags = ["--config=digits", "--config.noise.sigma=0.1", f"--workdir={tmp_path / 'x'}"]
    assert train.main(flags) == 2
    assert "Unknown config field 'noise.sigma'" in capsys.readouterr().err
    assert train.main(["--config=digits", "--config.task=denoise", f"--workdir={tmp_path}"]) == 2
    assert "Unknown task 'denoise'; did you mean 'denoising'" in capsys.readouterr().err
