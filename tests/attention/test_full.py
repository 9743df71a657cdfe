"""What attention is: against numpy in float64, at its limits, and the mixer around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.attention_pool import AttentionPool
from vitjax.attention.core import DotProductAttention, attention_weights, dot_product_attention
from vitjax.attention.full import FullAttention
from vitjax.attention.window import WindowAttention
from vitjax.attention.windows import relative_bias_of_map


def arrays(*shapes, seed: int = 0) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def reference(q, k, v, bias=0.0, mask=None, scale=None) -> np.ndarray:
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    logits = (
        np.einsum("bnhd,bmhd->bhnm", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        + bias
    )
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v)


def test_it_is_softmax_of_the_scaled_products() -> None:
    q, k, v = arrays((2, 7, 3, 5), (2, 11, 3, 5), (2, 11, 3, 5))
    (bias,) = arrays((3, 7, 11), seed=1)
    mask = np.random.default_rng(2).random((2, 1, 7, 11)) < 0.6
    mask[..., 0] = True
    mask = jnp.asarray(mask)
    for options in (
        dict(),
        dict(scale=0.3),
        dict(bias=bias),
        dict(mask=mask),
        dict(bias=bias, mask=mask),
    ):
        ours = dot_product_attention(q, k, v, **options)
        np.testing.assert_allclose(ours, reference(q, k, v, **options), atol=1e-5)


def test_a_position_bias_over_one_window_is_that_of_the_window() -> None:
    (x,) = arrays((2, 5, 5, 12))
    window, full = WindowAttention(num_heads=3, window_size=5), FullAttention(3, position_bias=True)
    params = window.init(jax.random.key(0), x)["params"]
    (name,) = params.keys() - {"qkv", "proj"}
    ours = {k: v for k, v in params.items() if k != name}
    ours["position_bias"] = jnp.asarray(params[name]).reshape(9, 9, 3)
    found, expected = full.apply({"params": ours}, x), window.apply({"params": params}, x)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(3, 4), (1, 5), (2, 1)])
def test_a_position_bias_reads_the_offset_between_query_and_key(size: tuple[int, int]) -> None:
    rows, columns = size
    (table,) = arrays((2 * rows - 1, 2 * columns - 1, 2))
    bias = relative_bias_of_map(table).reshape(2, *size, *size)
    for y, x, v, u in np.ndindex(*size, *size):
        expected = table[y - v + rows - 1, x - u + columns - 1]
        np.testing.assert_array_equal(bias[:, y, x, v, u], expected)


@pytest.mark.slow
def test_a_position_bias_is_interpolated_for_another_map() -> None:
    full = FullAttention(num_heads=2, position_bias=True)
    small, large = arrays((1, 3, 4, 8), (1, 5, 7, 8))
    variables = full.init(jax.random.key(0), small)
    assert variables["params"]["position_bias"].shape == (5, 7, 2)
    assert full.apply(variables, large).shape == large.shape
    flat = {"params": {**variables["params"], "position_bias": jnp.full((5, 7, 2), 3.0)}}
    plain = {k: v for k, v in variables["params"].items() if k != "position_bias"}
    expected = FullAttention(num_heads=2).apply({"params": plain}, large)
    np.testing.assert_allclose(full.apply(flat, large), expected, atol=1e-5)


def test_limits_of_the_weights() -> None:
    q, k = arrays((1, 5, 2, 4), (1, 6, 2, 4))
    np.testing.assert_allclose(
        attention_weights(q, k, scale=0.0), np.full((1, 2, 5, 6), 1 / 6), atol=1e-7
    )
    only = np.zeros((5, 6), bool)
    only[:, 2] = True
    np.testing.assert_array_equal(
        attention_weights(q, k, mask=jnp.asarray(only))[..., 2], np.ones((1, 2, 5))
    )
    blind = attention_weights(q, k, mask=jnp.zeros((5, 6), bool))
    np.testing.assert_allclose(blind, np.full((1, 2, 5, 6), 1 / 6), atol=1e-7)


def test_the_softmax_of_bfloat16_runs_in_float32() -> None:
    (logits,) = arrays((1, 3, 1, 64))
    q, k = jnp.asarray(logits, jnp.bfloat16), jnp.ones((1, 257, 1, 64), jnp.bfloat16)
    weights = attention_weights(q, k)
    assert weights.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(weights, np.float32), 1 / 257, rtol=1e-2)


def test_the_mixer_takes_maps_and_sequences_alike() -> None:
    (x,) = arrays((2, 5, 7, 12))
    mixer = FullAttention(num_heads=3, qk_norm=True)
    variables = mixer.init(jax.random.key(0), x)
    as_map, as_tokens = mixer.apply(variables, x), mixer.apply(variables, x.reshape(2, 35, 12))
    np.testing.assert_array_equal(as_map.reshape(2, 35, 12), as_tokens)


def test_the_mixer_is_the_formula() -> None:
    (x,) = arrays((2, 13, 12))
    mixer = FullAttention(num_heads=3)
    params = mixer.init(jax.random.key(0), x)["params"]
    params["qkv"]["bias"] = jnp.asarray(arrays((3, 3, 4), seed=3)[0])
    y = np.einsum("bnc,cthd->tbnhd", x, params["qkv"]["kernel"]) + np.asarray(
        params["qkv"]["bias"]
    ).reshape(3, 1, 1, 3, 4)
    want = reference(*y).reshape(2, 13, 12) @ np.asarray(params["proj"]["kernel"])
    np.testing.assert_allclose(mixer.apply({"params": params}, x), want, atol=1e-5)


def test_weights_are_sown_only_when_asked_for() -> None:
    (x,) = arrays((2, 13, 12))
    mixer = FullAttention(num_heads=3)
    variables = mixer.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    _, sown = mixer.apply(variables, x, mutable=["intermediates"])
    (weights,) = sown["intermediates"]["attend"]["weights"]
    assert weights.shape == (2, 3, 13, 13)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)


def test_dropout_of_the_weights_keeps_the_mean() -> None:
    q, k, v = arrays((1, 5, 2, 4), (1, 6, 2, 4), (1, 6, 2, 4))
    attend = DotProductAttention(attn_drop_rate=0.5, train=True)
    draw = jax.jit(jax.vmap(lambda key: attend.apply({}, q, k, v, rngs={"dropout": key})))
    mean = draw(jax.random.split(jax.random.key(0), 4096)).mean(0)
    np.testing.assert_allclose(mean, dot_product_attention(q, k, v), atol=0.05)


@pytest.mark.slow
def test_attention_pooling_of_equal_tokens_is_that_token_through_the_mlp() -> None:
    (x,) = arrays((2, 1, 12))
    pool = AttentionPool(num_heads=3)
    variables = pool.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        pool.apply(variables, jnp.repeat(x, 7, axis=1)), pool.apply(variables, x), atol=1e-5
    )


def test_tokens_of_another_rank_are_refused_by_name() -> None:
    with pytest.raises(Exception, match="q"):
        dot_product_attention(*arrays((5, 4), (6, 4), (6, 4)))
