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
from vitjax.attention.windows import relative_bias_of_map


def qkv(height, width, heads=2, dim=4):
    return jax.random.normal(jax.random.key(0), (3, 2, height, width, heads, dim))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "size", "dilation"),
    [(14, 9, 5, 1), (13, 23, 7, 1), (5, 11, 4, 1), (14, 31, 7, 2), (23, 12, 3, 4)],
)
def test_tiles_equal_the_gathered_neighbours_with_gradients(height, width, size, dilation):
    table = jax.random.normal(jax.random.key(1), (2, 2 * size - 1, 2 * size - 1))
    probe = jax.random.normal(jax.random.key(2), (2, height, width, 2, 4))

    def loss(attention, x, table):
        out = attention(*x, size=size, dilation=dilation, table=table)
        return jnp.sum(out * probe), out

    grad = jax.jit(jax.value_and_grad(loss, argnums=(1, 2), has_aux=True), static_argnums=0)
    with jax.default_matmul_precision("highest"):
        ours = grad(neighborhood_attention, qkv(height, width), table)
        theirs = grad(neighborhood_attention_gather, qkv(height, width), table)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), ours, theirs)


@pytest.mark.parametrize(("height", "width"), [(7, 11), (8, 9)])
def test_each_phase_of_a_dilation_is_a_map_of_its_own(height, width):
    """Also where a side is no multiple of the dilation; by loops over the queries of a phase."""
    size, d = 3, 2
    q, k, v = (np.asarray(t[0, ..., 0, :]) for t in qkv(height, width))
    table = np.asarray(jax.random.normal(jax.random.key(1), (2, 5, 5)))
    attention = jax.jit(neighborhood_attention, static_argnames=("size", "dilation"))
    ours = attention(*qkv(height, width), size=size, dilation=d, table=table)[0, ..., 0, :]

    def near(i, length):
        phase = range(i % d, length, d)
        begin = min(max(phase.index(i) - 1, 0), len(phase) - size)
        return np.asarray(phase[begin : begin + size])

    for i, j in np.ndindex(height, width):
        y, x = near(i, height), near(j, width)
        entries = np.ix_((y - i) // d + size - 1, (x - j) // d + size - 1)
        logits = k[np.ix_(y, x)] @ q[i, j] / np.sqrt(q.shape[-1]) + table[0][entries]
        weights = np.exp(logits) / np.exp(logits).sum()
        want = np.einsum("yx,yxc->c", weights, v[np.ix_(y, x)])
        np.testing.assert_allclose(ours[i, j], want, atol=1e-5)


def test_gradients_in_16_bits_are_near_those_in_32():
    """The masks of unequal phases and the shared bias in the 16-bit form of attention."""
    table = jax.random.normal(jax.random.key(1), (2, 5, 5))

    def loss(x, table):
        return jnp.sum(neighborhood_attention(*x, size=3, dilation=2, table=table) ** 2)

    grad = jax.jit(jax.grad(loss, argnums=(0, 1)))
    exact = grad(qkv(7, 9), table)
    half = grad(qkv(7, 9).astype(jnp.bfloat16), table.astype(jnp.bfloat16))
    for ours, want in zip(half, exact, strict=True):
        assert ours.dtype == jnp.bfloat16
        error = jnp.linalg.norm(ours.astype(jnp.float32) - want) / jnp.linalg.norm(want)
        assert error < 0.02


@pytest.mark.slow
def test_a_neighborhood_of_the_whole_map_is_full_attention_with_bias():
    q, k, v = qkv(5, 5)
    table = jax.random.normal(jax.random.key(1), (2, 9, 9))
    ours = neighborhood_attention(q, k, v, size=5, table=table)
    bias = relative_bias_of_map(jnp.moveaxis(table[:, ::-1, ::-1], 0, -1))
    full = dot_product_attention(*(t.reshape(2, 25, 2, 4) for t in (q, k, v)), bias=bias)
    np.testing.assert_allclose(ours.reshape(full.shape), full, atol=1e-5)


def test_a_map_smaller_than_the_dilated_neighborhood_is_refused():
    with pytest.raises(ValueError, match=r"3 pixels with dilation 2 needs 6 .* has 5; pad"):
        neighborhood_attention(*qkv(6, 5), size=3, dilation=2)


def test_a_neighborhood_of_one_is_the_value():
    q, k, v = qkv(3, 4)
    np.testing.assert_allclose(neighborhood_attention(q, k, v, size=1), v, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dilation"), [(5, 1), (2, 3)])
def test_a_map_smaller_than_the_neighborhood_attends_to_its_padding(size, dilation):
    mixer = NeighborhoodAttention(num_heads=2, neighborhood_size=size, dilation=dilation)
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 8))
    variables = jax.jit(mixer.init)(jax.random.key(1), x)
    side = size * dilation
    padded = jnp.pad(x, ((0, 0), (0, side - 3), (0, side - 4), (0, 0)))
    want = mixer.apply(variables, padded)[:, :3, :4]
    np.testing.assert_allclose(mixer.apply(variables, x), want, atol=1e-6)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        NeighborhoodAttention(num_heads=2, neighborhood_size=0).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="at least 1 pixel apart"):
        NeighborhoodAttention(num_heads=2, dilation=0).init(jax.random.key(0), x)
