"""Choice of the largest against `jax.lax.top_k`, and samples against their frequencies."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.detection.choice import BLOCK, largest, top_k
from vitjax.detection.matching import sample


@pytest.mark.parametrize(("n", "count"), [(7, 3), (7, 7), (7, 11), (2 * BLOCK + 7, BLOCK - 1)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_largest_are_those_of_a_sort(n: int, count: int, dtype: Any) -> None:
    """Normal values, ties, infinities, zeros of both signs, and numbers that are none."""
    rng = np.random.default_rng(0)
    normal, ties = rng.standard_normal(n), rng.integers(-2, 3, n)
    odd = rng.choice([-np.inf, np.inf, -0.0, 0.0, np.nan, 1e-30, 1.0], n)
    low = np.where(rng.random(n) < 0.9, -np.inf, normal)  # fewer than are asked for are finite
    x = jnp.asarray(np.stack([normal, ties, odd, low, np.zeros(n)]), dtype)
    values, index = jax.jit(jax.vmap(partial(top_k, count=count)))(x)
    wanted = jax.lax.top_k(x, min(count, n))
    np.testing.assert_array_equal(index, wanted[1])
    np.testing.assert_array_equal(values.astype(jnp.float32), wanted[0].astype(jnp.float32))


def test_of_few_all_are_chosen_and_of_none_none() -> None:
    keys = jnp.array([5, 0, 5, 2**32 - 1, 5], jnp.uint32)
    choose = jax.jit(largest)
    for count, chosen in ((0, []), (1, [3]), (2, [0, 3]), (4, [0, 2, 3, 4]), (9, range(5))):
        np.testing.assert_array_equal(np.flatnonzero(choose(keys, count)), chosen)


def test_samples_are_exact_in_number_and_uniform() -> None:
    """Of 3 images with 5003 keys; each candidate as often as another, by chi-square."""
    rng = np.random.default_rng(0)
    draws, count, total = 5003, 11, 31
    matched = jnp.asarray(rng.integers(-2, 3, (3, total)).clip(max=0))
    keys = jax.random.split(jax.random.key(0), (3, draws))

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0))
    def draw(matched: Any, keys: Any) -> Any:
        return jax.vmap(lambda key: sample(matched, count, 0.4, key))(keys)

    found = draw(matched, keys)
    for mask, of, number in ((found.positive, matched >= 0, 4), (found.negative, matched == -1, 7)):
        for drawn, candidates in zip(np.asarray(mask), np.asarray(of), strict=True):
            some = candidates.sum()
            assert not drawn[:, ~candidates].any()
            assert (drawn.sum(axis=1) == min(number, some)).all()
            mean = draws * min(number, some) / some
            chi = ((drawn.sum(axis=0)[candidates] - mean) ** 2).sum() / mean
            assert chi < some + 4 * np.sqrt(2 * some)
