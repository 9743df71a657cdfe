"""COCO's AP and AR: the golden numbers of pycocotools, cases by hand, rows of several hosts."""

import pathlib

import numpy as np
import pytest

from tests.golden import load_golden
from vitjax.data import pipeline
from vitjax.data.canvas import WholeImage
from vitjax.data.codecs.masks import Bitmap, Polygons
from vitjax.data.codecs.masks import encode as encode_mask
from vitjax.data.instances import WholeInstances
from vitjax.data.sources import open_source
from vitjax.tasks import coco_ap
from vitjax.tasks.coco_ap import class_columns, coco_metrics, evaluate, evaluate_rows, paste

pytest.importorskip("pycocotools")
GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "coco_eval.npz"


def golden() -> tuple[dict, dict]:
    """The golden case's numbers, and its images' sizes."""
    data, _, _ = load_golden.load(GOLDEN)
    return data, {i: (int(h), int(w)) for i, (h, w) in enumerate(data["in::image_hw"])}


def annotations(data: dict, images: dict, name: str, kind: str) -> list[dict]:
    masks, found = data[f"in::{name}_masks"], []
    for row, bits in zip(data[f"in::{name}"], masks):
        image, label, x, y, w, h, last = row.tolist()
        size = images[int(image)]
        pixels = np.unpackbits(bits, axis=-1, count=size[1])[: size[0]]
        counts = encode_mask(Bitmap(pixels), size)
        found.append({
            "image_id": int(image), "category_id": int(label) - 1, "bbox": [x, y, w, h],
            "segmentation": {"size": list(size), "counts": counts},
            "area": w * h if kind == "bbox" else float(pixels.sum()),
        } | ({"iscrowd": int(last)} if name == "gt" else {"score": last}))  # fmt: skip
    return found


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_numbers_are_those_of_pycocotools(kind: str) -> None:
    data, images = golden()
    truth, found = (annotations(data, images, name, kind) for name in ("gt", "dt"))
    result = evaluate(truth, found, images, 3, kind)
    np.testing.assert_array_equal(result.stats, data[f"ref::{kind}_stats"])
    np.testing.assert_array_equal(
        result.precision[0, :, :, 0, -1], data[f"ref::{kind}_precision_iou50"]
    )
    np.testing.assert_array_equal(result.recall[:, :, 0], data[f"ref::{kind}_recall"])
    table = class_columns({"": result}, "abc")
    expected = data[f"ref::{kind}_ap_per_class"][:, 0]
    np.testing.assert_allclose(table["ap"], np.where(expected < 0, np.nan, expected), rtol=1e-12)


def rows_of(parts: list[dict], images: dict, last: str, order: list[int]) -> dict:
    """Rows of images in an order, padded to 20; boxes (x0, y0, x1, y1) in float64."""
    rows = {
        "boxes": np.zeros((len(order), 20, 4)),
        "classes": np.full((len(order), 20), -1),
        last: np.zeros((len(order), 20)),
        "areas": np.zeros((len(order), 20)),
        "index": np.array(order),
        "size": np.array([images[i] for i in order]),
    }
    for r, image in enumerate(order):
        for i, part in enumerate(p for p in parts if p["image_id"] == image):
            x, y, w, h = part["bbox"]
            rows["boxes"][r, i] = x, y, x + w, y + h
            rows["classes"][r, i], rows["areas"][r, i] = part["category_id"], part["area"]
            rows[last][r, i] = part["score" if last == "scores" else "iscrowd"]
    rows["crowd" if last == "crowd" else "scores"] = rows[last]
    rows["valid"] = rows["classes"] >= 0
    return rows


@pytest.mark.golden
def test_rows_in_any_order_count_each_image_once() -> None:
    data, images = golden()
    truth, found = (annotations(data, images, name, "bbox") for name in ("gt", "dt"))
    order = [4, 0, 2, 5, 1, 3, 0, 4]  # two twice, as padding has them
    rows = rows_of(truth, images, "crowd", order), rows_of(found, images, "scores", order)
    rows[1]["scores"][6:] = 1 - rows[1]["scores"][6:]  # the second of two does not count
    metrics = coco_metrics(rows[1], rows[0], 3)
    expected = dict(zip(coco_ap.METRICS, data["ref::bbox_stats"]))
    assert metrics == pytest.approx({k: v for k, v in expected.items() if v >= 0}, abs=1e-12)


def test_a_case_by_hand() -> None:
    """Two objects of a class, three detections: right, wrong, right at IoU 0.6."""
    images, size = {7: (100, 100)}, 100.0
    boxes = [[0, 0, 10, 10], [50, 50, 10, 10]]
    truth = [
        {"image_id": 7, "category_id": 1, "bbox": box, "iscrowd": 0, "area": size} for box in boxes
    ]
    truth.append({"image_id": 7, "category_id": 0, "bbox": [80, 0, 9, 9], "iscrowd": 1, "area": 81})
    found = [
        {"image_id": 7, "category_id": 1, "bbox": box, "score": score}
        for box, score in (([0, 0, 10, 10], 0.9), ([20, 0, 10, 10], 0.8), ([50, 52.5, 10, 10], 0.7))
    ]
    result = evaluate(truth, found, images, 2, "bbox")
    metrics = coco_ap.metrics_of({"": result})
    # Precision 1 up to recall 1/2 (51 of 101 points), then 2/3 where the third one counts.
    both = (51 + 50 * 2 / 3) / 101
    assert metrics["ap50"] == pytest.approx(both)
    assert metrics["ap75"] == pytest.approx(51 / 101)
    assert metrics["ap"] == pytest.approx((3 * both + 7 * 51 / 101) / 10)  # IoU 0.6: three of ten
    assert metrics["ar_1"] == pytest.approx(0.5) and metrics["ar_100"] == pytest.approx(0.65)
    assert set(metrics) == {*coco_ap.METRICS} - {"ap_medium", "ap_large", "ar_medium", "ar_large"}
    table = class_columns({"": result}, ["a", "b"])
    assert table["objects"].tolist() == [0, 2] and np.isnan(table["ap"][0])


def test_perfect_predictions_of_a_source() -> None:
    """Detections that are the objects, with their masks: AP 1 by boxes, and nearly by masks."""
    source, m = open_source("boxes://?size=64&count=31", "test"), 28
    image = WholeImage((64, 64))
    kinds = {"image": image, "objects": WholeInstances(image, limit=7, mask_bytes=2000)}
    (batch,) = pipeline.eval_batches(source, kinds=kinds, batch_size=31, num_threads=0)
    truth = coco_ap.truth_rows(batch)
    masks = np.zeros((31, 7, m, m))
    for i in range(31):
        for k, mask in enumerate(source[i]["objects"].masks):
            rows, columns = (
                np.minimum((np.arange(m) + 0.5) * n / m, n - 1).astype(int)
                for n in mask.pixels.shape
            )
            masks[i, k] = mask.pixels[rows][:, columns]
    found = {
        "boxes": truth["boxes"],
        "classes": truth["classes"],
        "index": truth["index"],
        "scores": np.where(truth["valid"], 0.5, 0),
        "masks": masks,
    }
    metrics = coco_metrics(found, truth, 10)
    assert [metrics[n] for n in ("ap", "ap50", "ap_small", "ar_100")] == pytest.approx([1.0] * 4)
    assert metrics["mask_ap50"] > 0.95 and 0.5 < metrics["mask_ap"] < 0.9  # pasting is coarse
    assert coco_metrics(found, truth, 10, aligned=True)["mask_ap"] > 0.95
    assert "ap_large" not in metrics and "mask_ap_large" not in metrics
    nothing = {**found, "classes": np.full((31, 7), -1)}
    assert coco_metrics(nothing, truth, 10)["ap"] == 0
    empty = {**truth, "valid": truth["valid"] & False}
    with pytest.raises(ValueError, match="no objects but crowds, so that its AP is not defined"):
        coco_metrics(found, empty, 10)
    with pytest.raises(ValueError, match="give WholeInstances mask_bytes, or predict no masks"):
        evaluate_rows(found, {k: v for k, v in truth.items() if k != "rle"}, 10)


def pasted_slowly(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each pixel of the grown box reads the padded mask bilinearly, pixel by pixel."""
    m, padded = len(mask), np.pad(mask, 1)
    scale, whole = (m + 2) / m, np.zeros(size)
    (x, y), (w, h) = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * scale
    left, top, right, bottom = (int(v) for v in (x - w, y - h, x + w, y + h))
    sides = max(bottom - top + 1, 1), max(right - left + 1, 1)
    for i in range(sides[0]):
        for j in range(sides[1]):
            at = [np.clip((n + 0.5) * (m + 2) / s - 0.5, 0, m + 1) for n, s in zip((i, j), sides)]
            (p, q), (a, b) = (int(at[0]), int(at[1])), (at[0] % 1, at[1] % 1)
            p2, q2 = min(p + 1, m + 1), min(q + 1, m + 1)
            upper = (1 - b) * padded[p, q] + b * padded[p, q2]
            value = (1 - a) * upper + a * ((1 - b) * padded[p2, q] + b * padded[p2, q2])
            if 0 <= top + i < size[0] and 0 <= left + j < size[1]:
                whole[top + i, left + j] = value
    return whole


@pytest.mark.parametrize(
    "box", [(3.2, 4.7, 30.9, 22.1), (-8.5, -3, 5, 9), (20.0, 10, 60, 40), (5, 5, 5.2, 5.1)]
)
def test_a_mask_is_pasted_with_a_border(box: tuple) -> None:
    mask, size = np.random.default_rng(0).random((7, 7)), (29, 41)
    expected = pasted_slowly(mask, np.array(box), size)
    found = paste(mask, np.array(box), size)
    sure = np.abs(expected - 0.5) > 1e-4
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(found[sure], (expected > 0.5)[sure])
    assert found.any() or box[2] < 6


@pytest.mark.parametrize("box", [(3.2, 4.7, 30.9, 22.1), (-8.5, -3, 5, 9), (20.0, 10, 60, 40)])
def test_an_aligned_mask_is_read_at_the_centres_of_pixels(box: tuple) -> None:
    mask, size = np.random.default_rng(0).random((7, 7)), (29, 41)
    expected, padded = np.zeros(size), np.pad(mask, 1)
    for i, j in np.ndindex(size):
        y = np.clip((i + 0.5 - box[1]) * 7 / (box[3] - box[1]) + 0.5, 0, 8)
        x = np.clip((j + 0.5 - box[0]) * 7 / (box[2] - box[0]) + 0.5, 0, 8)
        (p, q), (a, b) = (min(int(y), 7), min(int(x), 7)), (y, x)
        corner = np.array([[p + 1 - a, a - p]]) @ padded[p : p + 2, q : q + 2]
        expected[i, j] = (corner @ [q + 1 - b, b - q])[0]
    found = paste(mask, np.array(box), size, aligned=True)
    sure = np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(found[sure], (expected > 0.5)[sure])
    assert found.any() and sure.mean() > 0.99
    whole = paste(np.ones((7, 7)), np.array([3.0, 4, 19, 22]), size, aligned=True)
    assert whole[4:22, 4:18].all() and whole[5:21, 3:19].all()
    assert whole.sum() == 16 * 18 - 4  # zeros around it weigh more at the four corners


def test_polygons_are_drawn_by_cocos_rules() -> None:
    """A rectangle of whole pixels covers them, and a part of a pixel counts from a half on."""
    ring = np.array([[2, 1], [6, 1], [6, 4], [2, 4]], np.float64)
    pixels = np.zeros((7, 9), np.uint8)
    pixels[1:4, 2:6] = 1
    assert encode_mask(Polygons((ring,)), (7, 9)) == encode_mask(Bitmap(pixels), (7, 9))
