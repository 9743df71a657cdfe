"""CONTAINER's mixer at both ends of its gate, and by hand between them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.container import ContainerMixer
from vitjax.attention.dwconv import DepthwiseConvMixer
from vitjax.attention.full import FullAttention

X = jax.random.normal(jax.random.key(0), (2, 5, 7, 12))


def variables(gate: float) -> dict:
    found = ContainerMixer(num_heads=3, gate_init=gate).init(jax.random.key(1), X)
    dwconv = dict(found["params"]["dwconv"], bias=jax.random.normal(jax.random.key(2), (12,)))
    return {"params": {**found["params"], "dwconv": dwconv}}


def apply(gate: float) -> jax.Array:
    return ContainerMixer(num_heads=3, gate_init=gate).apply(variables(gate), X)


def test_a_gate_that_is_open_leaves_full_attention() -> None:
    params = variables(99.0)["params"]
    attention = {name: params[name] for name in ("qkv", "proj")}
    expected = FullAttention(num_heads=3).apply({"params": attention}, X)
    np.testing.assert_allclose(apply(99.0), expected, atol=1e-6)


def test_a_gate_that_is_shut_leaves_the_convolution() -> None:
    params = variables(-99.0)["params"]
    value = {
        "kernel": params["qkv"]["kernel"][:, 2].reshape(12, 12),
        "bias": params["qkv"]["bias"][2].reshape(12),
    }
    conv = {"v": value, "dwconv": params["dwconv"], "proj": params["proj"]}
    expected = DepthwiseConvMixer(kernel_size=5).apply({"params": conv}, X)
    np.testing.assert_allclose(apply(-99.0), expected, atol=1e-6)


def test_between_them_it_is_a_mean_with_the_gates_weight() -> None:
    ends, gate = (apply(99.0), apply(-99.0)), 0.7
    share = nn.sigmoid(jnp.asarray(gate))
    np.testing.assert_allclose(apply(gate), share * ends[0] + (1 - share) * ends[1], atol=1e-6)


@pytest.mark.slow
def test_the_gate_learns_and_is_shown() -> None:
    model, found = ContainerMixer(num_heads=3), variables(0.0)
    grad = jax.grad(lambda v: jnp.sum(model.apply(v, X) ** 2))(found)
    assert np.abs(grad["params"]["gate"]) > 0
    _, seen = model.apply(found, X, mutable="intermediates")
    assert seen["intermediates"]["share"][0] == 0.5
