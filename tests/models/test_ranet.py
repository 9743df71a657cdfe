"""RANet against the numbers of the official implementation, and its parts against the whole."""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_gradients, check_stages
from tests.models.test_pvt import noisy
from vitjax import weights
from vitjax.models.protocols import GivesExits
from vitjax.models.ranet import DenseBlock

SMALL: dict[str, Any] = dict(
    scales=(1, 2), growth_factors=(2, 1), bottleneck_factors=(2, 1), blocks=1, block_step=1,
    stem_width=4, growth=4, layers=2, num_classes=5, image_size=16,
)  # fmt: skip
OPTIONS: dict[str, Any] = {k: v for k, v in SMALL.items() if k != "num_classes"}


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ranet_cifar_3scale", "ranet_cifar_4scale"])
def test_all_exits_are_the_official_ones(name: str) -> None:
    data, meta, state_dict = load_golden.load(FOLDER / f"{name}.npz")
    model = vitjax.create_model(name)
    variables = weights.from_torch(name, state_dict)
    images = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    probes = load_golden.probes(meta)
    stages = {s: _path(s, len(model.scales)) for s in data["stage_names"].tolist()}
    wanted = set(stages.values())

    def loss(params: Any, x: Any) -> Any:
        logits, sown = model.apply(
            {**variables, "params": params},
            x,
            mutable=["intermediates"],
            method="exit_logits",
            capture_intermediates=lambda module, method: (
                method == "__call__" and module.path in wanted
            ),
        )
        total = sum(jnp.sum(z * p) for z, p in zip(logits, probes, strict=True))
        return total, (logits, sown["intermediates"])

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, (logits, sown)), (grads, grad_x) = step(variables["params"], images)

    for k, ours in enumerate(logits):
        np.testing.assert_allclose(
            ours, data[f"logits{k}_f64"], rtol=0, atol=5 * meta["f32_noise"] + 1e-6
        )
    maps = {
        key: {"__call__": jax.tree.leaves(value["__call__"])[:1]} for key, value in sown.items()
    }
    check_stages(data, maps, stages)
    np.testing.assert_allclose(
        np.asarray(grad_x).transpose(0, 3, 1, 2)[:, :, ::4, ::4],
        data["grad_x"],
        rtol=0,
        atol=10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"],
    )
    check_gradients(data, meta, weights.to_torch(name, {"params": grads}), None)


def _path(stage: str, scales: int) -> tuple[str, ...]:
    """Name our module of one of theirs."""
    kind, *numbers = stage.split(".")
    name = {"first": f"stem_{scales - 1}", "scale_flows": "block", "classifier": "head"}[kind]
    return ("_".join((name, *numbers)),)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ranet_cifar_3scale", "ranet_cifar_4scale"])
def test_the_size_is_the_official_one(name: str) -> None:
    official = json.loads((FOLDER / "param_counts.json").read_text())[name]
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == official["params"]


@functools.cache
def small() -> tuple[Any, Any, Any]:
    """A model of three blocks, its variables, and images of no whole number of strides."""
    model = vitjax.create_model("ranet_cifar_3scale", **SMALL)
    return model, *noisy(model, (23, 17))


def test_parts_one_after_the_other_give_the_exits() -> None:
    model, variables, images = small()
    exits: Any = model
    assert isinstance(exits, GivesExits) and exits.num_exits == 2
    whole = jax.jit(lambda v, x: model.apply(v, x, method="exit_logits"))(variables, images)
    state: Any = images
    for k in range(model.num_exits):
        part = jax.jit(functools.partial(model.apply, method="run_part"), static_argnums=1)
        logits, state = part(variables, k, state)
        np.testing.assert_allclose(logits, whole[k], atol=1e-5)
    assert state is None
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), whole[-1], atol=1e-5)


@pytest.mark.slow
def test_odd_sizes_and_larger_images() -> None:
    for name, size, classes in (
        ("ranet_cifar_4scale", (33, 47), 10),
        ("ranet_imagenet_4scale", (101, 131), 1000),
    ):
        model = vitjax.create_model(name, layers=1)
        variables, images = weights.abstract_variables(model), jnp.zeros((2, *size, 3))
        logits = jax.eval_shape(
            lambda v, x, m=model: m.apply(v, x, method="exit_logits"), variables, images
        )
        assert [z.shape for z in logits] == [(2, classes)] * 8


def test_bfloat16_and_remat() -> None:
    model, variables, images = small()
    exact = jax.jit(model.apply)(variables, images)
    half = jax.jit(model.clone(dtype=jnp.bfloat16, remat=True).apply)(variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=5e-2 * np.abs(exact).max())


def test_weights_there_and_back() -> None:
    name, (_, variables, _) = "ranet_cifar_3scale", small()
    state = weights.to_torch(name, variables, **OPTIONS)
    assert "scale_flows.1.0.layers.1.conv_up.net.3.weight" in state
    again = weights.to_torch(name, weights.from_torch(name, state, **SMALL), **OPTIONS)
    assert state.keys() == again.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], again[key])


def test_blocks_without_features_are_densely_connected() -> None:
    """A layer's input are the map and all that earlier layers appended, untouched."""
    x = jax.random.normal(jax.random.key(0), (1, 5, 7, 3))
    block = DenseBlock(layers=3, growth=2, factor=4)
    (y, features), _ = jax.jit(block.init_with_output)(jax.random.key(1), x)
    assert y.shape == (1, 5, 7, 9)
    np.testing.assert_array_equal(y[..., :3], x)
    np.testing.assert_array_equal(features[0], y)
    assert len(features) == 1
    fused = DenseBlock(layers=3, growth=4, factor=1, lower_growth=2, halve=True)
    (z, (before, after)), params = jax.eval_shape(
        fused.init_with_output, jax.random.key(1), x, features
    )
    assert before.shape == (1, 5, 7, 11) and after.shape == (1, 3, 4, 15)
    assert z.shape == (1, 3, 4, 15 + 3)  # a quarter of 15 is of the coarser map
    assert params["params"]["layer_1_lower"]["reduce"]["conv"]["kernel"].shape[2] == 3 + 2


def test_growing_blocks() -> None:
    """Block b has (b + 1) · layers, as in the second network of the authors' README."""
    model = vitjax.create_model("ranet_cifar_3scale", layers=1, layer_mode="growing")
    params = weights.abstract_variables(model)["params"]
    layers = [sum("own" in n for n in params[f"block_2_{b}"]) for b in range(6)]
    assert layers == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(scales=(1, 3, 2)), "do not fall"),
        (dict(scales=(1, 2)), "one of each"),
        (dict(num_classes=0), "classifiers"),
        (dict(layer_mode="evn"), "did you mean 'even'"),
        (dict(stem="imagenett"), "did you mean 'imagenet'"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vitjax.create_model("ranet_cifar_3scale", **options)
