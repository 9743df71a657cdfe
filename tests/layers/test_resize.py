"""Bilinear resizing against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.layers.resize import bilinear_weights, resize


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(7, 5), (28, 20), (14, 13), (3, 11), (1, 1), (7, 15)])
def test_it_is_bilinear(size: tuple[int, int], align_corners: bool) -> None:
    """Each pixel by hand: a mixture of the four around its centre, the border repeated."""
    x = np.random.default_rng(0).standard_normal((2, 7, 5, 3)).astype(np.float32)
    found = resize(jnp.asarray(x), size, align_corners)
    for i in range(size[0]):
        for j in range(size[1]):
            at = []
            for k, n, m in ((i, 7, size[0]), (j, 5, size[1])):
                centre = (k + 0.5) * n / m - 0.5
                if align_corners:
                    centre = k * (n - 1) / (m - 1) if m > 1 else 0
                at.append(min(max(centre, 0), n - 1))
            (y, v), (z, w) = ((int(c), c - int(c)) for c in at)
            y2, z2 = min(y + 1, 6), min(z + 1, 4)
            top = (1 - w) * x[:, y, z] + w * x[:, y, z2]
            bottom = (1 - w) * x[:, y2, z] + w * x[:, y2, z2]
            np.testing.assert_allclose(found[:, i, j], (1 - v) * top + v * bottom, atol=1e-6)


def test_weights_sum_to_one_and_gradients_come_back() -> None:
    for n, m in ((5, 15), (5, 7), (7, 5)):
        weights = bilinear_weights(n, m)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
        gradient = jax.grad(lambda x, m=m: resize(x, (m, 1)).sum())(jnp.ones((1, n, 1, 1)))
        np.testing.assert_allclose(gradient[0, :, 0, 0], weights.sum(axis=0), rtol=1e-5)
