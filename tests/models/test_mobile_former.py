"""Mobile-Former against the numbers of both its implementations, and its parts by hand."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import vitjax
from tests.attention.test_nonlocal_block import filled
from tests.drawn import random_variables
from tests.golden.compare import check_case
from vitjax import weights
from vitjax.analysis.cost import multiply_adds
from vitjax.attention.full import FullAttention
from vitjax.attention.light import LightAttention, LightQueries
from vitjax.models.mobile_former import FAMILY, DynamicReLU, shuffled
from vitjax.models.protocols import Backbone
from vitjax.weights.libraries import rename
from vitjax.weights.mobile_former import THIRD_PARTY

COUNTS = {  # parameters and multiply-adds, by PyTorch's counter, of the first author's code
    "26m": (3232788, 23550208),
    "52m": (3469092, 49290496),
    "96m": (4585252, 92017040),
    "151m": (7595828, 146249168),
    "214m": (9425920, 208374240),
    "294m": (11422648, 286732160),
    "508m": (13976976, 498467680),
}
SMALL: dict[str, Any] = dict(
    blocks=((2, 24, 8), (1, 24, 8), (1, 32, 16)), stem_width=4, lite=(8, 4, 1), num_tokens=3,
    token_dim=8, hidden_width=24, groups=2,
)  # fmt: skip
TINY = SMALL | dict(num_classes=5, image_size=32)


@pytest.mark.golden
def test_a_small_one_is_the_official_one() -> None:
    stages = {"stem": "stem", "features.1.conv4": "block_0/conv_3"}
    stages |= {f"features.{i}.conv3": f"block_{i - 1}/conv_2" for i in (2, 3)}
    check_case(
        "mobile_former_tiny_40x40",
        "mobile_former_96m",
        stages,
        num_classes=50,
        image_size=40,
        **SMALL,
    )


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_the_third_partys_is_theirs() -> None:
    """A maximum of dynamic ReLU has a near tie, which rounding decides as the reference's does."""
    stages = {"stem": "stem", "bneck": "lite_1", "project": "neck",
              "blocks.0.former": "block_0/former", "blocks.7.former": "block_7/former"}  # fmt: skip
    check_case(
        "mobileformer_96",
        "mobile_former_96m_slwang9353",
        stages,
        rename=lambda key: rename(key, THIRD_PARTY.rules),
    )


@pytest.mark.parametrize(
    "variant", [v if v == "26m" else pytest.param(v, marks=pytest.mark.slow) for v in COUNTS]
)
def test_sizes_are_the_official_and_the_published_ones(variant: str) -> None:
    """Parameters and multiply-adds; the paper's are ours, with one for each value that BatchNorm
    gives and two for each of dynamic ReLU's, within 2 %.
    """
    name, others = f"mobile_former_{variant}", []

    def note(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(context.module, nn.BatchNorm):
            others.append(out.size)
        elif context.method_name == "__call__" and isinstance(context.module, DynamicReLU):
            others.append(2 * out.size)
        return out

    model = vitjax.create_model(name)
    with nn.intercept_methods(note):
        program, shapes = jax.make_jaxpr(model.init_with_output, return_shape=True)(
            jax.random.key(0), jnp.zeros((1, 224, 224, 3))
        )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes[1]["params"]))
    macs = multiply_adds(program.jaxpr)
    assert (parameters, macs) == COUNTS[variant]
    published = [(size or 0) * 1e6 for size in FAMILY.published[name][:2]]
    found = [parameters, (macs + sum(others)) / 1000]
    np.testing.assert_allclose(found, published, rtol=0.02)


def test_light_attention_is_full_attention_of_unprojected_keys_and_values() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 6))
    module = LightAttention(num_heads=3)
    params = filled(module, x)["params"]
    eye = np.broadcast_to(np.eye(6).reshape(6, 1, 3, 2), (6, 2, 3, 2))
    qkv = {
        "kernel": np.concatenate([params["q"]["kernel"], eye], axis=1),
        "bias": np.concatenate([params["q"]["bias"], np.zeros((2, 3, 2))]),
    }
    expected = FullAttention(num_heads=3).apply({"params": {"qkv": qkv, "proj": params["proj"]}}, x)
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


def test_bridges_are_the_formula() -> None:
    z, x = (
        jax.random.normal(jax.random.key(0), (2, 3, 4)),
        np.random.default_rng(0).normal(size=(2, 2, 5, 6)),
    )
    pixels, tokens = x.reshape(2, 10, 6), np.asarray(z)

    def linear(y: Any, layer: Any) -> Any:
        return y @ layer["kernel"].reshape(y.shape[-1], -1) + layer["bias"].reshape(-1)

    def attend(q: Any, k: Any, v: Any) -> Any:
        """Compute attention with two heads of 3 channels."""
        parts = []
        for h in (slice(0, 3), slice(3, 6)):
            share = np.exp(q[..., h] @ k[..., h].swapaxes(1, 2) / 3**0.5)
            parts.append(share / share.sum(-1, keepdims=True) @ v[..., h])
        return np.concatenate(parts, axis=-1)

    bridge: Any = LightAttention(gated=True)
    x = jnp.asarray(x, jnp.float32)
    params = jax.tree.map(np.asarray, filled_with(bridge, z, False, x))
    read = attend(linear(tokens, params["q"]), pixels, pixels)
    gate = np.clip(linear(tokens, params["gate"]) / 6 + 0.5, 0, 1)
    expected = linear(2 * gate * read, params["proj"])
    found = bridge.apply({"params": params}, z, False, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    for joined in (True, False):
        back: Any = LightQueries(joined=joined)
        params = jax.tree.map(np.asarray, filled_with(back, x, z))
        if joined:
            k, v = np.split(linear(tokens, params["kv"]), 2, axis=-1)
        else:
            k, v = linear(tokens, params["k"]), linear(tokens, params["v"])
        found = back.apply({"params": params}, x, z)
        expected = attend(pixels, k, v).reshape(x.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def filled_with(module: Any, *args: Any) -> Any:
    shapes = jax.eval_shape(lambda key: module.init(key, *args), jax.random.key(0))["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float32), shapes)


def test_dynamic_relu_is_the_larger_line() -> None:
    x, token = jax.random.normal(jax.random.key(0), (2, 3, 2, 4)), jnp.ones((2, 8))
    for offsets in (False, True):
        module: Any = DynamicReLU(offsets)
        variables = module.init(jax.random.key(1), x, token)
        params = jax.tree.map(jnp.zeros_like, variables["params"])
        theta = jnp.asarray([1.0, -2, 0, 5] * (4 if offsets else 2))
        params["fc2"]["bias"] = theta
        if offsets:
            params["norm"]["scale"] = jnp.full(16, (1 + 1e-5) ** 0.5)
        squash = nn.sigmoid if offsets else nn.hard_sigmoid
        s = 2 * squash(theta[:4]) - 1
        b = s / 2 if offsets else 0.0
        found = module.apply({**variables, "params": params}, x, token)
        np.testing.assert_allclose(found, jnp.maximum((1 + s) * x + b, s * x + b), atol=1e-6)


def test_channels_are_shuffled_between_groups() -> None:
    x = jnp.arange(6.0).reshape(1, 1, 1, 6)
    np.testing.assert_array_equal(shuffled(x, 2)[0, 0, 0], [0, 3, 1, 4, 2, 5])


def test_maps_of_an_odd_size() -> None:
    blocks = ((1, 8, 4), (2, 8, 6), (1, 8, 8), (2, 8, 10))
    options = TINY | dict(lite=(8, 4, 2), blocks=blocks)
    model: Any = vitjax.create_model("mobile_former_52m", **options)
    assert model.strides == (4, 8, 16)
    assert vitjax.create_model("mobile_former_294m").strides == (4, 8, 16, 32)  # type: ignore
    maps = jax.eval_shape(
        lambda v, x: model.apply(v, x, method="features"),
        weights.abstract_variables(model),
        jnp.zeros((1, 97, 131, 3)),
    )
    assert [m.shape[1:] for m in maps] == [(25, 33, 4), (13, 17, 8), (7, 9, 10)]
    assert isinstance(model, Backbone)


def test_weights_there_and_back() -> None:
    variables = random_variables(vitjax.create_model("mobile_former_26m", **TINY))
    state = weights.to_torch("mobile_former_26m", variables)
    assert state["features.1.hyper3.hyper.2.weight"].shape == (64, 2)
    assert state["features.2.conv1.0.weight"].shape == (24, 4, 1, 1)
    assert state["local_global.alpha.0.weight"].shape == (16, 8)
    wrapped = {f"module.{key}": value for key, value in state.items()}
    chex.assert_trees_all_equal(weights.from_torch("mobile_former_26m", wrapped, **TINY), variables)
    state["classifier.classifier.1.bias"] = state.pop("stem.1.bias")
    with pytest.raises(ValueError, match="2 keys differ"):
        weights.from_torch("mobile_former_26m", state, **TINY)


def test_former_takes_mixers_of_sequences() -> None:
    model: Any = vitjax.create_model("mobile_former_96m", **TINY, mixer="full(qk_norm=True)")
    params = weights.abstract_variables(model)["params"]
    assert params["block_1"]["former"]["mixer"]["qkv"]["kernel"].shape == (8, 3, 4, 2)
    with pytest.raises((ValueError, TypeCheckError), match=r"B H W C|B, H, W, C"):
        weights.abstract_variables(vitjax.create_model("mobile_former_96m", mixer="dwconv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mixer="ful"), "did you mean 'full'"),
        (dict(mixer="full | light"), "give one mixer"),
        (dict(layout="slwang"), "did you mean 'slwang9353'"),
        (dict(layout="slwang9353", mixer="full"), "Former is fixed"),
    ],
)
def test_what_it_does_not_take_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vitjax.create_model("mobile_former_96m", **options)


@pytest.mark.slow
def test_bfloat16_statistics_and_remat() -> None:
    options = TINY | dict(blocks=((2, 8, 8), (1, 8, 8)))
    model: Any = vitjax.create_model("mobile_former_96m", **options)
    # Enough samples for the head's BatchNorm: of two it would leave only the sign.
    variables, x = random_variables(model), jax.random.normal(jax.random.key(0), (6, 32, 32, 3))
    exact = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=5e-2 * np.abs(exact).max())
    shapes = jax.eval_shape(model.clone(num_classes=0).init_with_output, jax.random.key(0), x)
    assert shapes[0].shape == (6, 24) and "head" not in shapes[1]["params"]

    def loss(params, model):
        rngs = {"dropout": jax.random.key(0)}
        own = {**variables, "params": params}
        out, new = model.apply(own, x, True, rngs=rngs, mutable=["batch_stats"])
        return jnp.sum(out**2), new

    (grads, new), (again, _) = (
        jax.jit(jax.grad(lambda p, m=m: loss(p, m), has_aux=True))(variables["params"])
        for m in (model, model.clone(remat=True))
    )
    chex.assert_trees_all_close(grads, again, rtol=1e-3, atol=1e-3)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), new, {k: variables[k] for k in new})
    assert min(jax.tree.leaves(moved)) > 0
