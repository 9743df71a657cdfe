"""Class attention is the first row of full attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.class_attention import ClassAttention, class_attention
from vitjax.attention.core import dot_product_attention


def test_it_is_the_first_row_of_full_attention() -> None:
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 13, 3, 4)) for i in range(3))
    full = dot_product_attention(q, k, v)
    np.testing.assert_allclose(class_attention(q[:, :1], k, v), full[:, :1], atol=1e-6)


@pytest.mark.slow
def test_the_module_updates_one_token() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 13, 8))
    mixer = ClassAttention(num_heads=2)
    params = mixer.init(jax.random.key(1), x)
    out, sown = mixer.apply(params, x, mutable=["intermediates"])
    assert out.shape == (2, 1, 8)
    assert sown["intermediates"]["attend"]["weights"][0].shape == (2, 2, 1, 13)
    moved = jnp.concatenate([x[:, :1], x[:, :0:-1]], axis=1)  # the others' order does not matter
    np.testing.assert_allclose(mixer.apply(params, moved), out, atol=1e-6)
    grads = jax.grad(lambda p: jnp.sum(mixer.apply(p, x) ** 2))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
