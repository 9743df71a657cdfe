"""Attention in 16 bits against the plain form in float32: values and all gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.core import attention_weights, dot_product_attention, weighted_sum
from vitjax.kernels import cudnn
from vitjax.layers.activations import gelu
from vitjax.layers.mlp import activated_product


def plain(q: Any, k: Any, v: Any, bias: Any, mask: Any) -> Any:
    return weighted_sum(attention_weights(q, k, bias=bias, mask=mask), v)


def close(a: Any, b: Any) -> None:
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    assert np.linalg.norm(a - b) <= 8e-3 * np.linalg.norm(a)  # two bits less than bfloat16 has


@pytest.mark.slow
@pytest.mark.parametrize("bias_shape", [None, (3, 17, 13), (2, 3, 1, 13), (13,)])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients(bias_shape: tuple[int, ...] | None, masked: bool) -> None:
    keys = jax.random.split(jax.random.key(0), 6)
    q, g = (jax.random.normal(key, (2, 17, 3, 16)) for key in keys[:2])
    k, v = (jax.random.normal(key, (2, 13, 3, 16)) for key in keys[2:4])
    bias = None if bias_shape is None else jax.random.normal(keys[4], bias_shape)
    # The first query sees no key at all.
    mask = jax.random.bernoulli(keys[5], 0.7, (17, 13)).at[0].set(False) if masked else None
    half = [None if x is None else x.astype(jnp.bfloat16) for x in (q, k, v, bias, g)]

    def fast(q: Any, k: Any, v: Any, bias: Any) -> Any:
        return dot_product_attention(q, k, v, bias=bias, mask=mask)

    exact = [None if x is None else x.astype(jnp.float32) for x in half]
    expected, pull = jax.vjp(lambda *a: plain(*a, mask), *exact[:4])
    found, pull_half = jax.vjp(fast, *half[:4])
    assert found.dtype == jnp.bfloat16
    close(expected, found)
    for a, b in zip(
        jax.tree.leaves(pull(exact[4])), jax.tree.leaves(pull_half(half[4])), strict=True
    ):
        close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(17, 17), (12, 17), (17, 12), (12, 18)])
def test_cudnn_is_asked_for_the_same_values_and_gradients(n: int, m: int) -> None:
    """XLA's form of the same function stands for cuDNN's, which CPUs do not have."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(2, 5, n, 3, 16), (2, 5, m, 3, 16), (2, 5, m, 3, 16), (2, 5, n, 3, 16)]
    q, k, v, grad = (jax.random.normal(*pair) for pair in zip(keys, shapes))
    expected, pull = jax.vjp(lambda *a: plain(*a, None, None), q * 4, k, v)
    found, pull_found = jax.vjp(lambda *a: cudnn.attend(*a, "xla"), q, k, v)
    np.testing.assert_allclose(expected, found, atol=2e-6)
    (dq, *rest), (dq_found, *rest_found) = pull(grad), pull_found(grad)
    for a, b in zip((4 * dq, *rest), (dq_found, *rest_found)):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
@pytest.mark.parametrize("n", [197, 256])
def test_cudnn_computes_the_same_values_and_gradients(n: int) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, grad = (jax.random.normal(key, (2, n, 3, 64), jnp.bfloat16) for key in keys)
    assert cudnn.serves(n, n, 64, 64)
    exact = [x.astype(jnp.float32) for x in (q, k, v, grad)]
    expected, pull = jax.vjp(lambda *a: plain(*a, None, None), *exact[:3])
    found, pull_half = jax.vjp(jax.jit(dot_product_attention), q, k, v)
    close(expected, found)
    for a, b in zip(pull(exact[3]), pull_half(grad)):
        close(a, b)


def test_shapes_that_cudnn_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    serves = cudnn.serves
    monkeypatch.setattr(cudnn, "planned", (7, 5))
    assert not serves(197, 197, 64, 64)
    monkeypatch.setattr(cudnn, "planned", (8, 0))
    assert serves(197, 197, 64, 64) and serves(3136, 49, 64, 64)
    assert not serves(49, 49, 32, 32)  # a window
    assert not any(serves(197, 197, *channels) for channels in ((60, 60), (136, 136), (64, 32)))


@pytest.mark.slow
def test_activation_and_product_keep_one_array() -> None:
    x = jax.random.normal(jax.random.key(0), (7, 32), jnp.bfloat16) * 3
    kernel = jax.random.normal(jax.random.key(1), (32, 5), jnp.bfloat16)
    dims = (((1,), (0,)), ((), ()))

    def plain_loss(x: Any, kernel: Any) -> Any:
        return jnp.sin(jax.nn.gelu(x, approximate=False) @ kernel).sum()

    def loss(x: Any, kernel: Any) -> Any:
        return jnp.sin(activated_product(gelu)(x, kernel, dims).astype(jnp.float32)).sum()

    exact = jax.grad(plain_loss, (0, 1))(x.astype(jnp.float32), kernel.astype(jnp.float32))
    for a, b in zip(exact, jax.grad(loss, (0, 1))(x, kernel), strict=True):
        assert np.linalg.norm(a - b.astype(jnp.float32)) <= 0.03 * np.linalg.norm(a)
