"""Fits recover the law that points were made of; intervals cover it; parabolas do not find it."""

import numpy as np
import pytest

from vitjax.scaling.fit import fit, refit
from vitjax.scaling.intervals import held_out, intervals, resample
from vitjax.scaling.isoflop import exponent, frontier, optimal_size, parabolas
from vitjax.scaling.laws import COMPUTE, SIZE_AND_DATA

pytestmark = pytest.mark.usefixtures("optimized")  # thousands of fits, and a few programs
PUBLISHED = {"E": 1.817, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
"""The fit of Hoffmann et al.'s runs as corrected by Besiroglu et al., arXiv:2404.10102."""


def chinchilla(x: np.ndarray) -> np.ndarray:
    p = PUBLISHED
    return p["E"] + p["A"] / x[:, 0] ** p["alpha"] + p["B"] / x[:, 1] ** p["beta"]


def grid(n: int, d: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, D) of n sizes and d numbers of samples, and the number of each point's cell."""
    sizes, data = np.geomspace(4e7, 1.6e10, n), np.geomspace(4e8, 2e11, d)
    x = np.stack([a.ravel() for a in np.meshgrid(sizes, data, indexing="ij")], axis=1)
    return np.repeat(x, seeds, axis=0), np.repeat(np.arange(n * d), seeds)


@pytest.fixture(scope="module")
def runs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, group = grid(4, 4, 3)
    noise = np.random.default_rng(0).normal(size=len(x))
    return x, chinchilla(x) * np.exp(0.005 * noise), group


@pytest.mark.slow
def test_the_published_law_is_recovered(runs) -> None:
    x = runs[0]
    found = fit(SIZE_AND_DATA, x, chinchilla(x))
    assert len(found.objectives) == 2500 and found.converged > 0.5
    for name, value in PUBLISHED.items():
        assert found.parameters[name] == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(found.predict(x[:5]), chinchilla(x[:5]), rtol=1e-6)


@pytest.mark.slow
def test_an_outlier_hardly_moves_the_fit(runs) -> None:
    x = runs[0]
    loss = chinchilla(x)
    loss[24] *= 1.5
    found = fit(SIZE_AND_DATA, x, loss).parameters
    for name, value in PUBLISHED.items():
        assert found[name] == pytest.approx(value, rel=0.01)


def test_the_saturating_law_is_recovered() -> None:
    c = np.geomspace(1e9, 1e14, 12)
    truth = {"c": 0.3, "a": 120.0, "b": 0.25, "d": 2e9}
    loss = truth["a"] * (c + truth["d"]) ** -truth["b"] + truth["c"]
    found = fit(COMPUTE, c[:, None], loss)
    for name, value in truth.items():
        assert found.parameters[name] == pytest.approx(value, rel=0.01)


@pytest.mark.slow
def test_a_resample_of_all_points_is_the_fit(runs) -> None:
    x, loss, _ = runs
    found = fit(SIZE_AND_DATA, x, loss)
    again = refit(found, x, loss[None], np.ones((1, len(x))))
    np.testing.assert_allclose(again[0], found.theta, rtol=1e-5)
    # A point of weight 0 might have any loss, and one of weight 2 counts as two that agree.
    weights = np.ones((2, len(x)))
    weights[0, 7], weights[1, :3] = 0, (2, 1, 0)
    other = np.tile(loss, (2, 1))
    other[0, 7] = 100.0
    left_out, doubled = refit(found, x, other, weights)
    other[1, 2], other[0, 7] = loss[0], loss[7]
    again = refit(found, x, other, np.where([[True], [False]], weights, 1.0))
    np.testing.assert_allclose(again, [left_out, doubled], rtol=1e-4)


def test_cells_are_resampled_with_all_their_seeds() -> None:
    group = np.array([4, 4, 1, 2, 2, 2])
    drawn = resample(group, 200, np.random.default_rng(0))
    assert (drawn[:, 0] == drawn[:, 1]).all() and (drawn[:, 3] == drawn[:, 5]).all()
    times = drawn[:, [0, 2, 3]]
    assert (times.sum(axis=1) == 3).all() and {0, 1, 2, 3} <= set(times.ravel())
    np.testing.assert_allclose(times.mean(axis=0), 1, atol=0.2)


@pytest.mark.slow
def test_intervals_cover_the_truth(runs) -> None:
    # benchmarks/scaling_coverage.py has 500 draws; 60 tell 95 % from 88 % and from all of them.
    x, loss, group = runs
    first, held = fit(SIZE_AND_DATA, x, loss), np.zeros(5)
    rng, truth = np.random.default_rng(1), np.array(list(PUBLISHED.values()))
    for draw in range(60):
        loss = chinchilla(x) * np.exp(0.005 * rng.normal(size=len(x)))
        theta = refit(first, x, loss[None], np.ones((1, len(x))))[0]
        found = intervals(first._replace(theta=theta), x, loss, group, 100, seed=draw)
        bounds = found.bounds()
        held += (bounds[:, 0] <= truth) & (truth <= bounds[:, 1])
    assert 0.91 < held.mean() / 60 < 0.985
    covariance = found.covariance()
    np.testing.assert_allclose(np.diag(covariance), found.draws.var(axis=0, ddof=1))
    low, high = found.predict(x[:1])[0]
    assert low < chinchilla(x[:1])[0] < high


@pytest.mark.slow
def test_the_largest_cells_are_held_out(runs) -> None:
    x, loss, group = runs
    flops = 6 * x[:, 0] * x[:, 1]
    out = held_out(SIZE_AND_DATA, x, loss, group, flops)
    assert out is not None
    assert set(out.points) == set(np.argsort(flops)[-6:])  # a tenth of 16 cells is 2, of 3 seeds
    assert out.error < 0.02
    few = group < 6
    assert held_out(SIZE_AND_DATA, x[few], loss[few], group[few], flops[few]) is None


def test_parabolas_are_biased_and_the_law_is_not() -> None:
    sizes = np.geomspace(1e8, 1e11, 9)
    n, flops, loss = [], [], []
    for c in (1e19, 1e20, 1e21, 1e22):  # sizes that are not centred on the best
        tried = sizes * (c / 1e19) ** 0.5
        points = np.stack([tried, c / (6 * tried)], axis=1)
        n, flops, loss = [*n, *tried], [*flops, *([c] * 9)], [*loss, *chinchilla(points)]
    found = parabolas(*map(np.array, (n, flops, loss)))
    best, _ = optimal_size(PUBLISHED, np.array([p.flops for p in found]), 6.0)
    assert len(found) == 4 and all(p.inside for p in found)
    assert max(abs(np.log([p.size for p in found] / best))) > 0.1
    assert exponent(found) is not None and exponent(found[:1]) is None


def test_the_optimal_size_is_the_least_loss() -> None:
    n, d = optimal_size(PUBLISHED, np.array([1e21]), 6.0)
    assert 6 * n[0] * d[0] == pytest.approx(1e21)
    around = n[0] * np.exp(np.linspace(-0.1, 0.1, 5))
    loss = chinchilla(np.stack([around, 1e21 / (6 * around)], axis=1))
    assert loss.argmin() == 2


def test_the_frontier_has_what_nothing_cheaper_reaches() -> None:
    flops = np.array([3.0, 1.0, 2.0, 4.0, 4.0])
    loss = np.array([2.0, 3.0, 3.0, 1.5, 1.4])
    assert frontier(flops, loss).tolist() == [1, 0, 4]


def test_too_few_or_wrong_points_are_told() -> None:
    x, _ = grid(2, 2, 5)
    with pytest.raises(ValueError, match="5 parameters, and there are 4 different points"):
        fit(SIZE_AND_DATA, x, chinchilla(x))
    with pytest.raises(ValueError, match="positive"):
        fit(SIZE_AND_DATA, x, chinchilla(x) - 100)
