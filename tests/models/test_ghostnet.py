"""GhostNet against the official numbers, and its ghosts against the formula."""

import json
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import random_variables
from tests.golden.compare import FOLDER, check_case
from vitjax import weights
from vitjax.models.ghostnet import GhostModule, rounded
from vitjax.models.protocols import Backbone

STAGES = {"blocks.9": "neck", **{f"blocks.{i}": f"stage_{i}" for i in range(9)}}
TINY: dict[str, Any] = dict(
    stages=(((3, 8, 8, False, 1),), ((5, 12, 8, True, 2), (3, 12, 12, False, 1)),
            ((3, 8, 12, False, 1),), ((3, 8, 16, True, 2),)),
    width_factor=0.5, hidden_width=11, num_classes=5, image_size=32,
)  # fmt: skip


@pytest.mark.golden
def test_ghostnet_is_the_official_one() -> None:
    check_case("ghostnet_100", "ghostnet_100", STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("ghostnet_*"))
def test_counts_are_the_official_ones(name: str) -> None:
    counts = json.loads((FOLDER / "param_counts.json").read_text())
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counts[name]["params"]


def test_widths_are_rounded_as_published() -> None:
    assert [rounded(w) for w in (1, 18, 30, 20.8, 120, 10.4)] == [4, 20, 32, 20, 120, 12]
    assert rounded(5) == 8  # 4 would be more than a tenth less


def test_ghosts_are_cheap_maps_of_the_first_half() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 4))
    module: Any = GhostModule(7, act=None)
    variables = module.init(jax.random.key(1), x)
    out: Any = module.apply(variables, x)
    assert out.shape == (2, 5, 3, 7)
    params = variables["params"]
    unit = (1 + 1e-5) ** -0.5  # a BatchNorm that has seen nothing
    first = jnp.einsum("bhwc,cd->bhwd", x, params["primary"]["conv"]["kernel"][0, 0]) * unit
    np.testing.assert_allclose(out[..., :4], first, atol=1e-5)
    padded = jnp.pad(first, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = params["cheap"]["conv"]["kernel"][:, :, 0]
    ghosts = sum(padded[:, i : i + 5, j : j + 3] * kernel[i, j] for i, j in np.ndindex(3, 3))
    np.testing.assert_allclose(out[..., 4:], (ghosts * unit)[..., :3], atol=1e-5)


@pytest.mark.slow
def test_maps_of_an_odd_size() -> None:
    model: Any = vitjax.create_model("ghostnet_100")
    assert model.strides == (4, 8, 16, 32)
    maps = jax.eval_shape(
        lambda v, x: model.apply(v, x, method="features"),
        weights.abstract_variables(model),
        jnp.zeros((1, 97, 131, 3)),
    )
    assert [m.shape[1:] for m in maps] == [(25, 33, 24), (13, 17, 40), (7, 9, 112), (4, 5, 160)]
    assert isinstance(model, Backbone)


def test_weights_there_and_back() -> None:
    variables = random_variables(vitjax.create_model("ghostnet_100", **TINY))
    state = weights.to_torch("ghostnet_100", variables)
    assert state["blocks.1.0.se.conv_reduce.weight"].shape == (4, 8, 1, 1)
    assert state["blocks.1.0.shortcut.0.weight"].shape == (4, 1, 5, 5)
    assert state["conv_head.weight"].shape == (11, 4, 1, 1)
    chex.assert_trees_all_equal(weights.from_torch("ghostnet_100", state, **TINY), variables)
    state["classifier.bias"] = state.pop("bn1.weight")
    with pytest.raises(ValueError, match="2 keys differ"):
        weights.from_torch("ghostnet_100", state, **TINY)


@pytest.mark.slow
def test_bfloat16_statistics_and_remat() -> None:
    model: Any = vitjax.create_model("ghostnet_100", **TINY)
    variables, x = random_variables(model), jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    exact = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())
    pooled = model.clone(num_classes=0)
    shapes = jax.eval_shape(pooled.init_with_output, jax.random.key(0), x)
    assert shapes[0].shape == (2, 11) and "head" not in shapes[1]["params"]

    def loss(params, model):
        out, new = model.apply(
            {**variables, "params": params},
            x,
            True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return jnp.sum(out**2), new

    (grads, new), (again, _) = (
        jax.jit(jax.grad(lambda p, m=m: loss(p, m), has_aux=True))(variables["params"])
        for m in (model, model.clone(remat=True))
    )
    chex.assert_trees_all_close(grads, again, rtol=1e-3, atol=1e-3)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), new, {k: variables[k] for k in new})
    assert min(jax.tree.leaves(moved)) > 0
