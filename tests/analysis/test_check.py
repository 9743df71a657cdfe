"""The check: a model that looks at one corner, for which the right map is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.analysis.check import check_methods, edge_map, rank_correlation


class Corner(nn.Module):
    """Two classes, by the sum of the 2×2 pixels at the top left."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        scale = self.param("scale", nn.initializers.normal(), (1,))
        corner = images[:, :2, :2].sum(axis=(1, 2, 3)) * scale[0]
        return jnp.stack([corner, -corner], axis=-1)


def map_of(model: nn.Module, variables: object, images: jax.Array) -> np.ndarray:
    """The right map, above noise that follows the weights."""
    scale = variables["params"]["scale"][0]  # type: ignore[index]
    noise = np.asarray(jax.random.uniform(jax.random.key(int(1e3 * abs(scale))), images.shape[:3]))
    return noise + 2 * (np.indices((8, 8)) < 2).all(axis=0)


def wrong(model: nn.Module, variables: object, images: jax.Array) -> np.ndarray:
    """The opposite, whatever the weights."""
    return np.broadcast_to(np.indices((8, 8)).sum(axis=0), images.shape[:3]).astype(np.float32)


def test_methods_are_ranked_by_what_they_are_worth() -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((24, 8, 8, 3)).astype(np.float32)
    images[:, :2, :2] += np.where(np.arange(24) % 2, 1.0, -1.0)[:, None, None, None]
    variables = {"params": {"scale": jnp.ones(1)}}
    found = check_methods({"right": map_of, "wrong": wrong}, Corner(), variables, images)
    right, bad, random, edges = found
    assert [w.name for w in found] == ["right", "wrong", "random map", "edge detector"]
    assert [w.beats_random for w in found] == [True, False, False, False]
    # All four pixels are gone, or back, after the first of 16 steps: 0.5 there, about 1 before.
    assert right.deletion.mean == pytest.approx((0.75 + 15 * 0.5) / 16, abs=0.01)
    assert right.insertion.mean == pytest.approx((0.75 + 15) / 16, abs=0.01)
    assert right.deletion_curve[0] == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(right.deletion_curve[1:], 0.5, atol=1e-6)
    assert bad.deletion.mean > 0.9 and bad.insertion.mean < 0.6
    assert right.deletion.mean < random.deletion.low
    for worth in found:
        assert worth.deletion.low <= worth.deletion.mean <= worth.deletion.high
    assert random.random_weights is None
    assert bad.random_weights is not None and edges.random_weights is not None
    assert bad.random_weights.mean == pytest.approx(1) == edges.random_weights.mean
    assert right.random_weights is not None and right.random_weights.mean < 0.5
    with pytest.raises(ValueError, match="at least 2"):
        check_methods({}, Corner(), variables, images[:1])


def test_rank_correlation_by_hand() -> None:
    a = np.array([[[1.0, 2], [3, 4]], [[1, 1], [2, 2]], [[5, 5], [5, 5]]])
    b = np.array([[[10.0, 20], [40, 30]], [[3, 3], [9, 9]], [[1, 2], [3, 4]]])
    # d² = 0 + 0 + 1 + 1: 1 - 6·2 / (4·15); equal ties; a constant map says nothing.
    np.testing.assert_allclose(rank_correlation(a, b), [0.8, 1, 0])


def test_edges_are_where_brightness_changes() -> None:
    image = np.zeros((1, 4, 5, 3), np.float32)
    image[:, :, 3:] = 1
    np.testing.assert_allclose(edge_map(image)[0], np.tile([0, 0, 0.5, 0.5, 0], (4, 1)))
