"""Restoration: measures, pairs, tiles, and a run."""

import json
import pathlib
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from tests.golden import load_golden
from tests.golden.compare import FOLDER
from vitjax.cli import main
from vitjax.data import open_source
from vitjax.data.crop_kinds import DegradedImage
from vitjax.data.kinds import Image
from vitjax.data.pipeline import eval_batches, train_batches
from vitjax.runs import open_run
from vitjax.task import Keys
from vitjax.tasks.image_quality import luma, psnr, ssim
from vitjax.tasks.mixing import pair_weights
from vitjax.tasks.restoration import RestorationConfig, WithTarget, restoration


class Offset(nn.Module):
    """The image, with a number added."""

    image_size: int = 16

    @nn.compact
    def __call__(self, images, train: bool = False):
        return images + self.param("offset", nn.initializers.zeros, ())


def pictures() -> tuple[Any, Any, Any, dict[str, Any]]:
    data, _, _ = load_golden.load(FOLDER / "restoration_metrics.npz")
    a, b = (jnp.asarray(data[k], jnp.float32)[None] for k in ("in::img_a", "in::img_b"))
    return a, b, jnp.array([a.shape[1:3]]), data


def test_psnr_and_ssim_are_the_published_ones() -> None:
    a, b, whole, data = pictures()
    rgb, _, _, y, rounded, *_ = data["ref::psnr"]
    np.testing.assert_allclose(psnr(a, b, whole), rgb, rtol=1e-6)
    np.testing.assert_allclose(psnr(luma(a), luma(b), whole), y, rtol=1e-6)
    assert abs(y - rounded) > 1e-3  # luma is not rounded
    np.testing.assert_allclose(luma(a)[0, 0, :, 0], data["ref::y_row"], rtol=1e-6)
    _, gaussian, _, gaussian_y, *_ = data["ref::ssim"]
    np.testing.assert_allclose(ssim(a, b, whole), gaussian, atol=2e-6)
    np.testing.assert_allclose(ssim(luma(a), luma(b), whole), gaussian_y, atol=2e-6)


def test_what_lies_beside_an_image_does_not_count() -> None:
    a, b, whole, _ = pictures()
    rng = np.random.default_rng(0)

    def padded(x: Any) -> Any:
        canvas = rng.uniform(0, 255, (1, 53, 61, 3)).astype(np.float32)
        canvas[:, :40, :52] = x
        return jnp.asarray(canvas)

    for measure in (psnr, ssim):
        inside = measure(a, b, whole)
        np.testing.assert_allclose(measure(padded(a), padded(b), whole), inside, rtol=1e-6)
    small = jnp.array([[9, 30]])  # no window fits
    assert ssim(a, b, small)[0] == 0


@pytest.mark.slow
def test_measures_of_a_batch_are_means_over_its_images() -> None:
    a, b, whole, _ = pictures()
    task = restoration(
        Offset(), image_size=16, paired=True, config=RestorationConfig(eval_size=(53, 61))
    )
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (3, 53, 61, 3)).astype(np.uint8),
        "target": rng.integers(0, 256, (3, 53, 61, 3)).astype(np.uint8),
        "image_extent": np.array([(40, 52)] * 3, np.int32),
        "mask": np.array([1, 0, 1], np.float32),
    }
    batch["target_extent"] = batch["image_extent"]
    batch["image"][0, :40, :52], batch["target"][0, :40, :52] = a[0], b[0]
    batch["image"][2, :40, :52], batch["target"][2, :40, :52] = b[0], b[0]
    batch = jax.tree.map(jnp.asarray, batch)
    variables = {"params": {"offset": jnp.zeros(())}}
    metrics = task.summarize(task.measure(task.predict(variables, batch), batch), None)
    best = 10 * np.log10(255**2 / 1e-10)
    assert metrics["images"] == 2
    assert metrics["psnr_rgb"] == pytest.approx((float(psnr(a, b, whole)[0]) + best) / 2, rel=1e-5)
    assert metrics["input_psnr_rgb"] == pytest.approx(metrics["psnr_rgb"])
    assert metrics["ssim_y"] == pytest.approx((float(ssim(luma(a), luma(b), whole)[0]) + 1) / 2)
    assert task.monitor == "psnr_rgb"
    exact = restoration(
        Offset(),
        image_size=16,
        paired=True,
        config=RestorationConfig(quantize=False, monitor="ssim_y"),
    )
    assert exact.monitor == "ssim_y_float"


def test_the_loss_is_charbonniers() -> None:
    task = restoration(Offset(), image_size=5, paired=True, config=RestorationConfig(eps=0.1))
    batch = {
        "image": jnp.full((2, 5, 5, 3), 51, jnp.uint8),
        "target": jnp.full((2, 5, 5, 3), 102, jnp.uint8),
        "mask": jnp.ones(2),
    }
    loss = task.loss({"offset": jnp.zeros(())}, {}, batch, Keys(jax.random.key(0)), None)
    np.testing.assert_allclose(loss.value, np.sqrt(0.2**2 + 0.1**2), rtol=1e-6)
    np.testing.assert_array_equal(loss.weight, 1)


def test_pairs_are_mixed_with_their_neighbours() -> None:
    """Input and target by one coefficient, from a step on; a row of padding mixes with none."""
    rng = np.random.default_rng(0)
    image, target = rng.integers(0, 256, (2, 4, 5, 5, 3)).astype(np.uint8)
    batch = {"image": image, "target": target, "mask": np.array([1, 1, 1, 0], np.float32)}
    batch = jax.tree.map(jnp.asarray, batch)
    mixed = RestorationConfig(mixup=1.2, mixup_start=7)
    task = restoration(Offset(), image_size=5, paired=True, config=mixed)
    params, key = {"offset": jnp.full((), 0.25)}, jax.random.key(3)

    def expected(weights: Any) -> Any:
        weights = np.asarray(weights, np.float64).reshape(4, 1, 1, 1)
        x, y = (weights * a / 255 + (1 - weights) * a[[1, 0, 3, 2]] / 255 for a in (image, target))
        return np.sqrt((x + 0.25 - y) ** 2 + 1e-6).mean((1, 2, 3))

    before = task.loss(params, {}, batch, Keys(key, 6), None)
    np.testing.assert_allclose(before.value, expected([1, 1, 1, 1]), rtol=1e-5)
    keys = Keys(key, 7)
    weights = np.ravel(pair_weights(keys("mix"), 1.2, batch["mask"]))
    assert weights[2] == 1 and weights[0] != weights[1] and ((weights > 0) & (weights <= 1)).all()
    found = task.loss(params, {}, batch, keys, None)
    np.testing.assert_allclose(found.value, expected(weights), rtol=1e-5)
    many = pair_weights(key, 1.2, jnp.ones(2000))
    assert abs(float(many.mean()) - 0.5) < 0.02
    assert float(many.var()) == pytest.approx(1 / (4 * (2 * 1.2 + 1)), rel=0.06)  # Beta(1.2, 1.2)


def test_noise_is_new_for_every_crop_and_the_same_on_resumption() -> None:
    source = WithTarget(open_source("scenes://?count=8", "train"))
    kinds = {"image": DegradedImage(24, "noise(sigma=25)"), "target": Image(24)}
    options: Any = dict(
        kinds=kinds, batch_size=8, augment="scaled_crop(scale=(1, 1))", num_threads=0
    )
    batches = train_batches(source, **options)
    first, second = next(batches), next(batches)
    errors = [x["image"].astype(float) - x["target"] for x in (first, second)]
    assert 15 < errors[0].std() < 26  # the brightest and darkest pixels are clipped
    assert abs(np.corrcoef(errors[0].ravel(), errors[1].ravel())[0, 1]) < 0.05
    again = next(train_batches(source, start_step=1, **options))
    for key, value in second.items():
        np.testing.assert_array_equal(again[key], value)


def test_an_evaluation_is_spoilt_alike() -> None:
    spoilt = RestorationConfig("noise(sigma=25)", eval_size=(64, 64))
    task = restoration(Offset(), image_size=16, paired=False, config=spoilt)
    source = task.add_eval_fields(open_source("scenes://?count=20", "test"))
    runs = [
        list(eval_batches(source, kinds=task.eval_kinds, batch_size=2, num_threads=0))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0][0]["image"], runs[1][0]["image"])
    assert (runs[0][0]["image"] != runs[0][0]["target"]).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(paired=False), "say how they are spoilt, as in .*noise"),
        (dict(paired=True, degradation="noise"), "would spoil them again; leave it empty"),
        (dict(paired=True, eval_size=(5,)), r"eval_size=\(5,\) must be empty, or rows and columns"),
        (dict(paired=True, tile=100), "tile=100 a multiple of 128"),
        (dict(paired=True, mixup=-1.0), "mixup=-1 and .*mixup_start=0 must be 0 or more"),
        (dict(paired=True, mixup_start=3), "is not read without config.restoration.mixup"),
        (dict(paired=True, monitor="psnr"), "Unknown .*monitor 'psnr'; did you mean 'psnr_"),
    ],
)
def test_values_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    paired, config = options.pop("paired"), RestorationConfig(**options)
    with pytest.raises(ValueError, match=message):
        restoration(Offset(), image_size=16, paired=paired, config=config)


FLAGS = [
    "--config=denoise", "--config.data.train=scenes://?count=40&size=40", "--config.steps=4",
    "--config.eval_every=2", "--config.checkpoint_every=2", "--config.log_every=2",
    "--config.schedule.warmup_steps=0", "--config.data.image_size=32", "--config.data.batch_size=2",
    "--config.restoration.eval_size=(48, 56)", "--config.model.width=4",
    "--config.model.depths=(1,1,1,1,1,1,1,1,1)", "--config.model.num_heads=(1,1,1,1,1,1,1,1,1)",
    "--config.model.window_size=2", "--config.restoration.tile=128",
]  # fmt: skip


@pytest.mark.slow
def test_a_run_is_trained_planned_and_asked(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    workdir = tmp_path / "run"
    assert train.main([*FLAGS, f"--workdir={workdir}"]) == 0
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    tests = [row for row in rows if row["split"] == "test"]
    assert [row["step"] for row in tests] == [2, 4] and tests[0]["images"] == 4
    assert 19 < tests[0]["input_psnr_rgb"] < 23 and tests[1]["input_psnr_rgb"] == pytest.approx(
        tests[0]["input_psnr_rgb"]
    )
    best = open_run(workdir).checkpoints.best()
    assert best and best[1]["psnr_rgb"] == max(row["psnr_rgb"] for row in tests)
    photo = cv2.resize(open_source("scenes://", "test")[0]["image"], (150, 70))
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    capsys.readouterr()
    assert main(["predict", f"--workdir={workdir}", str(tmp_path / "a.png"), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert 19 < shown["input"]["psnr_rgb"] < 23
    picture = cv2.imread(shown["picture"])
    assert picture is not None and picture.shape == (70, 3 * 150 + 8, 3)
    assert main(["plan", *FLAGS, "--topology=cpu", "--images=100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"]
    code = train.main([*FLAGS, "--config.data.mean=(0.4,0.4,0.4)", f"--workdir={tmp_path / 'x'}"])
    assert code == 2 and "are not read in restoration" in capsys.readouterr().err
