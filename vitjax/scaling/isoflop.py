"""IsoFLOP parabolas: the best size for a compute, from runs of about that compute.

The second approach of Hoffmann et al. (arXiv:2203.15556, section 3.2), for comparison. It is
biased: the loss at fixed compute is no parabola in log N unless both exponents are equal, so that
the minimum of a fitted one moves with the sizes that were tried, and its exponent with it, without
any noise.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

WARNING = (
    "IsoFLOP parabolas are biased: loss at fixed compute is not symmetric in log N, and where the "
    "minimum of a parabola lies depends on which sizes were tried. Trust the fit of L(N, D)."
)


class Parabola(NamedTuple):
    """Parabola through the runs of a compute.

    Attributes:
      flops: geometric mean of the runs' compute.
      size: N at the minimum; `loss`: there.
      inside: whether the minimum lies between the smallest and the largest N.
    """

    flops: float
    size: float
    loss: float
    inside: bool


def parabolas(
    n: Float[np.ndarray, "M"],
    flops: Float[np.ndarray, "M"],
    loss: Float[np.ndarray, "M"],
    width: float = 0.3,
) -> list[Parabola]:
    """Fit log loss = p + q log N + r (log N)² to the runs in each bin of compute.

    Args:
      width: of a bin, in powers of ten. Bins with fewer than three sizes, or whose parabola has no
        minimum, are left out.
    """
    bins = np.floor(np.log10(flops) / width)
    found = []
    for number in np.unique(bins):
        at = bins == number
        if len(np.unique(n[at])) < 3:
            continue
        x = np.log(n[at])
        r, q, p = np.polyfit(x - x.mean(), np.log(loss[at]), 2)
        if r <= 0:
            continue
        best = -q / (2 * r)
        size = best + x.mean()
        found.append(
            Parabola(
                float(np.exp(np.log(flops[at]).mean())),
                float(np.exp(size)),
                float(np.exp(p + q * best + r * best**2)),
                bool(x.min() <= size <= x.max()),
            )
        )
    return found


def exponent(found: list[Parabola]) -> float | None:
    """Fit N ∝ C^a to minima that lie inside; None for fewer than two."""
    inside = [p for p in found if p.inside]
    if len(inside) < 2:
        return None
    slope, _ = np.polyfit(np.log([p.flops for p in inside]), np.log([p.size for p in inside]), 1)
    return float(slope)


def frontier(flops: Float[np.ndarray, "M"], loss: Float[np.ndarray, "M"]) -> Int[np.ndarray, "F"]:
    """Select the runs that no run of less or the same compute matches, by compute."""
    order = np.lexsort((loss, flops))
    best = np.minimum.accumulate(loss[order])
    first = np.concatenate([[True], loss[order][1:] < best[:-1]])
    return order[first]


def optimal_size(
    parameters: dict[str, float], flops: Float[np.ndarray, "M"], per_sample: float
) -> tuple[Float64[np.ndarray, "M"], Float64[np.ndarray, "M"]]:
    """Compute N and D that L(N, D) gives the least loss for, with C = `per_sample` · N · D.

    The closed form of Hoffmann et al., eq. 4.
    """
    p = parameters
    alpha, beta = p["alpha"], p["beta"]
    g = (alpha * p["A"] / (beta * p["B"])) ** (1 / (alpha + beta))
    product = flops / per_sample
    n = g * product ** (beta / (alpha + beta))
    return n, product / n
