"""Early exits of a ViT: each is the head of a shallower ViT."""

from typing import Any

import jax
import numpy as np
import pytest

from vitjax.abstract import abstract_init
from vitjax.models import create_model
from vitjax.train.layer_decay import layer_factors
from vitjax.weights import from_torch, to_torch
from vitjax.weights.load import load_arrays

SMALL = dict(width=24, num_heads=2, image_size=32, patch_size=8)
IMAGES = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))


def noisy(model: Any) -> Any:
    """Parameters of a model, none of them zero or one."""
    shapes = abstract_init(model.init, jax.random.key(0), IMAGES)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), shapes)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["token", "gap"])
def test_each_exit_is_the_head_of_a_shallower_model(pool: str) -> None:
    model = create_model("vit_ti16", 5, depth=4, exits=(0, 2), pool=pool, **SMALL)
    assert model.num_exits == 3
    variables = noisy(model)
    params = variables["params"]
    found = model.apply(variables, IMAGES, method="exit_logits")
    for k, depth in enumerate((1, 3, 4)):
        shallow = create_model("vit_ti16", 5, depth=depth, pool=pool, **SMALL)
        own = {name: x for name, x in params.items() if not name.startswith(("exit_", "block_"))}
        own |= {f"block_{i}": params[f"block_{i}"] for i in range(depth)}
        if depth < 4:
            own |= params[f"exit_{k}"]
        expected = shallow.apply({"params": own}, IMAGES)
        np.testing.assert_allclose(found[k], expected, atol=1e-5)
    np.testing.assert_array_equal(model.apply(variables, IMAGES), found[-1])


def test_weights_go_out_and_come_in() -> None:
    options: dict[str, Any] = dict(SMALL, depth=2, exits=(0,))
    variables = noisy(create_model("vit_ti16", 5, **options))
    names = to_torch("vit_ti16", variables, **options)
    assert names["exits.0.head.weight"].shape == (5, 24)
    again = from_torch("vit_ti16", names, 5, **options)
    jax.tree.map(np.testing.assert_array_equal, again["params"], variables["params"])


def test_weights_without_exits_load_and_the_exits_are_new(caplog) -> None:
    options: dict[str, Any] = dict(SMALL, depth=2)
    names = to_torch("vit_ti16", noisy(create_model("vit_ti16", 5, **options)), **options)
    model, variables = load_arrays("vit_ti16", names, "a.npz", exits=(0,), **options)
    assert "a.npz has no early exits; they are new" in caplog.text
    assert model.num_exits == 2
    kernel = variables["params"]["block_1"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(kernel, names["blocks.1.mlp.fc1.weight"].T)
    factors = layer_factors(variables["params"], 0.5)
    assert factors["exit_0"]["norm"]["scale"] == 1 and factors["block_0"]["norm1"]["scale"] == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(exits=(2, 1)), r"exits=\(2, 1\): name blocks from 0 to 2"),
        (dict(exits=(3,)), "block 3 has the model's own head"),
        (dict(exits=(1,), scan=True), "scan=True, pool='token'"),
        (dict(exits=(1,), pool="map"), "pool='map'"),
    ],
)
def test_exits_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("vit_ti16", 5, depth=4, **SMALL, **options)
    with pytest.raises(ValueError, match="num_classes=0"):
        create_model("vit_ti16", 0, depth=4, exits=(1,), **SMALL)
    with pytest.raises(ValueError, match="DistilledDeiT"):
        create_model("deit_tiny_distilled", 5, depth=4, exits=(1,), **SMALL)
