"""Segmentation: losses, windows, areas at each image's own size, and a run."""

import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import train
from tests.golden import load_golden
from tests.golden.compare import FOLDER
from vitjax.cli import main
from vitjax.data import open_source
from vitjax.data.kinds import Image, SemanticMap, encode
from vitjax.data.pipeline import eval_batches
from vitjax.data.transforms.augment import parse_augmentation
from vitjax.layers.resize import resize
from vitjax.runs import open_run
from vitjax.task import Keys
from vitjax.tasks.areas import pixel_weights, summarize
from vitjax.tasks.segmentation import SegmentationConfig, segmentation
from vitjax.tasks.sliding import own_size_rows, sliding_logits

NAMES = ("a", "b", "c")


class Colours(nn.Module):
    """Logits that are the pixels' own three channels, at half the resolution if asked."""

    stride: int = 1

    @nn.compact
    def __call__(self, images, train: bool = False):
        scale = self.param("scale", nn.initializers.ones, ())
        return scale * images[:, :: self.stride, :: self.stride]


def canvas_batch(sizes, canvas, rng, limit=None, num=3) -> dict[str, Any]:
    """Images of several sizes in canvases, with random maps of their own sizes."""
    limit = limit or canvas
    batch = {
        "image": np.full((len(sizes), *canvas, 3), 77, np.uint8),
        "image_extent": np.array(sizes, np.int32),
        "map": np.full((len(sizes), *limit), 255, np.uint8),
        "map_extent": np.array(sizes, np.int32),
        "mask": np.ones(len(sizes), np.float32),
    }
    for i, (h, w) in enumerate(sizes):
        batch["image"][i, :h, :w] = rng.integers(0, 256, (h, w, 3))
        batch["map"][i, :h, :w] = rng.integers(0, num, (h, w))
    return jax.tree.map(jnp.asarray, batch)


def test_areas_are_those_of_the_official_metric() -> None:
    data, _, _ = load_golden.load(FOLDER / "miou.npz")
    truth, found = data["in::gt"], data["in::pred"]
    names = tuple(map(str, range(len(data["ref::iou"]))))
    ignored = sorted(set(np.unique(truth).tolist()) - set(range(len(names))))
    assert ignored == [255]
    task = segmentation(Colours(), class_names=names, image_size=truth.shape[1:])
    batch = {
        "map": jnp.asarray(truth, jnp.uint8),
        "map_extent": jnp.array([truth.shape[1:]] * 3),
        "mask": jnp.ones(3),
    }
    # A pixel that is found to be of an ignored class would be of none of them.
    logits = 9.0 * jax.nn.one_hot(jnp.asarray(found), len(names))
    prediction = {"logits": logits, "extent": batch["map_extent"]}
    sums = task.measure(prediction, batch)
    both = np.diag(data["ref::confusion"])
    np.testing.assert_array_equal(sums["both"], both)
    np.testing.assert_array_equal(sums["labelled"], data["ref::confusion"].sum(1))
    np.testing.assert_array_equal(sums["predicted"], data["ref::confusion"].sum(0))
    metrics = task.summarize(sums, None)
    miou, macc, aacc, _ = data["ref::summary"]
    shown = metrics["miou"], metrics["acc_mean"], metrics["acc"]
    np.testing.assert_allclose(shown, (miou, macc, aacc), rtol=1e-12)


def test_classes_that_do_not_occur_count_nowhere() -> None:
    sums = {
        "both": [4, 0, 0, 0],
        "labelled": [6, 2, 0, 0],
        "predicted": [5, 0, 3, 0],
        "loss": 4.0,
        "images": 2,
    }
    metrics = summarize(sums)
    assert metrics["miou"] == pytest.approx((4 / 7 + 0 + 0) / 3)
    assert metrics["acc"] == 4 / 8 and metrics["loss"] == 0.5
    assert metrics["acc_mean"] == pytest.approx((4 / 6 + 0) / 2)


@pytest.mark.parametrize("align_corners", [False, True])
def test_every_image_is_resized_to_its_own_size(align_corners: bool) -> None:
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.standard_normal((3, 11, 13, 2)), jnp.float32)
    extent, own = [(11, 13), (5, 7), (1, 1)], [(17, 19), (23, 5), (4, 3)]
    rows = own_size_rows(
        values, jnp.array(extent), jnp.arange(23), 19, jnp.array(own), align_corners
    )
    for i, ((h, w), (big_h, big_w)) in enumerate(zip(extent, own, strict=True)):
        expected = resize(values[i : i + 1, :h, :w], (big_h, big_w), align_corners)[0]
        np.testing.assert_allclose(rows[i, :big_h, :big_w], expected, atol=2e-6)


def test_windows_cover_each_image_and_nothing_else() -> None:
    """A function of one pixel: the windows must not show; and none looks outside."""
    rng = np.random.default_rng(0)
    sizes = [(29, 37), (13, 17), (11, 37), (29, 7), (3, 5)]
    batch = canvas_batch(sizes, (29, 37), rng)
    images = jnp.asarray(batch["image"], jnp.float32)
    for window, stride in (((13, 13), (5, 9)), ((29, 37), (9, 9)), ((11, 64), (11, 64))):
        found = sliding_logits(
            lambda x: jnp.stack([x[..., 0], (x[..., 1] == 77).astype(jnp.float32)], -1),
            images,
            jnp.array(sizes),
            window,
            stride,
        )
        for i, (h, w) in enumerate(sizes):
            np.testing.assert_allclose(found[i, :h, :w, 0], images[i, :h, :w, 0], rtol=1e-6)
    seen = []

    def watch(x):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return x

    sliding_logits(watch, images[:1, :, :], jnp.array([(13, 17)]), (13, 13), (7, 7))
    jax.effects_barrier()
    windows = {x.tobytes() for x in seen}
    assert len(windows) == 2  # at columns 0 and 4; the others repeat the last one
    last = images[:1, :13, 4:17]
    assert np.asarray(last).tobytes() in windows


def test_overlaps_are_averaged() -> None:
    """A window's own position as its logits: known by hand."""
    images = jnp.broadcast_to(jnp.arange(6.0)[None, None, :, None], (1, 4, 6, 1))
    found = sliding_logits(
        lambda x: x[:, :1, :1] + jnp.zeros_like(x), images, jnp.array([(4, 6)]), (4, 4), (4, 2)
    )
    np.testing.assert_array_equal(found[0, 0, :, 0], [0, 0, 1, 1, 2, 2])


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_measures_of_padded_batches_are_those_of_each_image(mode: str, stride: int) -> None:
    rng = np.random.default_rng(1)
    sizes = [(24, 32), (24, 16), (8, 32)]

    def task_of(**sizes: tuple[int, int]) -> Any:
        config = SegmentationConfig(eval_mode=mode, **sizes)  # type: ignore[arg-type]
        return segmentation(Colours(stride), class_names=NAMES, image_size=(8, 16), config=config)

    task = task_of(eval_size=(24, 32), label_size=(29, 37))
    batch = canvas_batch(sizes, (24, 32), rng, (29, 37))
    batch["mask"] = batch["mask"].at[1].set(0)
    variables = task.init(jax.random.key(0))
    sums = jax.jit(lambda b: task.measure(task.predict(variables, b), b))(batch)
    total: Any = None
    for i in (0, 2):
        h, w = sizes[i]
        alone = task_of(eval_size=(h, w))
        one = canvas_batch([(h, w)], (h, w), rng)
        one["image"], one["map"] = (
            batch["image"][i : i + 1, :h, :w],
            batch["map"][i : i + 1, :h, :w],
        )
        found = alone.measure(alone.predict(variables, one), one)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    for key in ("both", "labelled", "predicted", "images"):
        np.testing.assert_array_equal(sums[key], total[key], err_msg=key)
    np.testing.assert_allclose(sums["loss"], total["loss"], rtol=1e-5)


def test_mirrors_and_scales_change_nothing_for_a_symmetric_model() -> None:
    rng = np.random.default_rng(2)
    batch = canvas_batch([(12, 16), (12, 16)], (12, 16), rng)
    variables = {"params": {"scale": jnp.ones(())}}
    plain = segmentation(Colours(), class_names=NAMES, image_size=(12, 16))
    config = SegmentationConfig(eval_flip=True, eval_scales=(1.0, 1.0))
    both = segmentation(Colours(), class_names=NAMES, image_size=(12, 16), config=config)
    a, b = plain.predict(variables, batch)["logits"], both.predict(variables, batch)["logits"]
    np.testing.assert_allclose(jax.nn.log_softmax(a), b, atol=1e-5)


@pytest.mark.slow
def test_the_loss_is_that_of_the_labelled_pixels() -> None:
    rng = np.random.default_rng(3)
    weights = (0.5, 1.0, 2.0)
    task = segmentation(
        Colours(),
        class_names=NAMES,
        image_size=(5, 7),
        mean=(0, 0, 0),
        std=(1 / 255,) * 3,
        config=SegmentationConfig(class_weights=weights),
    )
    labels = rng.integers(0, 3, (2, 5, 7)).astype(np.uint8)
    labels[0, :2] = 255
    batch = {
        "image": rng.integers(0, 3, (2, 5, 7, 3)).astype(np.uint8),
        "map": labels,
        "image_extent": np.array([(5, 7)] * 2),
        "mask": np.ones(2, np.float32),
    }
    batch = jax.tree.map(jnp.asarray, batch)
    loss = task.loss({"scale": jnp.ones(())}, {}, batch, Keys(jax.random.key(0)), None)
    logits = jnp.asarray(batch["image"], jnp.float32)
    for i in range(2):
        known = labels[i] < 3
        each = optax.softmax_cross_entropy_with_integer_labels(logits[i][known], labels[i][known])
        w = np.array(weights)[labels[i][known]]
        np.testing.assert_allclose(loss.value[i], (each * w).sum(), rtol=1e-5)
        np.testing.assert_allclose(loss.weight[i], w.sum(), rtol=1e-6)
    assert (pixel_weights(jnp.asarray(labels, jnp.int32), 3) == (labels < 3)).all()


class Watched(nn.Module):
    """Model that passes its images to `watch`, and returns them."""

    watch: Any

    @nn.compact
    def __call__(self, images, train: bool = False):
        self.watch(images)
        return images


@pytest.mark.parametrize("line", ["photometric(p=(1.0, 1.0, 1.0, 1.0))", "flip(p=1.0)"])
def test_padding_is_zero_after_normalisation_and_has_no_class(line: str) -> None:
    """A small image stands at the top left, whatever is done to it, in the mean colour."""
    seen: list[Any] = []
    model = Watched(seen.append)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    task = segmentation(model, class_names=NAMES, image_size=(37, 41), mean=mean, std=std)
    image = np.random.default_rng(0).integers(0, 256, (23, 61, 3)).astype(np.uint8)
    sample = {"image": image, "map": np.ones((23, 61), np.int32)}
    augment = parse_augmentation(f"scaled_crop(scale=(1, 1), pad_last=True) | {line}")
    arrays = encode(augment(sample, task.kinds, np.random.default_rng(1)), task.kinds)
    assert arrays["image_extent"].tolist() == [23, 41]
    batch = {k: jnp.asarray(v)[None] for k, v in arrays.items()} | {"mask": jnp.ones(1)}
    loss = task.loss({}, {}, batch, Keys(jax.random.key(0)), None)
    assert float(loss.weight[0]) == 23 * 41 and (arrays["map"][23:] == 255).all()
    evaluated = canvas_batch([(23, 41)], (37, 41), np.random.default_rng(0))
    task.predict({}, evaluated)
    for given, found in zip((batch, evaluated), seen, strict=True):
        assert (found[0, 23:] == 0).all()
        pixels = (np.asarray(given["image"])[0, :23] / 255 - mean) / std
        np.testing.assert_allclose(found[0, :23], pixels, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(class_weights=(1.0,)), r"class_weights has 1 weights.*3 classes"),
        (dict(eval_size=(3,)), r"eval_size=\(3,\) must be empty, or rows and columns"),
        (dict(eval_overlap=1.0), "eval_overlap=1.0 must be at least 0 and below 1"),
        (dict(eval_scales=()), "one positive factor or more"),
        (dict(eval_size=(64, 70), eval_divisor=32), r"eval_size=\(64, 70\) .*multiples of it"),
        (dict(eval_divisor=0), "eval_divisor=0 must be at least 1"),
        (dict(eval_divisor=2, eval_scales=(1.0, 2.0)), "works at scale 1 only"),
        (dict(eval_mode="wholly"), "did you mean 'whole'"),
    ],
)
def test_values_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    config = SegmentationConfig(**options)
    with pytest.raises(ValueError, match=message):
        segmentation(Colours(), class_names=NAMES, image_size=(8, 8), config=config)


@pytest.mark.parametrize(
    ("config", "model", "message"),
    [
        ("scenes", "vit_s16", "segmentation needs logits of each pixel: choose upernet"),
        ("denoise", "segformer_b0", "restoration needs images: choose a Uformer"),
        ("digits", "upernet", "classification needs logits of each image's classes"),
        ("digits", "uformer_t", "'uformer_t' has no classes"),
    ],
)
def test_a_model_of_another_task_is_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, config: str, model: str, message: str
) -> None:
    flags = [f"--config={config}", f"--config.model.name={model}", f"--workdir={tmp_path / 'x'}"]
    assert train.main(flags) == 2
    assert message in capsys.readouterr().err


FLAGS = [
    "--config=scenes", "--config.steps=6", "--config.eval_every=3", "--config.checkpoint_every=3",
    "--config.log_every=3", "--config.schedule.warmup_steps=0", "--config.data.batch_size=4",
    "--config.data.train=scenes://?count=40&size=48", "--config.data.image_size=32",
    "--config.data.test=scenes://?count=40&size=48",
    "--config.data.eval_batch_size=3", "--config.segmentation.eval_size=(48, 64)",
    "--config.model.backbone=mit_b0(depths=(1,1,1,1), dims=(8,16,24,32), num_heads=(1,2,2,4))",
    "--config.model.width=16",
]  # fmt: skip


@pytest.mark.slow
def test_a_run_is_trained_resumed_planned_and_asked(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    import cv2

    workdir = tmp_path / "run"
    assert train.main([*FLAGS, f"--workdir={workdir}"]) == 0
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    tests = [row for row in rows if row["split"] == "test"]
    assert [row["step"] for row in tests] == [3, 6]
    assert tests[-1]["loss"] < tests[0]["loss"] and tests[-1]["images"] == 4
    run = open_run(workdir)
    before = run.checkpoints.manifest(6)["arrays"]
    for path in sorted((workdir / "checkpoints" / "6").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (workdir / "checkpoints" / "6").rmdir()
    assert train.main([*FLAGS, f"--workdir={workdir}"]) == 0
    assert run.checkpoints.manifest(6)["arrays"] == before

    scene = open_source("scenes://?size=48", "test")[0]["image"]
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), scene[:41, :, ::-1])
    (folder / "b.png").write_bytes(b"no picture")
    capsys.readouterr()
    assert main(["predict", f"--workdir={workdir}", str(folder), "--json"]) == 2
    found = capsys.readouterr()
    good, bad = json.loads(found.out)
    assert sum(share for _, share in good["pixels"]) == pytest.approx(1)
    assert "b.png" in bad["error"] and "b.png" in found.err
    picture = cv2.imread(good["picture"])
    assert picture is not None and picture.shape[0] == 41 * 6  # enlarged to be seen

    assert main(["plan", *FLAGS, "--topology=cpu", "--classes=11", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"]


def test_scenes_have_exact_labels() -> None:
    source = open_source("scenes://?count=3", "train")
    kinds = {"image": Image(32), "map": SemanticMap(32)}
    (batch,) = eval_batches(source, kinds=kinds, batch_size=3, num_threads=0)
    assert batch["map"].dtype == np.uint8 and set(np.unique(batch["map"])) <= set(range(11))
