"""Losses of detection, element by element: focal, smooth L1, of overlaps, dice."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.detection import boxes as box

EPS = 1e-7
"""In the denominators of losses of overlaps."""
Values = Float[Array, "*N"]


def binary_cross_entropy(logits: Values, targets: Values) -> Values:
    """Compute -t log σ(x) - (1 - t) log(1 - σ(x)); targets may be shares."""
    return jax.nn.softplus(logits) - targets * logits


def sigmoid_focal_loss(
    logits: Values, targets: Values, alpha: float = 0.25, gamma: float = 2.0
) -> Values:
    """Compute the focal loss (arXiv:1708.02002, eq. 5): α_t (1 - p_t)^γ · cross-entropy.

    Args:
      alpha: weight of positives, 1 - α of negatives; negative for no such weights.
    """
    p = jax.nn.sigmoid(logits)
    miss = p + targets - 2 * p * targets  # 1 - p_t
    loss = binary_cross_entropy(logits, targets) * miss**gamma
    return loss if alpha < 0 else loss * (alpha * targets + (1 - alpha) * (1 - targets))


def smooth_l1(found: Values, wanted: Values, beta: float = 1.0) -> Values:
    """Compute |d| - β/2, and d² / 2β where |d| < β (Fast R-CNN, arXiv:1504.08083, eq. 3).

    Args:
      beta: 0 for |d| everywhere.
    """
    d = jnp.abs(found - wanted)
    return jnp.where(d < beta, 0.5 * d * d / beta, d - 0.5 * beta) if beta else d


def giou_loss(a: box.Boxes, b: box.Boxes) -> Values:
    """Compute 1 - GIoU of pairs of boxes."""
    return 1 - box.giou(a, b, EPS)


def diou_loss(a: box.Boxes, b: box.Boxes) -> Values:
    """Compute 1 - DIoU of pairs of boxes."""
    return 1 - box.diou(a, b, EPS)


def ciou_loss(a: box.Boxes, b: box.Boxes) -> Values:
    """Compute 1 - CIoU of pairs of boxes."""
    return 1 - box.ciou(a, b, EPS)


def dice_loss(logits: Float[Array, "*N m"], targets: Float[Array, "*N m"]) -> Values:
    """Compute 1 - (2 Σ p t + 1) / (Σ p + Σ t + 1) of masks (V-Net, arXiv:1606.04797, section 3).

    Sums in the denominator are not of squares, and one is added on both sides, as in DETR's code.
    """
    p = jax.nn.sigmoid(logits)
    shared = 2 * (p * targets).sum(axis=-1)
    return 1 - (shared + 1) / (p.sum(axis=-1) + targets.sum(axis=-1) + 1)
