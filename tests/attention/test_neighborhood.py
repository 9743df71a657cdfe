"""Neighbourhood attention against its reference form and where it is full attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.core import dot_product_attention
from vitjax.attention.neighborhood import (
    NeighborhoodAttention,
    neighborhood_attention,
    neighborhood_attention_gather,
)


def qkv(height, width, heads=2, dim=4):
    return jax.random.normal(jax.random.key(0), (3, 2, height, width, heads, dim))


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "size"), [(14, 9, 5), (13, 23, 7), (5, 11, 4)])
def test_tiles_equal_the_gathered_neighbours_with_gradients(height, width, size):
    table = jax.random.normal(jax.random.key(1), (2, 2 * size - 1, 2 * size - 1))
    probe = jax.random.normal(jax.random.key(2), (2, height, width, 2, 4))

    def loss(attention, x, table):
        out = attention(*x, size=size, table=table)
        return jnp.sum(out * probe), out

    grad = jax.jit(jax.value_and_grad(loss, argnums=(1, 2), has_aux=True), static_argnums=0)
    with jax.default_matmul_precision("highest"):
        ours = grad(neighborhood_attention, qkv(height, width), table)
        theirs = grad(neighborhood_attention_gather, qkv(height, width), table)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), ours, theirs)


def test_a_neighborhood_of_the_whole_map_is_full_attention():
    q, k, v = qkv(5, 5)
    ours = neighborhood_attention(q, k, v, size=5)
    full = dot_product_attention(*(t.reshape(2, 25, 2, 4) for t in (q, k, v)))
    np.testing.assert_allclose(ours.reshape(full.shape), full, atol=1e-5)


def test_a_neighborhood_of_one_is_the_value():
    q, k, v = qkv(3, 4)
    np.testing.assert_allclose(neighborhood_attention(q, k, v, size=1), v, atol=1e-6)


def test_a_map_smaller_than_the_neighborhood_attends_to_its_padding():
    mixer = NeighborhoodAttention(num_heads=2, neighborhood_size=5)
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 8))
    variables = jax.jit(mixer.init)(jax.random.key(1), x)
    padded = jnp.pad(x, ((0, 0), (0, 2), (0, 1), (0, 0)))
    want = mixer.apply(variables, padded)[:, :3, :4]
    np.testing.assert_allclose(mixer.apply(variables, x), want, atol=1e-6)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        NeighborhoodAttention(num_heads=2, neighborhood_size=0).init(jax.random.key(0), x)
