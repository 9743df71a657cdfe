"""Outlook attention: its limit, its plain form, torch's unfold and fold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.core import attention_weights, dot_product_attention
from vitjax.attention.outlook import (
    OutlookAttention,
    fold,
    outlook_attention,
    outlook_attention_reference,
    unfold,
)

GEOMETRIES = [(3, 2, 1), (3, 1, 1), (5, 3, 2), (2, 2, 0), (3, 4, 0), (4, 1, 2)]


def normal(seed: int, *shape: int):
    return jax.random.normal(jax.random.key(seed), shape)


def grid(size, stride):
    return tuple(-(-s // stride) for s in size)


def test_one_window_over_the_map_is_full_attention() -> None:
    q, k, v = (normal(i, 2, 9, 2, 4) for i in range(3))
    weights = attention_weights(q, k)[:, None, None]
    out = outlook_attention(weights, v.reshape(2, 3, 3, 2, 4), kernel_size=3, stride=3)
    np.testing.assert_allclose(out.reshape(2, 9, 2, 4), dot_product_attention(q, k, v), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(8, 8), (7, 11), (1, 2)])
def test_it_equals_its_gather_form_with_gradients(geometry, size) -> None:
    k, s, p = geometry
    weights = jax.nn.softmax(normal(0, 2, *grid(size, s), 2, k * k, k * k))
    v, probe = normal(1, 2, *size, 2, 3), normal(2, 2, *size, 2, 3)

    def run(form):
        def loss(weights, v):
            out = form(weights, v, kernel_size=k, stride=s, padding=p)
            return jnp.sum(out * probe), out

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(weights, v)

    with jax.default_matmul_precision("highest"):
        ours, plain = run(outlook_attention), run(outlook_attention_reference)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), ours, plain)


@pytest.mark.parametrize("size", [(8, 8), (7, 11)])
def test_unfold_and_fold_are_torchs(size) -> None:
    torch = pytest.importorskip("torch")
    v, k, s, p = normal(0, 2, *size, 2, 3), 3, 2, 1
    y, x = grid(size, s)
    nchw = torch.tensor(np.asarray(v).reshape(2, *size, 6)).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.unfold(nchw, k, padding=p, stride=s)
    ours = unfold(v, (y, x), k, s, p)
    as_theirs = ours.transpose(0, 4, 5, 3, 1, 2).reshape(2, 6 * k * k, y * x)
    np.testing.assert_array_equal(as_theirs, theirs.numpy())
    back = torch.nn.functional.fold(theirs, size, k, padding=p, stride=s)
    ours = fold(ours, size, k, s, p).reshape(2, *size, 6)
    np.testing.assert_allclose(ours, back.permute(0, 2, 3, 1).numpy(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 8), (13, 7), (1, 5)])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 5, "stride": 3}, {"stride": 1}])
def test_any_map_has_finite_gradients(options, size) -> None:
    mixer, x = OutlookAttention(num_heads=2, **options), normal(0, 2, *size, 8)
    params = jax.jit(mixer.init)(jax.random.key(1), x)
    apply = jax.jit(functools.partial(mixer.apply, mutable=["intermediates"]))
    out, sown = apply(params, x)
    assert out.shape == x.shape
    weights = sown["intermediates"]["weights"][0]
    assert weights.shape[1:3] == grid(size, options.get("stride", 2))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    grads = jax.jit(jax.grad(lambda p, x: jnp.sum(mixer.apply(p, x) ** 2), (0, 1)))(params, x)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
