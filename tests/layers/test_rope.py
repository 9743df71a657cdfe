"""Rotary positions: angles and turns by hand, relative products, draws within their bounds."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from tests.drawn import variables_of
from vitjax.attention.full import FullAttention
from vitjax.layers.rope import Rope, patch_centers, rope_angles, rotate


def test_angles_of_a_map_of_two_rows() -> None:
    points = patch_centers(2, 1)
    np.testing.assert_allclose(points, [[-0.5, 0.0], [0.5, 0.0]])
    # Frequencies 1 and 100^(-1/2), first of y, then of x.
    expected = [[-math.pi, -0.1 * math.pi, 0, 0], [math.pi, 0.1 * math.pi, 0, 0]]
    np.testing.assert_allclose(rope_angles(points, 8), expected, atol=1e-6)


def test_a_quarter_turn() -> None:
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    turned = rotate(x, jnp.array([[math.pi / 2, 0.0]]))
    np.testing.assert_allclose(turned.ravel(), [-3.0, 2.0, 1.0, 4.0], atol=1e-6)
    half = rotate(x.astype(jnp.bfloat16), jnp.array([[math.pi / 2, 0.0]]))
    assert half.dtype == jnp.bfloat16


def test_products_depend_on_the_difference_of_positions() -> None:
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, 1, 3, 8)), jnp.float32) for _ in "qk")
    a, b, moved = (jnp.asarray(rng.uniform(-1, 1, (1, 2)), jnp.float32) for _ in range(3))

    def product(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.sum(rotate(q, rope_angles(one, 8)) * rotate(k, rope_angles(other, 8)), axis=-1)

    np.testing.assert_allclose(product(a + moved, b + moved), product(a, b), atol=1e-5)
    assert np.abs(product(a + moved, b) - product(a, b)).max() > 0.1


def test_angles_of_zero_are_plain_attention() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    model = FullAttention(num_heads=2, key_bias=False)
    variables = variables_of(model, x)
    bias = variables["params"]["qkv"]["bias"]
    assert bias.shape == (2, 2, 8)  # of q and v
    plain = model.apply(variables, x)
    np.testing.assert_array_equal(model.apply(variables, x, False, jnp.zeros((5, 4))), plain)
    turned = model.apply(variables, x, False, jax.random.normal(jax.random.key(2), (5, 4)))
    assert np.abs(turned - plain).max() > 1e-3


def test_a_bias_of_k_that_is_zero_is_none() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    with_bias, without = FullAttention(num_heads=2), FullAttention(num_heads=2, key_bias=False)
    variables = without.init(jax.random.key(1), x)
    bias = jax.random.normal(jax.random.key(2), (2, 2, 8))
    params = variables["params"]
    own = {"params": {**params, "qkv": {**params["qkv"], "bias": bias}}}
    full = jnp.stack([bias[0], jnp.zeros((2, 8)), bias[1]])
    other = {"params": {**params, "qkv": {**params["qkv"], "bias": full}}}
    angles = rope_angles(patch_centers(1, 5), 8)
    np.testing.assert_array_equal(
        without.apply(own, x, False, angles), with_bias.apply(other, x, False, angles)
    )


def test_draws_stay_within_their_bounds() -> None:
    keys = jax.random.split(jax.random.key(0), 200)
    fixed = Rope().angles((2, 2), 8)
    assert not Rope().varies

    def draws(rope: Rope) -> np.ndarray:
        assert rope.varies
        return np.asarray(jax.vmap(lambda key: rope.angles((2, 2), 8, key))(keys))

    shifts = (draws(Rope(shift=0.25)) - fixed)[:, 0, ::2] / (2 * math.pi)  # of y and of x
    assert -0.25 <= shifts.min() < -0.2 and 0.2 < shifts.max() <= 0.25
    assert np.abs(np.corrcoef(shifts.T)[0, 1]) < 0.3
    jitters = np.log2(draws(Rope(jitter=2.0)) / fixed)[:, 0, ::2]
    assert -1 <= jitters.min() < -0.9 and 0.9 < jitters.max() <= 1.001
    assert np.abs(np.corrcoef(jitters.T)[0, 1]) < 0.3
    both = np.log2(draws(Rope(rescale=2.0)) / fixed)[:, 0, ::2]
    np.testing.assert_allclose(both[:, 0], both[:, 1], atol=1e-5)
    np.testing.assert_allclose(both.mean(), 0, atol=0.15)  # log-uniform


def test_text_there_and_back() -> None:
    for rope in (Rope(), Rope(rescale=2.0), Rope(10.0, 0.5, 1.5)):
        assert Rope.parse(str(rope)) == rope
    assert str(Rope(rescale=2.0)) == "rope(rescale=2.0)"
