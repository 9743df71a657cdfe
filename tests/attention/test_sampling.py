"""Sampling by tents against the four neighbours, torch's grid_sample and hand-computed values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention import sampling


def data(shape=(2, 7, 5, 6), points=31, spread=0.8):
    a, b = jax.random.split(jax.random.key(0))
    return jax.random.normal(a, shape), spread * jax.random.normal(b, (shape[0], points, 2))


@pytest.mark.slow
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (1, 1, 9, 3), (3, 13, 1, 4)])
def test_tents_equal_the_four_neighbours_with_gradients(shape, align_corners):
    maps, points = data(shape)
    probe = jax.random.normal(jax.random.key(1), (shape[0], points.shape[1], shape[-1]))

    def run(sample):
        def loss(maps, points):
            return jnp.sum(sample(maps, points, align_corners=align_corners) * probe)

        return sample(maps, points, align_corners=align_corners), jax.grad(loss, (0, 1))(
            maps, points
        )

    with jax.default_matmul_precision("highest"):
        tents, gather = (
            jax.jit(lambda f=f: run(f))()
            for f in (sampling.sample_bilinear, sampling.sample_bilinear_gather)
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), tents, gather)


@pytest.mark.slow
def test_both_forms_agree_in_the_derivative_at_a_kink():
    maps, _ = data((1, 5, 5, 2))
    points = jnp.array([[[0.0, 0.5], [-1.0, 1.0], [1.0, 0.0], [-0.5, -0.5]]])
    tents, gather = (
        jax.jacobian(f, argnums=1)(maps, points)
        for f in (sampling.sample_bilinear, sampling.sample_bilinear_gather)
    )
    np.testing.assert_allclose(tents, gather, atol=1e-5)


def test_a_point_on_a_position_reads_it_and_one_outside_fades_to_zero():
    maps = jnp.arange(12.0).reshape(1, 3, 4, 1)
    points = jnp.array([[[-1.0, -1.0], [0.0, 1 / 3], [1.0, 1.0], [1.5, 1.0], [2.5, 0.0]]])
    got = sampling.sample_bilinear(maps, points)[0, :, 0]
    np.testing.assert_allclose(got, [0, 6, 11, 5.5, 0], atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
def test_tents_equal_grid_sample(align_corners):
    torch = pytest.importorskip("torch")
    maps, points = data()
    theirs = torch.nn.functional.grid_sample(
        torch.tensor(np.asarray(maps)).permute(0, 3, 1, 2),
        torch.tensor(np.asarray(points[:, :, None, ::-1]).copy()),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=align_corners,
    )
    ours = sampling.sample_bilinear(maps, points, align_corners=align_corners)
    np.testing.assert_allclose(ours, theirs[..., 0].permute(0, 2, 1).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(4, 6), (7, 3), (1, 5)])
def test_position_bias_equals_its_gather_form_with_gradients(grid):
    table = jax.random.normal(jax.random.key(0), (6, 7, 11))
    points = 0.7 * jax.random.normal(jax.random.key(1), (2, 3, 10, 2))
    probe = jax.random.normal(jax.random.key(2), (2, 6, grid[0] * grid[1], 10))

    def run(sample):
        def loss(table, points):
            return jnp.sum(sample(table, points, grid) * probe)

        return sample(table, points, grid), jax.grad(loss, (0, 1))(table, points)

    with jax.default_matmul_precision("highest"):
        tents, gather = (
            jax.jit(lambda f=f: run(f))()
            for f in (sampling.sample_position_bias, sampling.sample_position_bias_gather)
        )
    # the gradient of the table sums over batch, queries and keys
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-5), tents, gather)


@pytest.mark.slow
def test_position_bias_of_keys_on_the_query_grid_reads_the_table():
    height, width = 3, 4
    table = jax.random.normal(jax.random.key(0), (2, 2 * height - 1, 2 * width - 1))
    keys = sampling.reference_points(height, width, shift=0.0, inset=1).reshape(1, 1, -1, 2)
    bias = sampling.sample_position_bias(table, keys, (height, width))
    y, x = np.divmod(np.arange(height * width), width)
    want = table[:, y[:, None] - y + height - 1, x[:, None] - x + width - 1]
    np.testing.assert_allclose(bias[0], want, atol=1e-5)


def test_reference_points_of_each_convention():
    np.testing.assert_allclose(sampling.reference_points(2, 1)[:, 0], [[-0.5, 0], [0.5, 0]])
    ends = sampling.reference_points(3, 5, shift=0.0, inset=1)
    np.testing.assert_allclose(ends[0, 0], [-1, -1])
    np.testing.assert_allclose(ends[-1, -1], [1, 1])
    np.testing.assert_allclose(sampling.reference_points(5, 2, inset=1)[0, 0], [-0.75, 0])
    np.testing.assert_allclose(sampling.reference_points(1, 1, inset=1)[0, 0], [0, 0])


def test_bfloat16_maps_keep_float32_weights():
    maps, points = data()
    exact = sampling.sample_bilinear(maps, points)
    half = sampling.sample_bilinear(maps.astype(jnp.bfloat16), points)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=5e-2)
