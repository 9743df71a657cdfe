"""Semantic segmentation: a class for every pixel, measured by mIoU at each image's own size.

Models are trained on crops with the cross-entropy of every labelled pixel, plus that of auxiliary
heads at 0.4, as in PSPNet (arXiv:1612.01105, section 3.3). Evaluation uses whole images, each in a
canvas of one size: in overlapping windows of the size of a training crop, or all at once.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vitjax.data.canvas import WholeImage, WholeMap
from vitjax.data.codecs.image import Picture
from vitjax.data.codecs.maps import IGNORE
from vitjax.data.crop_kinds import PaddedImage
from vitjax.data.kinds import SemanticMap, Size
from vitjax.data.source import DataInfo, Sample
from vitjax.data.transforms.crops import height_and_width
from vitjax.layers.resize import resize
from vitjax.models import from_config as model_from_config
from vitjax.models.partition import RESIDUAL, SHARDING_RULES
from vitjax.models.protocols import GivesAuxiliaryLogits, check_output
from vitjax.models.pyramid import KERNELS
from vitjax.names import check_choice
from vitjax.runs import load_weights
from vitjax.task import Batch, Keys, Loss, Presentation, Sums, Task
from vitjax.tasks.areas import areas, by_class, pixel_weights, summarize
from vitjax.tasks.canvases import canvas_pixels, canvas_size
from vitjax.tasks.inspection import pixel_findings
from vitjax.tasks.pictures import class_colours, segmentation_picture, visible
from vitjax.tasks.sliding import ROWS, own_size_rows, sliding_logits
from vitjax.train.defaults import RunConfig


@dataclasses.dataclass(frozen=True)
class SegmentationConfig:
    """Section `segmentation`."""

    class_weights: tuple[float, ...] = ()  # of each class's pixels in the loss; empty: 1 for all
    eval_size: tuple[int, ...] = ()  # rows and columns of evaluation's canvas; empty: a crop's
    eval_short_side: int = 0  # to which images are resized; 0: as they are, if they fit
    eval_divisor: int = 1  # the resized sides become multiples of it, rounded up
    label_size: tuple[int, ...] = ()  # rows and columns of the largest label file; empty: eval_size
    eval_mode: str = "slide"  # windows of a training crop's size, or the "whole" canvas at once
    eval_overlap: float = 1 / 3  # of neighbouring windows, as a share of a window
    eval_flip: bool = False  # mirrored images too, averaged
    eval_scales: tuple[float, ...] = (1.0,)  # at which images are seen, averaged


@dataclasses.dataclass(frozen=True)
class SegmentationRun(RunConfig):
    """Config of a run, with the section of this task."""

    segmentation: SegmentationConfig = SegmentationConfig()


MODES = ("slide", "whole")
SECTION = "config.segmentation"


def segmentation(
    model: nn.Module,
    *,
    class_names: tuple[str, ...],
    image_size: tuple[int, int],
    mean: tuple[float, ...] = (0.5, 0.5, 0.5),
    std: tuple[float, ...] = (0.5, 0.5, 0.5),
    config: SegmentationConfig = SegmentationConfig(),
    load: Callable[[str], Any] | None = None,
) -> Task:
    """Build the task of a model `images, train → logits [B, h, w, K]`, at any resolution h, w.

    Args:
      class_names: K names.
      image_size: height and width of a training crop, and of a window of evaluation.
      mean, std: one value for each channel: pixels become (pixel / 255 - mean) / std.
      config: the loss is divided by the sum of its pixels' weights.
      load: see `Task`.

    Raises:
      ValueError: a value does not fit the others.
    """
    c = config
    check_choice(f"{SECTION}.eval_mode", c.eval_mode, MODES)
    canvas = canvas_size(f"{SECTION}.eval_size", c.eval_size, image_size)
    limit = canvas_size(f"{SECTION}.label_size", c.label_size, canvas)
    _check(len(class_names), c.class_weights, c.eval_overlap, c.eval_scales)
    _check_divisor(c.eval_divisor, canvas, c.eval_scales)
    run = _Segmentation(model, class_names, image_size, canvas, limit, mean, std, config)
    return Task(
        kinds={
            "image": PaddedImage(image_size, channels=len(mean)),
            "map": SemanticMap(image_size),
        },
        eval_kinds={
            "image": WholeImage(canvas, c.eval_short_side, c.eval_divisor, channels=len(mean)),
            "map": WholeMap(limit, f"{SECTION}.label_size"),
        },
        init=lambda key: dict(model.init(key, jnp.zeros((1, *image_size, len(mean))))),
        loss=run.loss,
        predict=run.predict,
        measure=run.measure,
        summarize=summarize,
        by_class=lambda sums: by_class(sums, class_names),
        monitor="miou",
        columns=tuple(f"share_{name}" for name in class_names),
        present=run.present,
        decay_rules=getattr(model, "decay_rules", KERNELS),
        sharding_rules=SHARDING_RULES,
        residual=RESIDUAL,
        load=load,
        inspect=run.inspect,
        findings=lambda sums, rows: pixel_findings(sums, class_names),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Segmentation:
    """Functions of the task; the fields are the checked arguments of `segmentation`.

    Attributes:
      canvas: height and width of the images in an evaluation.
      limit: height and width of the label maps in an evaluation.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    window: Size
    canvas: Size
    limit: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    config: SegmentationConfig

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def align_corners(self) -> bool:
        return bool(getattr(self.model, "align_corners", False))

    def pixels(self, batch: Batch) -> Float[Array, "B H W c"]:
        return canvas_pixels(batch, self.mean, self.std)

    def loss(self, params: Any, collections: Any, batch: Batch, keys: Keys, frozen: Any) -> Loss:
        del frozen
        labels = batch["map"].astype(jnp.int32)
        counts = pixel_weights(labels, self.num_classes, self.config.class_weights)
        model: Any = self.model
        helps = isinstance(self.model, GivesAuxiliaryLogits) and bool(
            getattr(model, "auxiliary", ())
        )
        found, collections = model.apply(
            {"params": params, **collections},
            self.pixels(batch),
            True,
            mutable=list(collections),
            rngs={"dropout": keys("dropout")},
            method="all_logits" if helps else None,
        )
        logits, others = found if helps else (found, ())
        value = self.cross_entropy(logits, labels, counts)
        for other in others:
            value += model.auxiliary_weight * self.cross_entropy(other, labels, counts)
        return Loss(value, counts.sum(axis=(1, 2)), collections, {})

    def cross_entropy(
        self, logits: Float[Array, "B h w K"], labels: Int[Array, "B H W"], counts: Array
    ) -> Float[Array, "B"]:
        """Sum the cross-entropy of each image's pixels, with logits resized to the labels."""
        logits = resize(logits.astype(jnp.float32), labels.shape[1:], self.align_corners)  # type: ignore[arg-type]
        known = jnp.where(counts > 0, labels, 0)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, known)
        return (loss * counts).sum(axis=(1, 2))

    def predict(self, variables: Any, batch: Batch) -> dict[str, Array]:
        pixels, extent = self.pixels(batch), batch["image_extent"]
        found = [
            self.logits_at(scale, variables, pixels, extent) for scale in self.config.eval_scales
        ]
        if len(found) == 1:
            return {"logits": found[0], "extent": extent}
        shares = [jax.nn.softmax(resize(x, self.canvas, self.align_corners)) for x in found]
        return {"logits": jnp.log(sum(shares) / len(shares)), "extent": extent}

    def logits_at(self, scale: float, variables: Any, pixels: Array, extent: Array) -> Array:
        """Compute logits of images at a scale, whole or in windows."""
        size = tuple(max(round(n * scale), 1) for n in self.canvas)
        images = resize(pixels, size)  # type: ignore[arg-type]
        forward = functools.partial(self.forward, variables)
        if self.config.eval_mode == "whole":
            return forward(images)
        part = jnp.minimum(jnp.round(extent * scale).astype(int), jnp.array(size))
        stride = tuple(max(round(n * (1 - self.config.eval_overlap)), 1) for n in self.window)
        return sliding_logits(forward, images, part, self.window, stride, self.align_corners)  # type: ignore[arg-type]

    def forward(self, variables: Any, images: Array) -> Array:
        """Apply the model, and average the logits with those of mirrored images if `eval_flip`."""
        model: Any = self.model
        logits = model.apply(variables, images)
        if self.config.eval_flip:
            logits += model.apply(variables, images[:, :, ::-1])[:, :, ::-1]
            logits /= 2
        return jnp.asarray(logits, jnp.float32)

    def on_canvas(self, logits: Float[Array, "B h w K"], extent: Array) -> Float[Array, "B H W K"]:
        """Resize logits of any resolution to the canvas, without reading beyond each image."""
        if logits.shape[1:3] == self.canvas:
            return logits
        part = -(-extent * jnp.array(logits.shape[1:3]) // jnp.array(self.canvas))
        height, width = self.canvas
        rows = jnp.arange(height)
        return own_size_rows(logits, part, rows, width, extent, self.align_corners)

    def measure(self, prediction: dict[str, Array], batch: Batch) -> Sums:
        return self.count(prediction, batch, confused=False)

    def inspect(self, prediction: dict[str, Array], batch: Batch) -> tuple[Sums, Any]:
        return self.count(prediction, batch, confused=True), {}

    def count(self, prediction: dict[str, Array], batch: Batch, confused: bool) -> Sums:
        """Count areas at the size of each label file, some rows at a time.

        Args:
          confused: also count each pair of classes.
        """
        extent = prediction["extent"]
        logits, mask = self.on_canvas(prediction["logits"], extent), batch["mask"]
        height, width = self.limit
        below = ((0, 0), (0, -height % ROWS), (0, 0))
        labels = jnp.pad(batch["map"], below, constant_values=IGNORE).astype(jnp.int32)

        def some_rows(sums: Sums, start: Array) -> tuple[Sums, None]:
            rows, own = start + jnp.arange(ROWS), batch["map_extent"]
            full = own_size_rows(logits, extent, rows, width, own, self.align_corners)
            truth = jax.lax.dynamic_slice_in_dim(labels, start, ROWS, axis=1)
            known = (truth < self.num_classes) & (mask[:, None, None] > 0)
            return jax.tree.map(jnp.add, sums, areas(full, truth, known, confused)), None

        zero = jnp.zeros(self.num_classes, jnp.int32)
        zeros = {"both": zero, "labelled": zero, "predicted": zero, "loss": jnp.zeros(())}
        if confused:
            zeros["confusion"] = jnp.zeros((self.num_classes, self.num_classes), jnp.int32)
        sums, _ = jax.lax.scan(some_rows, zeros, jnp.arange(0, labels.shape[1], ROWS))
        return {**sums, "images": mask.sum()}

    def present(self, prediction: dict[str, np.ndarray], sample: Sample) -> Presentation:
        """Show the share of each class, and the classes drawn over the image."""
        picture: Picture = sample["image"]
        pixels, names = picture.whole(), self.class_names
        extent = jnp.asarray(prediction["extent"])[None]
        height, width = (int(n) for n in prediction["extent"])
        logits = self.on_canvas(jnp.asarray(prediction["logits"])[None], extent)
        own = resize(logits[:, :height, :width], pixels.shape[:2], self.align_corners)
        found = np.asarray(own[0].argmax(axis=-1))
        shares = np.bincount(found.ravel(), minlength=len(names)) / found.size
        top = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k] > 0]
        lines = [f"{shares[k]:7.2%}  {names[k]}" for k in top]
        result = {"pixels": [[names[k], float(shares[k])] for k in top]}
        colours = class_colours(len(names))
        drawn = segmentation_picture(visible(pixels), found, names, colours)
        cells = {f"share_{name}": float(share) for name, share in zip(names, shares)}
        return Presentation(lines, result, drawn, cells)


def from_config(config: SegmentationRun, info: DataInfo, abstract: bool = False) -> Task:
    """Build the task of a run; errors as in `segmentation`."""
    del abstract  # nothing is read
    size = config.data.image_size
    model, name = model_from_config(config.model, len(info.classes), size), config.model["name"]
    hint = f"upernet, segformer, … with --config.model.backbone={name}"
    check_output(name, model, "segmentation", "map", hint)
    return segmentation(
        model,
        class_names=info.classes,
        image_size=height_and_width(size),
        mean=config.data.mean,
        std=config.data.std,
        config=config.segmentation,
        load=lambda source: load_weights(config, source, len(info.classes)),
    )


def _check(
    num_classes: int, weights: tuple[float, ...], overlap: float, scales: tuple[float, ...]
) -> None:
    """Check that the values of the section fit each other.

    Raises:
      ValueError: a value does not fit.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(
            f"The data has {num_classes} classes; segmentation takes 1 to {IGNORE}, as {IGNORE} "
            f"stands for pixels without one."
        )
    if weights and (len(weights) != num_classes or min(weights) < 0 or max(weights) == 0):
        raise ValueError(
            f"{SECTION}.class_weights has {len(weights)} weights, of which each must be 0 or more, "
            f"and the data {num_classes} classes; give one for each, or none."
        )
    if not 0 <= overlap < 1 or not scales or min(scales) <= 0 or not math.isfinite(max(scales)):
        raise ValueError(
            f"{SECTION}.eval_overlap={overlap} must be at least 0 and below 1, and "
            f"{SECTION}.eval_scales={scales} one positive factor or more."
        )


def _check_divisor(divisor: int, canvas: tuple[int, int], scales: tuple[float, ...]) -> None:
    """Check that sides are multiples of their divisor.

    Raises:
      ValueError: a side is no multiple.
    """
    if divisor < 1 or any(n % divisor for n in canvas):
        raise ValueError(
            f"{SECTION}.eval_divisor={divisor} must be at least 1, and {SECTION}.eval_size="
            f"{canvas} rows and columns that are multiples of it."
        )
    if divisor > 1 and tuple(scales) != (1.0,):
        raise ValueError(
            f"{SECTION}.eval_divisor={divisor} works at scale 1 only, and "
            f"{SECTION}.eval_scales={scales} has others; leave one of them out."
        )
