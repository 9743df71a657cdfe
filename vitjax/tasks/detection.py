"""Object detection: boxes and classes, and masks where the model has them, measured by COCO's AP.

The model brings its loss (`Detector.loss`): a sum over images, divided by the sum of their weights,
both over the whole batch; RetinaNet's weight is the number of an image's positive anchors, so that
the loss is divided by that of all images. What lies in a crowd counts neither way. Evaluation sees
whole images, each in a canvas of one size, and measures boxes at their original size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vitjax.data.canvas import WholeImage
from vitjax.data.codecs.image import Picture
from vitjax.data.crop_kinds import PaddedImage
from vitjax.data.instances import Instances, WholeInstances
from vitjax.data.source import DataInfo, Sample
from vitjax.data.transforms.crops import height_and_width
from vitjax.detection.results import Targets
from vitjax.models import from_config as model_from_config
from vitjax.models.detector import Detector
from vitjax.models.partition import RESIDUAL, SHARDING_RULES
from vitjax.models.protocols import check_output
from vitjax.runs import load_weights
from vitjax.task import Batch, Findings, Keys, Loss, Presentation, Sums, Task
from vitjax.tasks.canvases import canvas_pixels, canvas_size
from vitjax.tasks.coco_ap import (
    class_columns,
    coco_metrics,
    evaluate_rows,
    paste,
    truth_rows,
)
from vitjax.tasks.pictures import class_colours, detection_picture, visible
from vitjax.train.defaults import RunConfig


@dataclasses.dataclass(frozen=True)
class DetectionConfig:
    """Section `detection`."""

    limit: int = 100  # objects of a training crop; of more the largest
    min_side: float = 1.0  # pixels; objects of which a crop leaves less are left out
    min_share: float = 0.0  # the same, as a share of the object's box
    mask_size: int = 112  # side of the masks that are learnt, each over its object's box
    eval_size: tuple[int, ...] = ()  # rows and columns of evaluation's canvas; empty: a crop's
    eval_short_side: int = 0  # to which images are resized; 0: as they are, if they fit
    eval_divisor: int = 1  # the resized sides become multiples of it, rounded up
    eval_limit: int = 100  # objects of the image that has most
    mask_bytes: int = 65_536  # of an image's masks in an evaluation, as run lengths
    show: float = 0.3  # least score of what `vitjax predict` shows


@dataclasses.dataclass(frozen=True)
class DetectionRun(RunConfig):
    """Config of a run, with the section of this task."""

    detection: DetectionConfig = DetectionConfig()


SECTION = "config.detection"


def detection(
    model: Detector,
    *,
    class_names: tuple[str, ...],
    image_size: tuple[int, int],
    mean: tuple[float, ...] = (0.5, 0.5, 0.5),
    std: tuple[float, ...] = (0.5, 0.5, 0.5),
    config: DetectionConfig = DetectionConfig(),
    load: Callable[[str], Any] | None = None,
) -> Task:
    """Build the task of a detector.

    Args:
      class_names: K names.
      image_size: height and width of a training crop.
      mean, std: one value for each channel: pixels become (pixel / 255 - mean) / std.
      load: see `Task`.

    Raises:
      ValueError: a value is out of its range.
    """
    c, channels = config, len(mean)
    _check(c)
    canvas = canvas_size(f"{SECTION}.eval_size", c.eval_size, image_size)
    whole = WholeImage(canvas, c.eval_short_side, c.eval_divisor, channels=channels)
    masks, mask_bytes = (c.mask_size, c.mask_bytes) if model.has_masks else (0, 0)
    run = _Detection(model, class_names, mean, std, config)
    options = (f"{SECTION}.eval_limit", f"{SECTION}.mask_bytes")
    return Task(
        kinds={
            "image": PaddedImage(image_size, channels=channels),
            "objects": Instances(image_size, c.limit, masks, c.min_side, c.min_share),
        },
        eval_kinds={
            "image": whole,
            "objects": WholeInstances(whole, c.eval_limit, mask_bytes, options),
        },
        init=lambda key: dict(model.init(key, jnp.zeros((1, *image_size, channels)))),
        loss=run.loss,
        predict=run.predict,
        measure=run.measure,
        rows=run.rows,
        summarize=run.summarize,
        monitor="ap",
        present=run.present,
        decay_rules=model.decay_rules,
        sharding_rules=SHARDING_RULES,
        residual=RESIDUAL,
        load=load,
        inspect=lambda found, batch: (run.measure(found, batch), run.rows(found, batch)),
        findings=run.findings,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Detection:
    """Functions of the task; the fields are the checked arguments of `detection`."""

    model: Detector
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    config: DetectionConfig

    def loss(self, params: Any, collections: Any, batch: Batch, keys: Keys, frozen: Any) -> Loss:
        del frozen
        mask = batch["mask"]
        found, collections = self.model.apply(
            {"params": params, **collections}, canvas_pixels(batch, self.mean, self.std),
            targets_of(batch), mask, True, mutable=list(collections), method="loss",
            rngs={"dropout": keys("dropout"), "sample": keys("sample")},
        )  # fmt: skip
        value: Any = sum(found.parts.values())
        total = (found.weight * mask).sum()
        share = mask.sum() / jnp.where(total > 0, total, 1)  # reported terms are means over images
        terms = {name: part * share for name, part in found.parts.items()}
        return Loss(value, found.weight, collections, terms)

    def predict(self, variables: Any, batch: Batch) -> dict[str, Array]:
        pixels, extent = canvas_pixels(batch, self.mean, self.std), batch["image_extent"]
        found: Any = self.model.apply(variables, pixels, extent, method="detect")
        arrays = {name: array for name, array in found._asdict().items() if array is not None}
        return {**arrays, "extent": extent}

    def measure(self, prediction: dict[str, Array], batch: Batch) -> Sums:
        """Count images and detections; AP is no sum."""
        found = ((prediction["classes"] >= 0).sum(axis=1) * batch["mask"]).sum()
        return {"images": batch["mask"].sum(), "detections": found}

    def rows(self, prediction: dict[str, Array], batch: Batch) -> dict[str, Any]:
        """Collect detections, in pixels of the original images, and objects."""
        scale = (batch["objects_size"] / prediction["extent"])[:, ::-1]
        found = {k: v for k, v in prediction.items() if k != "extent"}
        found["boxes"] = prediction["boxes"] * jnp.tile(scale, 2)[:, None]
        return {"found": {**found, "index": batch["objects_index"]}, "truth": truth_rows(batch)}

    def summarize(self, sums: Sums, rows: Any) -> dict[str, float]:
        found, truth = rows["found"], rows["truth"]
        metrics = coco_metrics(found, truth, len(self.class_names), self.model.aligned)
        images, count = float(sums["images"]), float(sums["detections"])
        return {**metrics, "detections": count / images, "images": images}

    def findings(self, sums: Sums, rows: Any) -> Findings:
        del sums
        found, truth = rows["found"], rows["truth"]
        results = evaluate_rows(found, truth, len(self.class_names), self.model.aligned)
        return Findings(classes=class_columns(results, self.class_names), counted="objects")

    def present(self, prediction: dict[str, np.ndarray], sample: Sample) -> Presentation:
        """List objects, and draw them: boxes, masks, classes and scores."""
        picture: Picture = sample["image"]
        pixels, names = picture.whole(), self.class_names
        shown = prediction["scores"] >= self.config.show
        shown &= prediction["classes"] >= 0
        scale = np.array(pixels.shape[:2]) / prediction["extent"]
        boxes = prediction["boxes"][shown] * np.tile(scale[::-1], 2)
        classes, scores = prediction["classes"][shown], prediction["scores"][shown]
        lines = [
            f"{score:7.2%}  {names[k]}  x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f}"
            for k, score, (x0, y0, x1, y1) in zip(classes, scores, boxes)
        ]
        objects = [
            {"class": names[k], "score": float(score), "box": [round(float(n), 2) for n in box]}
            for k, score, box in zip(classes, scores, boxes)
        ]
        masks = None
        if "masks" in prediction:
            size = (pixels.shape[0], pixels.shape[1])
            every = zip(prediction["masks"][shown], boxes)
            masks = [paste(mask, box, size, self.model.aligned) for mask, box in every]
        labels = [f"{names[k]} {score:.2f}" for k, score in zip(classes, scores)]
        colours = class_colours(len(names))[classes]
        drawn = detection_picture(visible(pixels), boxes, labels, colours, masks)
        return Presentation(lines or ["nothing found"], {"objects": objects}, drawn)


def targets_of(batch: Batch) -> Targets:
    """Take the objects of a training batch."""
    arrays = {name: batch.get(f"objects_{name}") for name in Targets._fields}
    return Targets(**arrays | {"extent": batch["image_extent"]})  # type: ignore[arg-type]


def from_config(config: DetectionRun, info: DataInfo, abstract: bool = False) -> Task:
    """Build the task of a run; errors as in `detection`."""
    del abstract  # nothing is read
    size, name = config.data.image_size, config.model["name"]
    model: Any = model_from_config(config.model, len(info.classes), size)
    hint = f"retinanet, mask_rcnn, … with --config.model.backbone={name}"
    check_output(name, model, "detection", "boxes", hint)
    return detection(
        model,
        class_names=info.classes,
        image_size=height_and_width(size),
        mean=config.data.mean,
        std=config.data.std,
        config=config.detection,
        load=lambda source: load_weights(config, source, len(info.classes)),
    )


def _check(c: DetectionConfig) -> None:
    """Check that numbers are in their ranges.

    Raises:
      ValueError: one is not.
    """
    least = dict(limit=1, eval_limit=1, mask_size=1, mask_bytes=1, eval_divisor=1)
    for name, bound in least.items():
        if getattr(c, name) < bound:
            raise ValueError(f"{SECTION}.{name}={getattr(c, name)} must be at least {bound}.")
    for name in ("min_side", "eval_short_side"):
        if getattr(c, name) < 0:
            raise ValueError(f"{SECTION}.{name}={getattr(c, name)} must be 0 or more.")
    for name in ("min_share", "show"):
        if not 0 <= getattr(c, name) <= 1:
            raise ValueError(f"{SECTION}.{name}={getattr(c, name)} must lie between 0 and 1.")
