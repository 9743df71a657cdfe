"""Accuracy of classifiers: over all images, per class, and its mean over the classes."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from vitjax.task import Sums

CLASS_SUMS = ("class_right", "class_images")


def class_sums(
    right: Float[Array, "B"], labels: Float[Array, "B K"], mask: Float[Array, "B"]
) -> Sums:
    """Count all images and the correctly classified ones, by class.

    Args:
      right: 1 where the most probable class is the label's.
      labels: one-hot.
      mask: 1 for an image that counts.
    """
    images = labels * mask[:, None]
    return dict(zip(CLASS_SUMS, (right @ images, images.sum(axis=0))))


def by_class(sums: Sums, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Compute number of images and accuracy of each class; empty if the sums have no classes."""
    right, images = (np.asarray(sums.get(k, ()), np.float64) for k in CLASS_SUMS)
    return {
        name: {"images": float(n), "acc": float(r / n) if n else math.nan}
        for name, n, r in zip(names, images, right)
    }


def summarize(sums: Sums, rows: object = None) -> dict[str, float]:
    """Compute metrics from sums: means over images, and `acc_mean` over the classes that occur."""
    del rows
    images = float(sums["images"])
    means = {
        name: float(value) / max(images, 1.0)
        for name, value in sums.items()
        if name not in ("images", *CLASS_SUMS)
    }
    if "class_images" in sums:
        right, asked = (np.asarray(sums[k], np.float64) for k in CLASS_SUMS)
        there = asked > 0
        means["acc_mean"] = float((right[there] / asked[there]).mean()) if there.any() else 0.0
    return means | {"images": images}
