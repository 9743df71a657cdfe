"""Deformable attention: where it is plain attention, its points, its biases, its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.core import dot_product_attention
from vitjax.attention.deformable import DeformableAttention, deformable_attention
from vitjax.attention.deformable_bias import DisplacementBias, resize_fixed_bias
from vitjax.attention.full import FullAttention
from vitjax.attention.offsets import displace, sampling_points
from vitjax.attention.sampling import reference_points, sample_bilinear_gather


def features(height=9, width=6, channels=16):
    return jax.random.normal(jax.random.key(0), (2, height, width, channels))


def variables_of(mixer, x, scale=1.0):
    """Initial parameters, offsets made `scale` times as large, tables not near zero."""
    params = jax.jit(mixer.init)(jax.random.key(1), x)["params"]
    if "offset" in params:
        kernel = params["offset"]["offset"]["kernel"]
        params["offset"]["offset"]["kernel"] = scale * kernel
    noise = jax.random.normal(jax.random.key(2), (64,))
    params["bias"] = jax.tree.map(lambda p: p + jnp.resize(noise, p.shape), params.get("bias", {}))
    return {"params": params}


@pytest.mark.slow
def test_without_offsets_and_bias_it_is_plain_attention_to_the_grid_sampled():
    x = features()
    mixer = DeformableAttention(num_heads=4, stride=1, position_bias="none", inset=0)
    variables = variables_of(mixer, x, scale=0.0)
    params = variables["params"]
    points = jnp.broadcast_to(reference_points(9, 6).reshape(1, -1, 2), (2, 54, 2))
    sampled = sample_bilinear_gather(x, points)

    def project(t, name):
        return jnp.einsum("bnc,cxhd->bnhd", t, params[name]["kernel"]) + params[name]["bias"][0]

    out = dot_product_attention(
        project(x.reshape(2, -1, 16), "q"), project(sampled, "k"), project(sampled, "v")
    ).reshape(2, 9, 6, 16)
    out = out @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(jax.jit(mixer.apply)(variables, x), out, atol=1e-5)


def test_keys_at_every_position_make_it_full_attention():
    x = features()
    mixer = FullAttention(num_heads=4)
    variables = mixer.init(jax.random.key(1), x)
    qkv = variables["params"]["qkv"]
    q, k, v = jnp.moveaxis(jnp.einsum("bxyc,cnhd->bxynhd", x, qkv["kernel"]) + qkv["bias"], 3, 0)
    out = deformable_attention(q, k.reshape(2, 54, 4, 4), v.reshape(2, 54, 4, 4))
    proj = variables["params"]["proj"]
    out = out.reshape(x.shape) @ proj["kernel"] + proj["bias"]
    np.testing.assert_allclose(mixer.apply(variables, x), out, atol=1e-5)


def test_unmoved_points_of_both_releases():
    still = jnp.zeros((1, 1, 3, 2, 2))
    np.testing.assert_allclose(
        displace(still, inset=0)[0, 0, :, 0, 0], [-2 / 3, 0, 2 / 3], atol=1e-6
    )
    clipped = displace(still)[0, 0, :, 0, 0]
    np.testing.assert_allclose(clipped, [-0.5, 0.5, 1.0], atol=1e-6)
    free = displace(still, offset_range_factor=2.0)[0, 0, :, 0, 0]
    np.testing.assert_allclose(free, [-0.5, 0.5, 1.5], atol=1e-6)


def test_a_range_bounds_offsets_in_cells_and_none_clips_points_to_the_map():
    far = jnp.full((1, 1, 3, 5, 2), 100.0)
    moved = displace(far, offset_range_factor=2.0, inset=0) - reference_points(3, 5)
    np.testing.assert_allclose(moved[0, 0, 0, 0], [2 / 3, 2 / 5], atol=1e-6)
    np.testing.assert_allclose(displace(far), jnp.ones_like(far))


def test_groups_move_by_their_own_queries():
    q = jax.random.normal(jax.random.key(0), (1, 4, 4, 4, 3))
    points = sampling_points(q, lambda t: 0.1 * t[..., :2], groups=2, inset=0)
    want = jnp.clip(reference_points(4, 4) + 0.1 * q[0, :, :, 2, :2], -1, 1)
    np.testing.assert_allclose(points[0, 1], want, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "fixed", "log", "conv", "none"])
@pytest.mark.parametrize("offsets", [True, False])
def test_each_bias_at_odd_sizes_with_finite_gradients(kind, offsets):
    mixer = DeformableAttention(
        num_heads=4, stride=2, kernel_size=5, position_bias=kind, offsets=offsets, table_size=(8, 6)
    )
    x = features()
    variables = variables_of(mixer, x, scale=2.0)
    assert bool(variables["params"]["bias"]) == (kind != "none" and offsets)

    def loss(variables, x):
        return jnp.sum(jnp.sin(mixer.apply(variables, x)))

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, x)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    for shape in ((7, 13), (2, 3), (1, 1)):
        assert jax.eval_shape(mixer.apply, variables, features(*shape)).shape[1:3] == shape


def test_log_bias_grows_with_the_logarithm_of_the_displacement():
    module = DisplacementBias("log", num_heads=2)
    points = jnp.array([[[[[1.0, 0.0]]]]])
    params = {
        "fc1": {"kernel": -jnp.eye(2, 32), "bias": jnp.zeros(32)},
        "fc2": {"kernel": jnp.ones((32, 2))},
    }
    bias = module.apply({"params": params}, points, (3, 1))
    np.testing.assert_allclose(bias[0, 0, :, 0], np.log2([9, 5, 1]) / 3, atol=1e-6)


def test_a_table_without_a_size_is_that_of_the_first_map():
    mixer = DeformableAttention(num_heads=4)
    variables = jax.jit(mixer.init)(jax.random.key(1), features(8, 6))
    assert variables["params"]["bias"]["table"].shape == (4, 15, 11)
    assert jax.jit(mixer.apply)(variables, features(5, 9)).shape == (2, 5, 9, 16)


def test_a_fixed_bias_of_another_map_is_interpolated():
    table = jax.random.normal(jax.random.key(0), (2, 8 * 8, 4 * 4))
    same = (8, 8, 4, 4)
    np.testing.assert_array_equal(resize_fixed_bias(table, same, same), table)
    assert resize_fixed_bias(table, same, (7, 9, 3, 5)).shape == (2, 63, 15)


def test_points_and_weights_are_sown():
    mixer = DeformableAttention(num_heads=4, stride=2, kernel_size=5)
    x = features()
    variables = jax.eval_shape(mixer.init, jax.random.key(1), x)
    _, sown = jax.eval_shape(lambda v: mixer.apply(v, x, mutable="intermediates"), variables)
    assert sown["intermediates"]["points"][0].shape == (2, 2, 5, 3, 2)
    assert sown["intermediates"]["attend"]["weights"][0].shape == (2, 4, 54, 15)


def test_float64_stays_float64():
    mixer = DeformableAttention(num_heads=4, stride=2, kernel_size=5)
    x = features()
    variables = variables_of(mixer, x)
    single = jax.jit(mixer.apply)(variables, x)
    jax.config.update("jax_enable_x64", True)
    try:
        exact = jax.jit(mixer.apply)(
            *jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), (variables, x))
        )
    finally:
        jax.config.update("jax_enable_x64", False)
    assert (single.dtype, exact.dtype) == (jnp.float32, jnp.float64)
    np.testing.assert_allclose(single, exact, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(offset_groups=3), "4 heads cannot be split into 3 offset groups"),
        (dict(position_bias="tabel"), "choose from"),
        (dict(stride=8, kernel_size=8), "9×6 gives no sampling point"),
    ],
)
def test_errors_teach(options, message):
    with pytest.raises(ValueError, match=message):
        DeformableAttention(num_heads=4, **options).init(jax.random.key(0), features())
