"""ResNet-50 with non-local blocks: what it adds to ResNet-50, and at first nothing."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import random_variables
from vitjax import weights
from vitjax.models.nonlocal_resnet import FIVE, TEN

SMALL: dict[str, Any] = dict(depths=(2, 2), inserted=((1,), (0, -1)), num_classes=5, image_size=32)
RESNET = {key: SMALL[key] for key in ("depths", "num_classes", "image_size")}
X = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))


@pytest.fixture(scope="module")
def resnet() -> dict[str, Any]:
    """Weights of a ResNet, with torchvision's names."""
    return weights.to_torch("resnet50", random_variables(vitjax.create_model("resnet50", **RESNET)))


def test_one_block_stands_before_the_last_bottleneck_of_res4() -> None:
    params: Any = weights.abstract_variables(vitjax.create_model("resnet50_nonlocal"))["params"]
    places = [(i, j) for i in range(4) for j, b in params[f"stage_{i}"].items() if "mixer" in b]
    assert places == [(2, "block_5")]
    found = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert found == 25_557_032 + 4 * 1024 * 512 + 3 * 512 + 3 * 1024
    for inserted, number in ((FIVE, 5), (TEN, 10)):
        model: Any = vitjax.create_model("resnet50_nonlocal", inserted=inserted)
        assert sum(len(model.mixers_of(i)) for i in range(4)) == number


@pytest.mark.slow
def test_torchvisions_resnet_loads_and_gives_its_own_logits(resnet, caplog) -> None:
    """Blocks at zero: the limit."""
    plain: Any = vitjax.create_model("resnet50", **RESNET)
    model: Any = vitjax.create_model("resnet50_nonlocal", **SMALL)
    variables: Any = weights.from_torch("resnet50_nonlocal", resnet, **SMALL)
    assert "no blocks between bottlenecks" in caplog.text
    expected = jax.jit(plain.apply)(weights.from_torch("resnet50", resnet, **RESNET), X)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, X), expected, rtol=1e-6)
    # Not dead: θ, φ and g are drawn, and the scale that is zero has a gradient.
    block = variables["params"]["stage_1"]["block_0"]["mixer"]
    assert min(np.std(block[name]["kernel"]) for name in ("theta", "phi", "g", "proj")) > 0.005
    grads = jax.jit(jax.grad(lambda p: jnp.sum(model.apply({**variables, "params": p}, X) ** 2)))(
        variables["params"]
    )
    assert np.abs(grads["stage_1"]["block_0"]["mixer"]["norm"]["scale"]).max() > 0


def test_weights_there_and_back() -> None:
    variables = random_variables(vitjax.create_model("resnet50_nonlocal", **SMALL))
    state = weights.to_torch("resnet50_nonlocal", variables)
    assert state["layer2.1.nonlocal.W.0.weight"].shape == (512, 256, 1, 1)
    assert state["layer1.1.nonlocal.phi.0.bias"].shape == (128,)
    chex.assert_trees_all_equal(weights.from_torch("resnet50_nonlocal", state, **SMALL), variables)
    unpooled = {k.replace(".g.0.", ".g.").replace(".phi.0.", ".phi."): v for k, v in state.items()}
    found = weights.from_torch("resnet50_nonlocal", unpooled, **SMALL)
    chex.assert_trees_all_equal(found, variables)
    del state["layer2.1.nonlocal.theta.bias"]  # weights with blocks must have them whole
    with pytest.raises(ValueError, match="1 keys differ"):
        weights.from_torch("resnet50_nonlocal", state, **SMALL)


def test_any_mixer_can_stand_there() -> None:
    model: Any = vitjax.create_model("resnet50_nonlocal", **SMALL, mixer="full | dwconv")
    params: Any = weights.abstract_variables(model)["params"]
    assert params["stage_1"]["block_0"]["mixer"]["qkv"]["kernel"].shape == (256, 3, 4, 64)
    assert params["stage_1"]["block_1"]["mixer"].keys() >= {"dwconv"}


@pytest.mark.parametrize("inserted", [((), ()), ((), (), (6,), ())])
def test_places_that_are_not_there_are_refused(inserted: Any) -> None:
    with pytest.raises(ValueError, match="does not fit depths"):
        vitjax.create_model("resnet50_nonlocal", inserted=inserted)
