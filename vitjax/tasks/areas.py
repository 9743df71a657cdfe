"""Pixel counts of classes in maps, computed on the devices, and the metrics of their sums."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vitjax.task import Sums


def areas(
    logits: Float[Array, "B R W K"],
    truth: Int[Array, "B R W"],
    known: Bool[Array, "B R W"],
    confused: bool = False,
) -> Sums:
    """Count labelled, predicted and correct pixels of each class, and sum their loss.

    Args:
      confused: also count each pair of a labelled and a predicted class.
    """
    found, kept, num = logits.argmax(axis=-1), known.astype(jnp.int32)[..., None], logits.shape[-1]
    one, other = (jax.nn.one_hot(x, num, dtype=jnp.int32) for x in (truth, found))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, truth, 0))
    sums = {
        "both": (one * other * kept).sum(axis=(0, 1, 2)),
        "labelled": (one * kept).sum(axis=(0, 1, 2)),
        "predicted": (other * kept).sum(axis=(0, 1, 2)),
        "loss": (loss * known).sum(),
    }
    if confused:  # float32 is exact to 2^24, and faster: these rows have fewer pixels
        pair = ((one * kept).astype(jnp.float32), other.astype(jnp.float32))
        counts = jnp.einsum("bhwi,bhwj->ij", *pair, precision="highest")
        sums["confusion"] = counts.astype(jnp.int32)
    return sums


def pixel_weights(
    labels: Int[Array, "B H W"], num_classes: int, class_weights: tuple[float, ...] = ()
) -> Float[Array, "B H W"]:
    """Compute the weight of each pixel: that of its class, or 0 where it has no label."""
    known = labels < num_classes
    if not class_weights:
        return known.astype(jnp.float32)
    return jnp.asarray(class_weights)[jnp.where(known, labels, 0)] * known


def summarize(sums: Sums, rows: Any = None) -> dict[str, float]:
    """Compute metrics from summed areas, as ADE20K and Cityscapes report them.

    `miou` is intersection over union, averaged over the classes that occur in labels or
    predictions; `acc` is the share of correct pixels; `acc_mean` is the accuracy of a class,
    averaged over the labelled classes.
    """
    del rows
    both, labelled, predicted = _areas(sums)
    union, pixels = labelled + predicted - both, max(float(labelled.sum()), 1.0)
    there, asked = union > 0, labelled > 0
    return {
        "loss": float(sums["loss"]) / pixels,
        "miou": float((both[there] / union[there]).mean()) if there.any() else 0.0,
        "acc": float(both.sum()) / pixels,
        "acc_mean": float((both[asked] / labelled[asked]).mean()) if asked.any() else 0.0,
        "images": float(sums["images"]),
    }


def by_class(sums: Sums, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Compute labelled pixels, intersection over union and accuracy of each class."""
    both, labelled, predicted = _areas(sums)
    union = labelled + predicted - both

    def share(part: float, whole: float) -> float:
        return float(part / whole) if whole else math.nan

    return {
        name: {"pixels": float(n), "iou": share(b, u), "acc": share(b, n)}
        for name, b, n, u in zip(names, both, labelled, union)
    }


def _areas(sums: Sums) -> list[np.ndarray]:
    return [np.asarray(sums[k], np.float64) for k in ("both", "labelled", "predicted")]
