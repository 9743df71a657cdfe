"""Probes of every block: a block that knows the class, one that has lost it, and of heads."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.analysis.small import small
from vitjax.analysis.plots import plot_probes
from vitjax.analysis.probes import layer_features, probe_layers
from vitjax.train.probes import ProbesConfig

CONFIG = ProbesConfig(("knn", "linear"), k=3)


class Forgets(nn.Module):
    """A network whose first block gives its map as it is, and whose second one only zeros."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Dense(2, use_bias=False, name="block_0")(images)
        return nn.Dense(2, use_bias=False, name="block_1")(x)


def test_a_block_that_knows_the_class_and_one_that_has_lost_it() -> None:
    """The class is the sign of the first channel's mean; of equal features one class is said."""
    rng = np.random.default_rng(0)
    labels = np.arange(23) % 2
    images = rng.normal(size=(23, 3, 5, 2)).astype(np.float32)
    images[..., 0] += (2 * labels - 1 - images[..., 0].mean(axis=(1, 2)))[:, None, None]
    kernels = {"block_0": jnp.eye(2), "block_1": jnp.zeros((2, 2))}
    variables = {"params": {name: {"kernel": kernel} for name, kernel in kernels.items()}}
    found = layer_features(Forgets(), variables, jnp.asarray(images))
    np.testing.assert_allclose(found["block_0"], images.mean(axis=(1, 2)), atol=1e-6)
    features = {name: np.asarray(x) for name, x in found.items()}
    first, last = ({k: x[part] for k, x in features.items()} for part in (slice(16), slice(16, 23)))
    probes = probe_layers(first, labels[:16], last, labels[16:], 2, CONFIG)
    assert probes.names == ["block_0", "block_1"]
    assert probes.chance == 4 / 7
    for name in ("knn", "linear"):
        assert probes.top1[name][0] == 1 and probes.top1[name][1] in (3 / 7, 4 / 7)
    axes = plot_probes(probes).axes[0]
    assert "%" in axes.get_ylabel() and axes.get_xlabel() == "block"
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 100 * probes.top1["linear"])


def test_the_last_block_has_what_the_head_reads() -> None:
    model, variables, images = small("vit_ti16")

    @jax.jit
    def head(x: jax.Array) -> jax.Array:  # the norm comes before the head reads the first token
        return model.apply(variables, x, method=lambda own, x: own.head(own.norm(x)))

    last = list(layer_features(model, variables, images).values())[-1]
    np.testing.assert_allclose(head(last), jax.jit(model.apply)(variables, images), atol=1e-5)


def test_what_cannot_be_probed_is_refused() -> None:
    x, labels = {"block_0": np.ones((4, 2), np.float32)}, np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="Which probe"):
        probe_layers(x, labels, x, labels, 2, ProbesConfig())
    with pytest.raises(ValueError, match="of 0"):
        probe_layers(x, labels, {}, labels, 2, CONFIG)
