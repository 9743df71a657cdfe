"""Intervals of fitted laws by resampling cells, and errors on cells that a fit has not seen.

Runs with the same inputs and other seeds are one cell. A resample draws cells with replacement,
each with all of its seeds: of nested levels the upper one is resampled, and the lower one kept
(Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). So misfit of the
law widens the intervals as noise of the seeds does. To draw seeds within cells too counts their
noise twice: such intervals covered 99 to 100 % where 95 % were asked for.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from vitjax.scaling.fit import Fit, fit, predict, refit
from vitjax.scaling.laws import Law

LEVEL = 0.95


class Intervals(NamedTuple):
    """Spread of a fitted law.

    Attributes:
      thetas: internal parameters of each resample.
      draws: natural parameters of each resample.
    """

    found: Fit
    thetas: Float64[np.ndarray, "R p"]
    draws: Float64[np.ndarray, "R p"]

    def bounds(self, level: float = LEVEL) -> Float64[np.ndarray, "p 2"]:
        """Compute the lower and upper bound of each natural parameter."""
        return quantiles(self.draws, level)

    def covariance(self) -> Float64[np.ndarray, "p p"]:
        """Compute the covariance of the natural parameters."""
        return np.cov(self.draws, rowvar=False)

    def predict(
        self, x: Float[np.ndarray, "M k"], level: float = LEVEL
    ) -> Float64[np.ndarray, "M 2"]:
        """Compute the bounds of the law at inputs: of its mean, without the noise of a run."""
        found = predict(self.found.law, self.thetas, self.found.centre, x)
        return quantiles(found, level)


def quantiles(draws: Float[np.ndarray, "R p"], level: float) -> Float64[np.ndarray, "p 2"]:
    """Compute the bounds between which a share `level` of the draws lies, as many on each side."""
    outside = (1 - level) / 2
    return np.quantile(draws, [outside, 1 - outside], axis=0).T


def intervals(
    found: Fit,
    x: Float[np.ndarray, "M k"],
    loss: Float[np.ndarray, "M"],
    group: Int[np.ndarray, "M"],
    resamples: int = 500,
    seed: int = 0,
) -> Intervals:
    """Fit a law to resampled cells.

    Args:
      found: fit to all points.
      x, loss: the points.
      group: number of the cell of each point, from 0.
    """
    weights = resample(group, resamples, np.random.default_rng(seed))
    thetas = refit(found, x, np.broadcast_to(loss, weights.shape), weights)
    return Intervals(found, thetas, found.law.natural(thetas, found.centre))


def resample(
    group: Int[np.ndarray, "M"], count: int, rng: np.random.Generator
) -> Float64[np.ndarray, "R M"]:
    """Draw how often each point is in each resample: whole cells, with replacement."""
    number = np.unique(group, return_inverse=True)[1]
    cells = number.max() + 1
    drawn = rng.integers(cells, size=(count, cells))
    times = np.array([np.bincount(row, minlength=cells) for row in drawn], float)
    return times[:, number]


class HeldOut(NamedTuple):
    """Errors of a fit on the largest cells, which it has not seen.

    Attributes:
      points: which points were held out.
      predicted: their losses.
      error: mean of |log(predicted / measured)|, a relative error.
    """

    points: Int[np.ndarray, "H"]
    predicted: Float64[np.ndarray, "H"]
    error: float


def held_out(
    law: Law,
    x: Float[np.ndarray, "M k"],
    loss: Float[np.ndarray, "M"],
    group: Int[np.ndarray, "M"],
    flops: Float[np.ndarray, "M"],
    share: float = 0.1,
) -> HeldOut | None:
    """Fit a law without the cells of most compute, and compare it with them.

    Args:
      share: of the cells, rounded up.

    Returns:
      None if the other cells are too few for a fit.
    """
    cells, first = np.unique(group, return_index=True)
    count = -(-len(cells) * share // 1)
    largest = cells[np.argsort(flops[first], kind="stable")][-int(count) :]
    out = np.isin(group, largest)
    if len(np.unique(x[~out], axis=0)) <= len(law.names):
        return None
    predicted = fit(law, x[~out], loss[~out]).predict(x[out])
    error = np.mean(np.abs(np.log(predicted / loss[out])))
    return HeldOut(np.flatnonzero(out), predicted, float(error))
