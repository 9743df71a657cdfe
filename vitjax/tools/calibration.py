"""Calibration of a classifier: difference of confidence and accuracy."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

BINS = 15
"""As in arXiv:1706.04599, section 5."""


def calibration(
    confidence: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = BINS
) -> tuple[float, dict[str, Any]]:
    """Compute the expected calibration error (Guo et al., arXiv:1706.04599, eq. 3).

    ECE = Σ_b n_b / N · |accuracy_b - confidence_b|, over bins of equal width: bin b holds the
    images whose confidence is above b / bins and at most (b + 1) / bins, the first also 0.

    Args:
      confidence: probability of the most probable class, 0 to 1.
      correct: whether it is right.
      bins: how many.

    Returns:
      ECE, and columns with a value for each bin: `lower`, `upper`, `images`, and the means
      `confidence` and `accuracy`, NaN in an empty bin.

    Raises:
      ValueError: there is no image or no bin.
    """
    if bins < 1 or not len(confidence):
        raise ValueError(f"Calibration needs a bin and an image; got {bins} and {len(confidence)}.")
    values = np.asarray(confidence, np.float64)
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, x, minlength=bins) for x in (values, correct))
    trust, accuracy = (
        np.divide(x, images, out=np.full(bins, np.nan), where=images > 0) for x in sums
    )
    error = np.nansum(images * np.abs(accuracy - trust)) / len(values)
    columns = {"lower": edges[:-1], "upper": edges[1:], "images": images}
    return float(error), {**columns, "confidence": trust, "accuracy": accuracy}
