"""Pooling against the mean over the neighbours that exist."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.pooling import Pooling, pooling


@pytest.mark.slow
@pytest.mark.parametrize("size", [(5, 7), (1, 3), (2, 2)])
def test_it_is_the_mean_of_the_neighbours_inside_minus_x(size: tuple[int, int]) -> None:
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    out = pooling(x, pool_size=3)
    for i, j in np.ndindex(*size):
        near = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean((1, 2))
        np.testing.assert_allclose(out[:, i, j], near - x[:, i, j], atol=1e-6)
    grad = jax.grad(lambda x: jnp.sum(pooling(x, pool_size=3) ** 2))(x)
    assert np.isfinite(grad).all()


def test_the_module_has_no_parameters() -> None:
    x = jnp.ones((1, 4, 4, 2))
    variables = Pooling().init(jax.random.key(0), x)
    assert not variables
    np.testing.assert_allclose(Pooling().apply(variables, x), 0, atol=1e-6)  # a constant stays
