"""Findings of `vitjax eval` by class, for images and for pixels."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.task import Batch, Findings


def most_probable(
    logits: Float[Array, "B K"], shares: Float[Array, "B K"], batch: Batch, count: int
) -> dict[str, Array]:
    """Select the most probable classes of each image, in order, and return them with its label.

    Args:
      logits: scores that rank the classes.
      shares: probabilities of the classes.
      batch: its labels are classes `[B]`, or a weight for each class.
      count: number of classes per image, or all if there are fewer.
    """
    label = batch["label"]
    top = jax.lax.top_k(logits, min(count, logits.shape[1]))[1]
    return {
        "label": label if label.ndim == 1 else label > 0,
        "top": top,
        "share": jnp.take_along_axis(shares, top, axis=1),
    }


def class_findings(rows: Any, names: tuple[str, ...]) -> Findings:
    """Compute the findings of image classification, by sample and by class.

    An image of several classes is correct if the most probable class is one of them. It counts for
    each of its classes; there is then no confusion matrix.

    Args:
      rows: rows of `most_probable`; None without any image.
      names: names of the classes.
    """
    if rows is None:
        return Findings()
    label, top, share = (np.asarray(rows[k]) for k in ("label", "top", "share"))
    first, count = top[:, 0], len(names)
    several = label.ndim == 2
    if several:
        correct = label[np.arange(len(first)), first]
        labels = ["|".join(names[k] for k in np.flatnonzero(row)) for row in label]
        images, right = label.sum(axis=0), (label & correct[:, None]).sum(axis=0)
    else:
        correct, labels = label == first, [names[k] for k in label]
        images, right = (np.bincount(x, minlength=count) for x in (label, label[correct]))
    predicted = np.bincount(first, minlength=count)
    samples: dict[str, Any] = {"label": labels, "correct": correct, "confidence": share[:, 0]}
    for place in range(top.shape[1]):
        samples[f"class_{place + 1}"] = [names[k] for k in top[:, place]]
        samples[f"share_{place + 1}"] = share[:, place]
    classes = {
        "class": names,
        "images": images,
        "predicted": predicted,
        "accuracy": ratio(right, images),
        "precision": ratio(np.bincount(first[correct], minlength=count), predicted),
    }
    return Findings(samples, classes, None if several else confusion(label, first, count))


def confusion(truth: np.ndarray, found: np.ndarray, count: int) -> np.ndarray:
    """Count the samples of each true class (row) and predicted class (column)."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(truth, found, labels=np.arange(count))


def pixel_findings(sums: Mapping[str, Any], names: tuple[str, ...]) -> Findings:
    """Compute the findings of pixels by class: intersection over union, and accuracy.

    Args:
      sums: with `confusion` `[K, K]`, labels' classes along the first axis.
      names: names of the classes.
    """
    matrix = np.rint(np.asarray(sums["confusion"], np.float64)).astype(np.int64)
    both, labelled, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    classes = {
        "class": names,
        "pixels": labelled,
        "predicted": predicted,
        "iou": ratio(both, labelled + predicted - both),
        "accuracy": ratio(both, labelled),
    }
    return Findings(classes=classes, confusion=matrix, counted="pixels")


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide counts; NaN where the divisor is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
