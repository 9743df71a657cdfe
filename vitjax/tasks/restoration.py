"""Image restoration: reconstruct an image from a degraded one, measured by PSNR and SSIM.

Models are trained on crops with the Charbonnier loss. The data has pairs of images (`pairs://`), or
images alone, which `config.restoration.degradation` then degrades. Evaluation uses whole images at
their own size, each in the corner of a canvas.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vitjax.data.canvas import WholeImage
from vitjax.data.crop_kinds import DegradedImage
from vitjax.data.kinds import Image
from vitjax.data.source import DataInfo, Sample, Source
from vitjax.data.transforms.crops import height_and_width
from vitjax.data.transforms.degrade import degrade, parse_degradations
from vitjax.layers.maps import inside
from vitjax.models import from_config as model_from_config
from vitjax.models.partition import RESIDUAL, SHARDING_RULES
from vitjax.models.protocols import check_output
from vitjax.models.pyramid import KERNELS
from vitjax.names import check_choice
from vitjax.runs import load_weights
from vitjax.task import Batch, Findings, Keys, Loss, Presentation, Sums, Task
from vitjax.tasks.image_quality import luma, psnr, ssim
from vitjax.tasks.mixing import mix_pairs, pair_weights
from vitjax.tasks.pictures import beside
from vitjax.tasks.tiles import tiled
from vitjax.train.defaults import RunConfig


@dataclasses.dataclass(frozen=True)
class RestorationConfig:
    """Section `restoration`."""

    degradation: str = ""  # of images without a partner: "noise(sigma=25) | jpeg(quality=30)"
    eps: float = 1e-3  # of the Charbonnier loss √(d² + ε²)
    mixup: float = 0.0  # α of Beta(α, α), by which pairs are mixed with their neighbours; 0: none
    mixup_start: int = 0  # the first step at which they are
    # Rows and columns of the largest evaluated image; empty: a crop's.
    eval_size: tuple[int, ...] = ()
    quantize: bool = True  # results are measured as images of 8 bits; else as they are, clipped
    monitor: str = "psnr_rgb"  # by which checkpoints are compared
    tile: int = 512  # `vitjax predict` takes larger images apart; a multiple of 128
    tile_overlap: int = 64  # of neighbouring tiles


@dataclasses.dataclass(frozen=True)
class RestorationRun(RunConfig):
    """Config of a run, with the section of this task."""

    restoration: RestorationConfig = RestorationConfig()


MEASURES = ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y")
SECTION = "config.restoration"


def restoration(
    model: nn.Module,
    *,
    image_size: int | tuple[int, int],
    paired: bool,
    config: RestorationConfig = RestorationConfig(),
    load: Callable[[str], Any] | None = None,
) -> Task:
    """Build the task of a model `images, train → images`, both `[B, H, W, 3]` in 0 to 1.

    Args:
      image_size: rows and columns of a training crop, or its side.
      paired: whether the data has images with their targets.
      load: see `Task`.

    Raises:
      ValueError: a value does not fit the others, or the data.
    """
    check_choice(f"{SECTION}.monitor", config.monitor, MEASURES)
    _check(paired, config)
    _check_mixup(config.mixup, config.mixup_start)
    size = config.eval_size
    canvas = (size[0], size[1]) if size else height_and_width(image_size)
    option, text = f"{SECTION}.eval_size", "" if paired else config.degradation
    run = _Restoration(model, config)
    return Task(
        kinds={"image": DegradedImage(image_size, text), "target": Image(image_size)},
        eval_kinds={
            "image": WholeImage(canvas, mirror=True, degradation=text, option=option),
            "target": WholeImage(canvas, mirror=True, option=option),
        },
        init=lambda key: dict(model.init(key, jnp.zeros((1, *height_and_width(image_size), 3)))),
        loss=run.loss,
        predict=run.predict,
        measure=run.measure,
        summarize=summarize,
        monitor=f"{config.monitor}{run.suffix}",
        present=run.present,
        decay_rules=getattr(model, "decay_rules", KERNELS),
        sharding_rules=SHARDING_RULES,
        residual=RESIDUAL,
        add_fields=WithTarget,
        add_eval_fields=WithTarget,
        predict_image=run.predict_image,
        columns=tuple(f"{name}_{k}" for name in ("input", "restored") for k in MEASURES),
        load=load,
        inspect=run.inspect,
        findings=lambda sums, rows: Findings(samples=rows or {}),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Restoration:
    """Functions of the task; the fields are the checked arguments of `restoration`."""

    model: nn.Module
    config: RestorationConfig

    @property
    def suffix(self) -> str:
        """Suffix of the metric names: "_float" for results that are not rounded."""
        return "" if self.config.quantize else "_float"

    def loss(self, params: Any, collections: Any, batch: Batch, keys: Keys, frozen: Any) -> Loss:
        del frozen
        images, target = self.pair(batch, keys)
        model: Any = self.model
        found, collections = model.apply(
            {"params": params, **collections},
            images,
            True,
            mutable=list(collections),
            rngs={"dropout": keys("dropout")},
        )
        error = jnp.asarray(found, jnp.float32) - target
        value = charbonnier(error, self.config.eps).mean(axis=(1, 2, 3))
        return Loss(value, jnp.ones_like(batch["mask"]), collections, {})

    def pair(self, batch: Batch, keys: Keys) -> tuple[Float[Array, "B H W 3"], ...]:
        """Return images and targets in 0 to 1, mixed with their partners' from `mixup_start` on."""
        images, target = scaled(batch, "image"), scaled(batch, "target")
        if not self.config.mixup:
            return images, target
        weight = pair_weights(keys("mix"), self.config.mixup, batch["mask"])
        weight = jnp.where(keys.step >= self.config.mixup_start, weight, 1.0)
        return mix_pairs(weight, images), mix_pairs(weight, target)

    def predict(self, variables: Any, batch: Batch) -> Float[Array, "B H W 3"]:
        return self.restored(variables, scaled(batch, "image"))

    def restored(self, variables: Any, images: Any) -> Float[Array, "B H W 3"]:
        """Apply the model to images in 0 to 1."""
        model: Any = self.model
        return jnp.asarray(model.apply(variables, images), jnp.float32)

    def measure(self, found: Float[Array, "B H W 3"], batch: Batch) -> Sums:
        return self.inspect(found, batch)[0]

    def inspect(self, found: Float[Array, "B H W 3"], batch: Batch) -> tuple[Sums, Any]:
        """Return the sums of the measures of `per_image`, and the measures themselves."""
        values, mask = self.per_image(found, batch), batch["mask"]
        sums = {name: (v * mask).sum() for name, v in values.items()}
        return sums | {"images": mask.sum()}, values

    def per_image(
        self, found: Float[Array, "B H W 3"], batch: Batch
    ) -> dict[str, Float[Array, "B"]]:
        """Compute the measures of each image, the PSNR of its input, and the loss."""
        extent = batch["target_extent"]
        target = batch["target"].astype(jnp.float32)
        measures = qualities(found, target, extent, self.config.quantize)
        values = {f"{name}{self.suffix}": value for name, value in measures.items()}
        values["input_psnr_rgb"] = qualities(scaled(batch, "image"), target, extent)["psnr_rgb"]
        own = inside(extent, target.shape[1:3])
        error = charbonnier(found - target / 255, self.config.eps).mean(axis=-1) * own
        values["loss"] = error.sum(axis=(1, 2)) / own.sum(axis=(1, 2))
        return values

    @functools.cached_property
    def jitted(self) -> Callable[[Any, Any], Any]:
        return jax.jit(self.restored)

    def predict_image(self, variables: Any, pixels: UInt8[np.ndarray, "H W 3"]) -> np.ndarray:
        """Restore one image of any size, in tiles if it is larger than a tile."""
        image = degrade(self.config.degradation, pixels).astype(np.float32) / 255
        if max(image.shape[:2]) <= self.config.tile:
            return np.asarray(self.jitted(variables, image[None]))[0]
        function = functools.partial(self.jitted, variables)
        return tiled(function, image, self.config.tile, self.config.tile_overlap)

    def present(self, found: Float[np.ndarray, "H W 3"], sample: Sample) -> Presentation:
        """Show the images side by side, with PSNR before and after if there is a reference."""
        pixels, reference = sample["image"].whole(), None
        given = degrade(self.config.degradation, pixels)
        if "reference" in sample:
            reference = sample["reference"].whole()
        elif self.config.degradation:
            reference = pixels
        restored = np.rint(255 * np.clip(found, 0, 1)).astype(np.uint8)
        images = [given, restored]
        if reference is None:
            return Presentation(["restored"], {}, beside(images))
        measured = {
            "input": image_qualities(given, reference),
            "restored": image_qualities(restored, reference),
        }
        before, after = measured["input"]["psnr_rgb"], measured["restored"]["psnr_rgb"]
        lines = [f"PSNR {before:.2f} dB → {after:.2f} dB (RGB)"]
        cells = {f"{name}_{k}": v for name, found in measured.items() for k, v in found.items()}
        return Presentation(lines, measured, beside([*images, reference]), cells)


def scaled(batch: Batch, field: str) -> Float[Array, "B H W 3"]:
    """Scale a field's pixels to 0 to 1."""
    return batch[field].astype(jnp.float32) / 255


def charbonnier(error: Float[Array, "*n"], eps: float) -> Float[Array, "*n"]:
    """Compute √(d² + ε²)."""
    return jnp.sqrt(error**2 + eps**2)


def summarize(sums: Sums, rows: Any) -> dict[str, float]:
    """Compute means over images from sums."""
    del rows
    images = float(sums["images"])
    means = {k: float(v) / max(images, 1.0) for k, v in sums.items() if k != "images"}
    return means | {"images": images}


def image_qualities(
    image: UInt8[np.ndarray, "H W 3"], reference: UInt8[np.ndarray, "H W 3"]
) -> dict[str, float]:
    """Compute PSNR and SSIM of one image.

    Raises:
      ValueError: the reference has another size.
    """
    if reference.shape != image.shape:
        raise ValueError(
            f"the reference has {reference.shape[0]}×{reference.shape[1]} pixels, and the "
            f"image {image.shape[0]}×{image.shape[1]}; they must be the same"
        )
    x, y = (jnp.asarray(a[None], jnp.float32) for a in (image, reference))
    found = qualities(x / 255, y, jnp.array([reference.shape[:2]]))
    return {k: float(v[0]) for k, v in found.items()}


def qualities(
    found: Float[Array, "B H W 3"],
    target: Float[Array, "B H W 3"],
    extent: Array,
    quantize: bool = True,
) -> dict[str, Float[Array, "B"]]:
    """Compute PSNR and SSIM, of RGB and of luma, image by image.

    Args:
      found: results in 0 to 1; other values are clipped.
      target: references in 0 to 255.
      extent: rows and columns of each image.
      quantize: round to 8 bits first.
    """
    found = 255 * jnp.clip(found, 0, 1)
    found = jnp.round(found) if quantize else found
    y = luma(found), luma(target)
    return {
        "psnr_rgb": psnr(found, target, extent),
        "psnr_y": psnr(*y, extent),
        "ssim_rgb": ssim(found, target, extent),
        "ssim_y": ssim(*y, extent),
    }


class WithTarget:
    """Source of images whose targets are the images themselves, unless it has targets."""

    def __init__(self, source: Source):
        self.info = source.info._replace(fields=source.info.fields | {"target"})
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> Sample:
        sample = self._source[i]
        return {"target": sample["image"], **sample}

    def example_name(self, i: int) -> str:
        return self._source.example_name(i)


def from_config(config: RestorationRun, info: DataInfo, abstract: bool = False) -> Task:
    """Build the task of a run.

    Raises:
      ValueError: as in `restoration`, or the config sets a normalisation, which is not read: models
        read and return pixels in 0 to 1.
    """
    d = config.data
    if d.channels != 3:
        raise ValueError(
            f"config.data.channels={d.channels}: restoration is for RGB, whose PSNR and SSIM it "
            f"measures; leave it at 3 (gray files are read as RGB), or choose another task."
        )
    if (d.mean, d.std) != ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)):
        raise ValueError(
            "config.data.mean and config.data.std are not read in restoration, whose models see "
            "and give pixels in 0 to 1; leave them out."
        )
    # A plan does not open the data, whose pairs are of the same shapes.
    paired = "target" in info.fields or (abstract and not config.restoration.degradation)
    model = model_from_config(config.model, None, d.image_size)
    check_output(
        config.model["name"], model, "restoration", "image", "a Uformer, such as uformer_t"
    )
    return restoration(
        model,
        image_size=d.image_size,
        paired=paired,
        config=config.restoration,
        load=lambda source: load_weights(config, source, 0),
    )


def _check(paired: bool, config: RestorationConfig) -> None:
    """Check that the values of the section fit each other and the data.

    Raises:
      ValueError: a value does not fit.
    """
    degradation, eval_size = config.degradation, config.eval_size
    eps, tile, overlap = config.eps, config.tile, config.tile_overlap
    parse_degradations(degradation)
    if paired == bool(degradation):
        raise ValueError(
            f"The data has pairs of images, and {SECTION}.degradation={degradation!r} would spoil "
            f"them again; leave it empty."
            if paired
            else f"The data has images without targets: say how they are spoilt, as in "
            f"{SECTION}.degradation='noise(sigma=25)', or give pairs: --config.data.train=pairs://…"
        )
    if eval_size and (len(eval_size) != 2 or min(eval_size) < 1):
        raise ValueError(
            f"{SECTION}.eval_size={eval_size} must be empty, or rows and columns such as "
            f"(256, 256)."
        )
    if eps <= 0 or tile < 128 or tile % 128 or not 0 <= overlap < tile:
        raise ValueError(
            f"{SECTION}.eps={eps:g} must be above 0, {SECTION}.tile={tile} a multiple of 128, and "
            f"{SECTION}.tile_overlap={overlap} at least 0 and below the tile."
        )


def _check_mixup(mixup: float, start: int) -> None:
    """Check the options of mixup.

    Raises:
      ValueError: a value is negative, or the start is set without mixup.
    """
    if mixup < 0 or start < 0:
        raise ValueError(
            f"{SECTION}.mixup={mixup:g} and {SECTION}.mixup_start={start} must be 0 or more; "
            f"Uformer's mixup is 1.2."
        )
    if start and not mixup:
        raise ValueError(
            f"{SECTION}.mixup_start={start} is not read without {SECTION}.mixup; set it, to 1.2 "
            f"say, or leave mixup_start out."
        )
