"""Detection as a task: its loss, its measures, what it shows, and a run."""

import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
import vitjax
from tests.models.test_pvt import noisy
from vitjax.cli import main
from vitjax.data import open_source
from vitjax.data.codecs.image import Picture
from vitjax.data.kinds import batch_spec
from vitjax.data.pipeline import eval_batches
from vitjax.task import Keys
from vitjax.tasks.detection import DetectionConfig, detection

NAMES = tuple("abcde")
TINY: dict[str, Any] = dict(
    backbone="resnet50(depths=(1, 1), frozen_statistics=True)",
    width=16,
    image_size=32,
)
RETINANET: dict[str, Any] = dict(TINY, depth=1, candidates=17, limit=7)
MASKS: dict[str, Any] = dict(
    TINY, box_width=16, rpn_samples=13, rpn_candidates=(19, 19), proposals=(11, 11), samples=8,
    limit=3, score_threshold=0.0, anchor_scale=2.0,
)  # fmt: skip

DETR: dict[str, Any] = dict(
    TINY, num_heads=2, encoder_depth=1, decoder_depth=2, num_queries=5, limit=3
)


def task_of(name: str, options: dict[str, Any], **config: Any) -> Any:
    model: Any = vitjax.create_model(name, 5, **options)
    c = DetectionConfig(**{"limit": 4, "mask_size": 14, **config})
    return detection(model, class_names=NAMES, image_size=(32, 32), config=c)


def training_batch(task: Any, size: int) -> dict[str, Any]:
    """A batch of two images of 1 and 3 objects, and of others that are padding."""
    rng = np.random.default_rng(0)
    batch = {
        name: np.full((size, *s.shape), s.fill, s.dtype)
        for name, s in batch_spec(task.kinds).items()
    }
    batch["image"][:] = rng.integers(256, size=batch["image"].shape)
    batch["image_extent"][:] = 32
    for i, count in enumerate((1, 3)):
        batch["mask"][i] = 1
        batch["objects_boxes"][i, :count] = [(2, 3, 15, 17), (16, 0, 32, 16), (3, 9, 22, 30)][
            :count
        ]
        batch["objects_classes"][i, :count] = range(count)
        batch["objects_valid"][i, :count] = True
        if "objects_masks" in batch:
            batch["objects_masks"][i, :count] = 1
    return batch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("retinanet", RETINANET), ("mask_rcnn", MASKS), ("detr", DETR)]
)
def test_the_loss_is_of_the_whole_batch(name: str, options: dict[str, Any]) -> None:
    """Padding changes nothing; RetinaNet's is divided by the anchors of all images, DETR's by their
    objects, its classes by the weights of all queries.
    """
    task = task_of(name, options)
    variables, _ = noisy(vitjax.create_model(name, 5, **options))
    params, batch = variables.pop("params"), training_batch(task, 4)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, batch):
        found = task.loss(params, variables, batch, Keys(jax.random.key(1)), None)
        total = (found.value * batch["mask"]).sum() / (found.weight * batch["mask"]).sum()
        return total, found

    (total, found), grads = loss(params, batch)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    terms = sum(np.sum(t * batch["mask"]) / 2 for t in found.terms.values())
    np.testing.assert_allclose(terms, total, rtol=1e-5)
    other = {**batch, "image": np.where(batch["mask"][:, None, None, None], batch["image"], 7)}
    np.testing.assert_allclose(loss(params, other)[0][0], total, rtol=1e-5)
    if name == "retinanet":
        assert (found.weight[:2] > 0).all() and not found.weight[2:].any()
        own = [loss(params, {**batch, "mask": np.eye(4, dtype=np.float32)[i]})[0] for i in (0, 1)]
        by_hand = sum(mean * found.weight[i] for i, (mean, _) in enumerate(own))
        np.testing.assert_allclose(total, by_hand / found.weight[:2].sum(), rtol=1e-5)
    elif name == "detr":
        np.testing.assert_array_equal(found.weight, [1, 3, 0, 0])
        assert set(found.terms) == {"class_loss", "box_loss", "overlap_loss", "earlier_loss"}
        for _ in range(2):  # two steps
            params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)
            before, ((total, found), grads) = total, loss(params, batch)
            assert total < before
        own = [loss(params, {**batch, "mask": np.eye(4, dtype=np.float32)[i]})[0] for i in (0, 1)]
        for term in ("box_loss", "overlap_loss"):  # of terms: means over images
            parts = [each.terms[term][i] * n for i, (n, (_, each)) in enumerate(zip((1, 3), own))]
            np.testing.assert_allclose(found.terms[term][:2].sum() / 2, sum(parts) / 4, rtol=1e-4)
        weights = [0.1 * 5 + 0.9 * n for n in (1, 3)]
        parts = [each.terms["class_loss"][i] * weights[i] for i, (_, each) in enumerate(own)]
        total = found.terms["class_loss"][:2].sum() / 2
        np.testing.assert_allclose(total, sum(parts) / sum(weights), rtol=1e-4)
    else:
        assert set(found.terms) == {
            *("objectness_loss", "proposal_loss", "class_loss", "box_loss", "mask_loss")
        }
        head = grads["head"]
        for leaf in (head["mask_head"]["logits"], head["box_head"]["box_deltas"], head["rpn"]):
            assert max(np.abs(g).max() for g in jax.tree.leaves(leaf)) > 0


def evaluation(task: Any) -> dict[str, Any]:
    source = open_source("boxes://?count=5&size=64", "test")
    (batch,) = eval_batches(source, kinds=task.eval_kinds, batch_size=5, num_threads=0)
    return {name: jnp.asarray(array) for name, array in batch.items()}


def test_perfect_detections_measure_1_at_the_original_size() -> None:
    pytest.importorskip("pycocotools")
    task: Any = detection(
        vitjax.create_model("retinanet", 10, **RETINANET),  # type: ignore[arg-type]
        class_names=tuple("0123456789"),
        image_size=(32, 32),
        config=DetectionConfig(eval_size=(96, 96), eval_short_side=80, eval_limit=9),
    )
    batch = evaluation(task)
    assert (batch["image_extent"] == 80).all() and (batch["objects_size"] == 64).all()
    valid = batch["objects_valid"]
    found = {
        "boxes": jnp.asarray(batch["objects_boxes"]),
        "extent": jnp.asarray(batch["image_extent"]),
        "scores": jnp.where(valid, 0.9, 0),
        "classes": jnp.asarray(batch["objects_classes"]),
    }
    rows = jax.tree.map(np.asarray, task.rows(found, batch))
    sums = task.measure(found, batch)
    metrics = task.summarize(sums, rows)
    assert metrics["ap"] == metrics["ap75"] == 1
    assert metrics["detections"] == valid.sum() / 5
    classes = task.findings(sums, rows).classes
    assert classes["objects"].sum() == valid.sum()
    wrong = {**found, "boxes": found["boxes"] * 0.8}  # as if they were of the canvas
    assert task.summarize(sums, jax.tree.map(np.asarray, task.rows(wrong, batch)))["ap"] < 0.5


def test_what_is_shown() -> None:
    task = task_of("mask_rcnn", MASKS, show=0.5, eval_size=(32, 32))
    prediction = {
        "boxes": np.array([[4.0, 8, 16, 24], [0, 0, 9, 9], [1, 1, 2, 2]]),
        "scores": np.array([0.8, 0.4, 0.0]),
        "classes": np.array([3, 1, -1]),
        "masks": np.ones((3, 28, 28), np.float32),
        "extent": np.array([32, 32]),
    }
    gray = np.full((64, 96, 3), 100, np.uint8)
    shown = task.present(prediction, {"image": Picture(gray)})
    assert shown.lines == [" 80.00%  d  x 12 to 48, y 16 to 48"]
    assert shown.result == {"objects": [{"class": "d", "score": 0.8, "box": [12, 16, 48, 48]}]}
    assert shown.picture.shape == (8 * 64, 8 * 96, 3)
    assert (shown.picture[8 * 40, 8 * 30] != 100).any()  # within its mask
    assert (shown.picture[8 * 40, 8 * 60] == 100).all()
    nothing = {**prediction, "scores": np.zeros(3)}
    assert task.present(nothing, {"image": Picture(gray)}).lines == ["nothing found"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(limit=0), r"config\.detection\.limit=0 must be at least 1"),
        (dict(show=1.5), r"config\.detection\.show=1\.5 must lie between 0 and 1"),
        (dict(min_side=-1.0), r"config\.detection\.min_side=-1\.0 must be 0 or more"),
        (dict(eval_size=(3,)), r"config\.detection\.eval_size=\(3,\) must be empty, or rows"),
    ],
)
def test_values_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_of("retinanet", RETINANET, **options)


@pytest.mark.parametrize(
    ("config", "model", "message"),
    [
        ("detection", "vit_s16", "detection needs boxes of objects: choose retinanet"),
        ("scenes", "retinanet", "segmentation needs logits of each pixel"),
    ],
)
def test_a_model_of_another_task_is_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, config: str, model: str, message: str
) -> None:
    flags = [f"--config={config}", f"--config.model.name={model}", f"--workdir={tmp_path / 'x'}"]
    flags += ["--config.model.width=32"] if config == "scenes" else ["--config.model={}"]
    assert train.main(flags[:3]) == 2
    assert message in capsys.readouterr().err


FLAGS = [
    "--config=detection", "--config.steps=2", "--config.eval_every=2",
    "--config.checkpoint_every=2", "--config.log_every=1", "--config.schedule.warmup_steps=0",
    "--config.data.batch_size=4", "--config.data.train=boxes://?count=24&size=64",
    "--config.data.test=boxes://?count=5&size=64", "--config.data.eval_batch_size=3",
    "--config.data.image_size=64", f"--config.model.backbone={TINY['backbone']}",
    "--config.model.width=16", "--config.model.depth=1", "--config.model.score_threshold=0.0",
    "--config.model.group_norm=False",
    "--config.detection.show=0.0",
]  # fmt: skip


@pytest.mark.slow
def test_a_run_is_trained_and_asked(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("pycocotools")
    import cv2

    workdir = tmp_path / "run"
    assert train.main([*FLAGS, f"--workdir={workdir}"]) == 0
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (test,) = [row for row in rows if row["split"] == "test"]
    assert 0 <= test["ap"] <= 1 and test["detections"] > 0 and test["images"] == 5
    scene = open_source("boxes://?size=64", "test")[0]["image"]
    cv2.imwrite(str(tmp_path / "a.png"), scene[:50, :, ::-1])
    capsys.readouterr()
    assert main(["predict", f"--workdir={workdir}", str(tmp_path / "a.png"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    picture: Any = cv2.imread(found["picture"])
    assert found["objects"] and picture.shape == (500, 640, 3)
