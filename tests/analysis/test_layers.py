"""CKA and the logit lens: invariances, hand-computed cases, and what is exact at the last layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.analysis.small import small
from vitjax.analysis.layers import _hsic, compare, logit_lens


class Line(nn.Module):
    """A linear layer as the only block."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = images.reshape(images.shape[0], -1)
        return nn.Dense(self.width, use_bias=False, name="block_0")(x)


def line(kernel: jax.Array) -> tuple[nn.Module, dict]:
    return Line(kernel.shape[1]), {"params": {"block_0": {"kernel": kernel}}}


def test_similarity_is_that_of_centred_products() -> None:
    """Equal up to rotation and scale is 1; features of nothing in common are about 0."""
    images = jax.random.normal(jax.random.key(0), (64, 2, 2, 3))
    kernel = jax.random.normal(jax.random.key(1), (12, 8))
    turn = jnp.linalg.qr(jax.random.normal(jax.random.key(2), (8, 8)))[0]
    same = compare(line(kernel), line(3 * kernel @ turn), [images[:32], images[32:]])
    assert same.first == same.second == ["block_0"]
    np.testing.assert_allclose(same.cka, 1, atol=1e-4)
    halves = [jnp.eye(12)[:, :6], jnp.eye(12)[:, 6:]]
    apart = compare(line(halves[0]), line(halves[1]), [images])
    assert abs(apart.cka[0, 0]) < 0.15


def test_the_unbiased_estimate_by_hand() -> None:
    """Song et al.'s sum over four different images, written out."""
    rng = np.random.default_rng(0)
    a, b = (x @ x.T for x in rng.standard_normal((2, 5, 3)))
    n, total = 5, 0.0
    for i, j in np.ndindex(n, n):
        if i != j:
            total += a[i, j] * b[i, j] / (n * (n - 1))
            for q in set(range(n)) - {i, j}:
                total -= 2 * a[i, j] * b[i, q] / (n * (n - 1) * (n - 2))
                for r in set(range(n)) - {i, j, q}:
                    total += a[i, j] * b[q, r] / (n * (n - 1) * (n - 2) * (n - 3))
    np.testing.assert_allclose(_hsic(a[None], b[None]), [[total]], rtol=1e-12)


def test_layers_of_one_model_are_themselves() -> None:
    model, variables, images = small("vit_ti16")
    images = jax.random.normal(jax.random.key(3), (8, *images.shape[1:]))
    found = compare((model, variables), (model, variables), [images])
    assert found.first == ["block_0", "block_1"]
    np.testing.assert_allclose(np.diag(found.cka), 1, atol=1e-6)
    np.testing.assert_allclose(found.cka, found.cka.T, atol=1e-5)
    assert found.cka[0, 1] < 1
    with pytest.raises(ValueError, match="A batch of 2 images"):
        compare((model, variables), (model, variables), [images[:2]])
    with pytest.raises(ValueError, match="no batches"):
        compare((model, variables), (model, variables), [])


@pytest.mark.parametrize("name", ["vit_ti16", pytest.param("swin_tiny", marks=pytest.mark.slow)])
def test_the_lens_reads_the_logits_at_the_last_block(name: str) -> None:
    model, variables, images = small(name)
    logits = model.apply(variables, images)
    last = logit_lens(model, variables, images)[-1]
    found = last.tokens[:, 0] if name == "vit_ti16" else last.patches.mean(axis=(1, 2))
    np.testing.assert_allclose(found, logits, atol=1e-5)
    assert last.patches.shape[1:] == ((3, 5, 5) if name == "vit_ti16" else (6, 8, 5))


def test_models_without_layers_or_a_head_are_refused() -> None:
    model, variables, images = small("vit_ti16")
    with pytest.raises(ValueError, match="no norm and head"):
        logit_lens(Line(3), variables, images)
    other = nn.Dense(3)
    x = jnp.ones((4, 5))
    with pytest.raises(ValueError, match="no blocks"):
        compare((other, other.init(jax.random.key(0), x)), (model, variables), [x])
