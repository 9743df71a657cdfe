"""COCO's average precision and recall of boxes and masks (arXiv:1405.0312), by pycocotools.

The rows of an evaluation, gathered from all hosts, become its annotations; each image counts once.
"""

import contextlib
import functools
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from vitjax.console import Countdown
from vitjax.data.codecs.masks import coco_masks

METRICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)
"""In the order of pycocotools: AP over IoU 0.5 to 0.95, at 0.5 and 0.75, and by the objects' area;
recall with so many detections an image and class, and by area with 100."""
KINDS: dict[str, Literal["bbox", "segm"]] = {"": "bbox", "mask_": "segm"}
"""What metrics' names begin with → what pycocotools calls it."""
TRUTH = {
    "boxes": "original", "classes": "classes", "crowd": "crowd", "areas": "areas",
    "valid": "valid", "size": "size", "index": "index",
}  # fmt: skip
"""Row → array of `instances.WholeInstances`."""

Rows = Mapping[str, Any]


class Evaluated(NamedTuple):
    """Result of pycocotools; -1 where no object is of that kind.

    Attributes:
      stats: values of METRICS.
      precision: by IoU, recall, class, area (all, small, medium, large), detections (1, 10, 100).
      recall: by the same but recall.
      objects: of each class, without crowds.
    """

    stats: Float[np.ndarray, "12"]
    precision: Float[np.ndarray, "T R K A M"]
    recall: Float[np.ndarray, "T K A M"]
    objects: Int[np.ndarray, "K"]


def truth_rows(batch: Rows, field: str = "objects") -> dict[str, Any]:
    """Take what `Task.rows` gathers of the objects of a batch of evaluation."""
    rows = {name: batch[f"{field}_{array}"] for name, array in TRUTH.items()}
    if f"{field}_rle" in batch:
        rows["rle"] = batch[f"{field}_rle"]
    return rows


def coco_metrics(
    detections: Rows, truth: Rows, num_classes: int, aligned: bool = False
) -> dict[str, float]:
    """Compute COCO's 12 metrics of boxes (`ap`, …), and of masks (`mask_ap`, …) if there are any.

    A metric of areas that no object has is left out. Arguments are those of `evaluate_rows`.

    Raises:
      ValueError: there are no objects at all, or pycocotools is not installed.
    """
    return metrics_of(evaluate_rows(detections, truth, num_classes, aligned))


def evaluate_rows(
    detections: Rows, truth: Rows, num_classes: int, aligned: bool = False
) -> dict[str, Evaluated]:
    """Evaluate gathered rows: prefix of KINDS → result.

    Args:
      detections: `boxes` `[R, N, 4]` in pixels of each image, `scores` and `classes` `[R, N]`
        (-1 where padded), `index` `[R]` of the image; with masks `masks` `[R, N, m, m]`:
        probabilities inside of the boxes.
      truth: rows of `truth_rows`. Of several rows with one index, here and above, the first counts.
      num_classes: K.
      aligned: of the masks, see `paste`.
    """
    images = {
        int(i): (int(h), int(w))
        for i, (h, w) in zip(truth["index"][::-1], truth["size"][::-1].tolist())
    }
    kinds = [prefix for prefix in KINDS if not prefix or "masks" in detections]
    if "mask_" in kinds and "rle" not in truth:
        raise ValueError(
            "Masks are measured against those of the data, and its rows have none; give "
            "WholeInstances mask_bytes, or predict no masks."
        )
    objects = list(_objects(truth, "mask_" in kinds))
    found = list(_detections(detections, images, aligned))
    return {
        prefix: evaluate(objects, found, images, num_classes, KINDS[prefix]) for prefix in kinds
    }


def metrics_of(results: Mapping[str, Evaluated]) -> dict[str, float]:
    """Return the metrics of results by their names; see `coco_metrics`."""
    if any(result.stats[0] < 0 for result in results.values()):
        raise ValueError(
            "The evaluation has no objects but crowds, so that its AP is not defined; give images "
            "with objects, or another split."
        )
    return {
        prefix + name: float(value)
        for prefix, result in results.items()
        for name, value in zip(METRICS, result.stats)
        if value >= 0
    }


def class_columns(results: Mapping[str, Evaluated], names: Sequence[str]) -> dict[str, Any]:
    """Make the table of the classes: objects, `ap`, `ap50` and `ar_100`; NaN without objects."""
    columns: dict[str, Any] = {"class": list(names), "objects": results[""].objects}
    for prefix, result in results.items():
        precision, recall = result.precision[..., 0, -1], result.recall[..., 0, -1]
        some = (("ap", precision), ("ap50", precision[:1]), ("ar_100", recall))
        for name, values in some:
            by_class = np.moveaxis(values, -1, 0).reshape(len(names), -1)
            defined = (by_class > -1).all(-1)
            columns[prefix + name] = np.where(defined, by_class.mean(-1), np.nan)
    return columns


def evaluate(
    objects: Sequence[dict[str, Any]],
    detections: Sequence[dict[str, Any]],
    images: Mapping[int, tuple[int, int]],
    num_classes: int,
    kind: Literal["bbox", "segm"],
) -> Evaluated:
    """Evaluate detections by pycocotools.

    Args:
      objects: with `image_id`, `category_id` (from 0), `bbox` (x, y, width, height), `iscrowd`,
        `area`, and for masks `segmentation`, compressed run lengths.
      detections: with `image_id`, `category_id`, `bbox`, `score`, and for masks `segmentation`.
      images: number → height and width.
      num_classes: K.
      kind: "bbox" or "segm".
    """
    masks = coco_masks()  # says what is not installed
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def indexed(annotations: Iterable[dict[str, Any]]) -> Any:
        base: Any = COCO()
        base.dataset = {
            "images": [{"id": i, "height": h, "width": w} for i, (h, w) in images.items()],
            "categories": [{"id": k} for k in range(num_classes)],
            # From 1: pycocotools takes 0 for no match.
            "annotations": [{**a, "id": n} for n, a in enumerate(annotations, 1)],
        }
        base.createIndex()
        return base

    def area(detection: dict[str, Any]) -> float:
        if kind == "segm":
            return float(masks.area(detection["segmentation"]))
        return detection["bbox"][2] * detection["bbox"][3]

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        found = ({**d, "area": area(d), "iscrowd": 0} for d in detections)
        evaluator = COCOeval(indexed(objects), indexed(found), kind)
        _count(evaluator, 4 * num_classes * len(images))
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    counts = np.bincount(
        [o["category_id"] for o in objects if not o["iscrowd"]], minlength=num_classes
    )
    result = evaluator.eval
    return Evaluated(np.asarray(evaluator.stats), result["precision"], result["recall"], counts)


def paste(
    mask: Float[np.ndarray, "m m"],
    box: Float[np.ndarray, "4"],
    size: tuple[int, int],
    aligned: bool = False,
) -> Bool[np.ndarray, "H W"]:
    """Paste the probabilities of a mask into its box in an image: where they are above a half.

    Args:
      aligned: read the mask, zero outside, at the centres of the image's pixels, as networks with
        aligned regions are measured by their authors (Detectron2, mmdetection). False: as
        torchvision does, with a border of zeros, whose box is m + 2 of m and cut to whole pixels,
        of which the last one counts; of a box of 20 pixels that costs a tenth of the IoU.
    """
    m, (height, width) = len(mask), size
    if aligned:
        x0, y0, x1, y1 = box.tolist()
        rows, columns = _pixel_weights(y0, y1, m, height), _pixel_weights(x0, x1, m, width)
        return rows @ np.asarray(mask, np.float32) @ columns.T >= 0.5
    x0, y0, x1, y1 = np.asarray(box, np.float32)
    half = np.array([x1 - x0, y1 - y0]) * np.float32(0.5) * np.float32((m + 2) / m)
    centre = np.array([x1 + x0, y1 + y0]) * np.float32(0.5)
    (left, top), (right, bottom) = (
        np.trunc(corner).astype(int).tolist() for corner in (centre - half, centre + half)
    )
    shown = max(right - left + 1, 1), max(bottom - top + 1, 1)
    whole = np.zeros(size, bool)
    x, y = slice(max(left, 0), min(right + 1, width)), slice(max(top, 0), min(bottom + 1, height))
    if x.start < x.stop and y.start < y.stop:
        padded = np.pad(np.asarray(mask, np.float32), 1)
        large = cv2.resize(padded, shown, interpolation=cv2.INTER_LINEAR)
        inside = large[y.start - top : y.stop - top, x.start - left : x.stop - left]
        whole[y, x] = inside > 0.5
    return whole


def _pixel_weights(low: float, high: float, m: int, pixels: int) -> Float[np.ndarray, "pixels m"]:
    """Compute the weights of m values between two ends for the centre of each pixel."""
    at = (np.arange(pixels) + 0.5 - low) * m / max(high - low, 1e-6) - 0.5
    return np.maximum(1 - np.abs(at[:, None] - np.arange(m)), 0).astype(np.float32)


def _objects(truth: Rows, masks: bool) -> Iterator[dict[str, Any]]:
    """Yield the annotations of the objects."""
    for row in _first(truth["index"]):
        valid = truth["valid"][row]
        columns = (truth[name][row][valid].tolist() for name in ("classes", "crowd", "areas"))
        boxes, size = _corner_and_sides(truth["boxes"][row][valid]), truth["size"][row].tolist()
        rle = bytes(truth["rle"][row]).split(b"\0") if masks else [b""] * len(boxes)
        for box, label, crowd, area, counts in zip(boxes, *columns, rle):
            yield {
                "image_id": int(truth["index"][row]),
                "category_id": label,
                "bbox": box,
                "iscrowd": int(crowd),
                "area": area,
                "segmentation": {"size": size, "counts": counts},
            }


def _detections(
    rows: Rows, images: Mapping[int, tuple[int, int]], aligned: bool
) -> Iterator[dict[str, Any]]:
    """Yield the annotations of what was detected."""
    chosen = _first(rows["index"])
    told = Countdown(len(chosen), "images with masks", quiet=jax.process_index() > 0)
    for done, row in enumerate(chosen, 1):
        image, valid = int(rows["index"][row]), rows["classes"][row] >= 0
        columns = (rows[name][row][valid].tolist() for name in ("classes", "scores"))
        boxes = rows["boxes"][row][valid]
        masks = rows["masks"][row][valid] if "masks" in rows else [None] * len(boxes)
        for corners, box, label, score, mask in zip(
            boxes, _corner_and_sides(boxes), *columns, masks
        ):
            found = {"image_id": image, "category_id": label, "bbox": box, "score": score}
            if mask is not None:
                pixels = paste(mask, corners, images[image], aligned)
                found["segmentation"] = coco_masks().encode(np.asfortranarray(pixels, np.uint8))
            yield found
        told(done)


def _first(index: Int[np.ndarray, "R"]) -> list[int]:
    """Return the first row of each index, by index."""
    return np.unique(index, return_index=True)[1].tolist()


def _corner_and_sides(boxes: Float[np.ndarray, "N 4"]) -> list[list[float]]:
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=-1).tolist()


def _count(evaluator: Any, total: int) -> None:
    """Let pycocotools' loop tell how far it is."""
    told = Countdown(total, "comparisons", quiet=jax.process_index() > 0)
    done, compare = 0, evaluator.evaluateImg

    @functools.wraps(compare)
    def counted(*args: Any) -> Any:
        nonlocal done
        done += 1
        if done % 1000 == 0 or done == total:
            told(done)
        return compare(*args)

    evaluator.evaluateImg = counted
