"""Deformable bi-level routing: two plain attentions as limit, its points, its padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.core import dot_product_attention
from vitjax.attention.deformable_bi_level_routing import (
    DeformableBiLevelRoutingAttention,
    deformable_bilevel_routing_attention,
)
from vitjax.attention.sampling import reference_points


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def perturbed(mixer, x: jax.Array) -> dict:
    """Parameters none of which is at a special first value; nothing is compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(mixer.init, jax.random.key(0), x)
    return jax.tree.map(lambda s: rng.normal(0.1, 0.2, s.shape).astype(np.float32), shapes)


def run(mixer, variables: dict, x: jax.Array, train: bool = False):
    """Output and what was sown."""
    apply = jax.jit(lambda v, x: mixer.apply(v, x, train, mutable=["intermediates"]))
    out, sown = apply(variables, x)
    return out, sown["intermediates"]


def test_all_regions_are_two_full_attentions() -> None:
    q, k, v = (normal(2, 6, 9, 3, 4, seed=i) for i in range(3))
    agents, bias = normal(2, 3, 3, 3, 4, seed=3), normal(2, 3, 54, 9, seed=4)
    out = deformable_bilevel_routing_attention(
        q, k, v, agents, refine=lambda x: (flat(2 * x), flat(x)), bias=bias, n_win=3, scale=0.3
    )
    gathered = dot_product_attention(flat(agents), flat(k), flat(v), scale=0.3)
    full = dot_product_attention(flat(q), 2 * gathered, gathered, bias=bias, scale=0.3)
    np.testing.assert_allclose(flat(out), full, atol=1e-5)


@pytest.mark.slow
def test_points() -> None:
    x = normal(2, 14, 14, 8)
    centres = np.broadcast_to(reference_points(7, 7), (2, 2, 7, 7, 2))
    for channels in (1, 2):
        mixer = DeformableBiLevelRoutingAttention(
            num_heads=4, topk=4, stride=2, offset_channels=channels
        )
        variables = perturbed(mixer, x)
        offset = variables["params"]["offset"]["offset"]
        offset["kernel"] = 0.02 * offset["kernel"]  # none reaches the border
        (points,) = run(mixer, variables, x)[1]["points"]
        assert points.shape == centres.shape  # half as many groups as heads
        moved = np.asarray(points) - centres
        assert np.abs(moved).max() > 1e-3
        assert np.allclose(moved[..., 0], moved[..., 1], atol=1e-6) == (channels == 1)
    offset["kernel"] = 0 * offset["kernel"]
    np.testing.assert_allclose(run(mixer, variables, x)[1]["points"][0], centres, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(13, 17), pytest.param((1, 1), marks=pytest.mark.slow)])
def test_any_map(shape: tuple[int, int]) -> None:
    mixer = DeformableBiLevelRoutingAttention(
        num_heads=2, topk=4, stride=2, kernel_size=5, table_size=(14, 14)
    )
    x = normal(2, *shape, 8)
    variables = perturbed(mixer, x)
    padded = jnp.pad(x, ((0, 0), (0, -shape[0] % 7), (0, -shape[1] % 7), (0, 0)))
    out, sown = run(mixer, variables, x)
    expected = run(mixer, variables, padded)[0][:, : shape[0], : shape[1]]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert sown["router"]["routes"][0].shape == (2, 49, 4)

    def loss(variables, x):
        out = mixer.apply(variables, x, True)
        return jnp.sum(jnp.sin(out)), out

    grads, in_training = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables, x)
    np.testing.assert_allclose(in_training, out, atol=1e-5)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_the_table_serves_other_maps() -> None:
    mixer = DeformableBiLevelRoutingAttention(num_heads=3)
    variables = perturbed(mixer, normal(1, 7, 7, 6))
    assert variables["params"]["bias"]["table"].shape == (3, 13, 13)
    assert jax.eval_shape(mixer.apply, variables, normal(1, 10, 8, 6)).shape == (1, 10, 8, 6)


def test_training_gathers_and_scatters_no_maps() -> None:
    mixer = DeformableBiLevelRoutingAttention(num_heads=2, topk=4, stride=2)
    x = normal(1, 14, 14, 8)

    def loss(variables, x):
        return jnp.sum(mixer.apply(variables, x, True))

    step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(perturbed(mixer, x), x).as_text()
    assert "stablehlo.gather" not in step
    assert "stablehlo.scatter" not in step


def test_groups_must_divide_heads() -> None:
    mixer = DeformableBiLevelRoutingAttention(num_heads=4, offset_groups=3)
    with pytest.raises(ValueError, match="offset_groups must divide"):
        jax.eval_shape(mixer.init, jax.random.key(0), normal(1, 14, 14, 24))
