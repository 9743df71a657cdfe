"""Assignment of objects to queries against scipy's, ties and padding included."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from vitjax.detection.assignment import NONE, assign

assign_all = jax.jit(jax.vmap(assign))


@pytest.mark.parametrize("kind", ["normal", "few values", "near each other"])
def test_sums_of_costs_are_least(kind: str) -> None:
    """Of 1000 matrices of a kind, of which most have several best assignments but the first's."""
    rng = np.random.default_rng(0)
    batch, objects, queries = 1000, 13, 17
    if kind == "normal":
        cost = rng.standard_normal((batch, objects, queries))
    elif kind == "few values":
        cost = rng.integers(-2, 3, (batch, objects, queries))
    else:  # objects that want the same queries: long paths
        cost = rng.integers(0, 99, (batch, 1, queries)) + rng.integers(0, 3, (batch, objects, 1))
    cost = cost.astype(np.float32)
    wanted = np.arange(objects) < rng.integers(0, objects + 1, batch)[:, None]
    wanted = rng.permuted(wanted, axis=1)
    found = np.asarray(assign_all(cost, wanted))
    assert (found[~wanted] == NONE).all() and wanted.sum() > 5 * batch
    for own, some, query_of in zip(cost, wanted, found, strict=True):
        rows, columns = linear_sum_assignment(own[some])
        ours = query_of[some]
        assert len(set(ours)) == len(rows) and (ours >= 0).all()
        least = own[some][rows, columns].astype(np.float64).sum()
        total = own[some][rows, ours].astype(np.float64).sum()
        assert total == least if kind != "normal" else (ours == columns).all()


def test_costs_that_are_no_numbers_end_too() -> None:
    """A diverged model's: what is left is assigned, and every object has a query."""
    cost = np.full((2, 13, 17), np.nan, np.float32)
    cost[1, 0] = np.inf
    cost[1, 1:, 5] = -1
    found = np.asarray(assign_all(cost, np.ones((2, 13), bool)))
    assert all(len(set(row)) == 13 and (row >= 0).all() for row in found)
    assert (found[1, 1:] == 5).sum() == 1


def test_more_objects_than_queries_are_refused() -> None:
    with pytest.raises(ValueError, match=r"room for 7 objects of an image, and the model finds 5"):
        jax.eval_shape(assign, np.zeros((7, 5), np.float32), np.ones(7, bool))
