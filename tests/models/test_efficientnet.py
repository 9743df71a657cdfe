"""EfficientNet against timm's and torchvision's numbers, counts, and maps of any size."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.golden.compare import FOLDER, check_case
from tests.models.test_pvt import noisy, run
from vitjax import weights
from vitjax.layers.downsample import ConvNorm
from vitjax.models.efficientnet import scale_width
from vitjax.models.pyramid import DecayRules
from vitjax.train.layer_decay import layer_factors
from vitjax.train.optimizer import match_rules
from vitjax.train.state import named_leaves
from vitjax.weights.efficientnet import TORCHVISION
from vitjax.weights.libraries import rename

TINY: dict[str, Any] = dict(width_factor=0.1, depth_factor=0.3, image_size=64)
"""Eight channels nearly everywhere, and one or two blocks a stage."""
SYMMETRIC: dict[str, Any] = dict(padding="symmetric", norm_epsilon=1e-5)


@pytest.mark.golden
def test_it_is_the_authors_as_timm_has_it() -> None:
    stages = {
        "conv_stem": "stem/conv",
        "bn1": "stem",
        "blocks.0.0.se": "stage_0/block_0/se",
        "blocks.1.0.se": "stage_1/block_0/se",
        "conv_head": "top/conv",
        "blocks.1.0.conv_dw": "stage_1/block_0/depthwise/conv",
        **{f"blocks.{i}": f"stage_{i}" for i in range(7)},
    }
    check_case("tf_efficientnet_b0_96x128", "tf_efficientnet_b0", stages)


@pytest.mark.golden
@pytest.mark.slow
def test_with_symmetric_padding_it_is_torchvisions() -> None:
    stages = {
        "features.0": "stem",
        "features.8": "top",
        "features.1.0.block.1": "stage_0/block_0/se",
        "features.2.0.block.1": "stage_1/block_0/depthwise",
        **{f"features.{i + 1}": f"stage_{i}" for i in range(7)},
    }
    check_case(
        "efficientnet_b0_tv_96x128",
        "efficientnet_b0",
        stages,
        rename=lambda key: rename(key, TORCHVISION.rules),
        **SYMMETRIC,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("efficientnet_*"))
def test_counts_are_the_official_ones(name: str) -> None:
    counts = json.loads((FOLDER / "param_counts.json").read_text())[f"tf_{name}"]
    model: Any = vitjax.create_model(name)
    params = weights.abstract_variables(model)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counts["params"]
    assert model.image_size == counts["input"]


def test_widths_are_rounded_to_eights() -> None:
    """By hand: 17.6 → 16, 44.8 → 48 and 22.4 → 24; 9.6 → 8 would lose more than a tenth."""
    scaled = [scale_width(w, f) for w, f in ((16, 1.1), (32, 1.4), (16, 1.4), (16, 0.6))]
    assert scaled == [16, 48, 24, 16]


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_maps_round_up(padding: str) -> None:
    model: Any = vitjax.create_model("efficientnet_b0", **TINY, padding=padding)
    variables = weights.abstract_variables(model)
    images = jax.ShapeDtypeStruct((1, 97, 131, 3), jnp.float32)
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, images)
    assert [m.shape[1:3] for m in maps] == [(-(-97 // s), -(-131 // s)) for s in model.strides]
    assert maps[0].shape[3] == 8 and maps[3].shape[3] == 32


@pytest.mark.parametrize("side", [13, 14])
def test_same_padding_puts_the_odd_zero_last(side: int) -> None:
    """For a kernel of 5 and a stride of 2: two zeros before, two or one after."""
    x = np.random.default_rng(0).standard_normal((1, side, side, 3), np.float32)
    conv: Any = ConvNorm(3, 5, 2, "SAME", depthwise=True)
    params = conv.init(jax.random.key(0), jnp.asarray(x))
    before, after = (2, 2) if side % 2 else (1, 2)
    by_hand = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    valid: Any = ConvNorm(3, 5, 2, depthwise=True)
    theirs = valid.apply(params, jnp.asarray(by_hand))
    np.testing.assert_allclose(conv.apply(params, jnp.asarray(x)), theirs, atol=1e-6)


def test_all_but_batch_norm_decays() -> None:
    model: Any = vitjax.create_model("efficientnet_b0", **TINY)
    params = weights.abstract_variables(model)["params"]
    rules: DecayRules = model.decay_rules
    factors = named_leaves(match_rules(params, rules, "decay_rules"))
    assert {f for path, f in factors.items() if "norm/" in path} == {0.0}
    assert {f for path, f in factors.items() if "norm/" not in path} == {1.0}
    assert factors["head/bias"] == factors["stage_1/block_0/se/fc1/bias"] == 1.0


def test_layer_decay_has_the_last_convolution_with_the_head() -> None:
    model: Any = vitjax.create_model("efficientnet_b0", **TINY)
    params = weights.abstract_variables(model)["params"]
    factors = named_leaves(layer_factors(params, 0.5))
    assert factors["top/conv/kernel"] == factors["head/kernel"] == 1.0
    blocks = len({tuple(path.split("/")[:2]) for path in factors if "block_" in path})
    assert factors["stem/conv/kernel"] == 0.5 ** (blocks + 1)


@pytest.mark.slow
def test_first_weights_are_the_authors() -> None:
    """Convolutions have variance 2 / fan-out, where that of a depthwise one is its area."""
    model: Any = vitjax.create_model("efficientnet_b0", 1000, **{**TINY, "width_factor": 1.0})
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    block = params["stage_6"]["block_0"]
    for kernel, variance in (
        (params["stem"]["conv"]["kernel"], 2 / (9 * 32)),
        (block["expand"]["conv"]["kernel"], 2 / 1152),
        (block["depthwise"]["conv"]["kernel"], 2 / 9),
        (block["se"]["fc1"]["kernel"], 2 / 48),
        (params["head"]["kernel"], 1 / 3000),  # uniform within ±1/√1000
    ):
        np.testing.assert_allclose(jnp.var(kernel), variance, rtol=0.15)
    assert not block["se"]["fc1"]["bias"].any() and not params["head"]["bias"].any()


@pytest.mark.slow
def test_bfloat16_training_and_remat() -> None:
    options = dict(TINY, num_classes=5)
    model: Any = vitjax.create_model("efficientnet_b0", **options)
    variables, images = noisy(model, (45, 67), batch=2)
    exact = run(model, variables, images)
    half = run(model.clone(dtype=jnp.bfloat16), variables, images)
    assert half.dtype == jnp.bfloat16
    assert np.linalg.norm(half - exact) <= 5e-2 * np.linalg.norm(exact)

    def train(model):
        def loss(params):
            logits, new = model.apply(
                {**variables, "params": params},
                images,
                True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            return jnp.sum(jnp.sin(logits)), new

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    grads, new = train(model)
    old = variables["batch_stats"]["stem"]["norm"]["mean"]
    assert not np.allclose(new["batch_stats"]["stem"]["norm"]["mean"], old)
    recomputed, _ = train(model.clone(remat=True))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grads, recomputed
    )
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match=r"padding.*'sam'.*same.*symmetric"):
        vitjax.create_model("efficientnet_b0", padding="sam")
    stem = {"features.0.0.weight": np.zeros((32, 3, 3, 3), np.float32)}
    with pytest.raises(ValueError, match="trained with padding='symmetric' and norm_epsilon=1e-05"):
        weights.from_torch("efficientnet_b0", stem)
    with pytest.raises(ValueError, match=r"norm_epsilon=0\.001, and the model has"):
        weights.from_torch("efficientnet_b7", stem, padding="symmetric", norm_epsilon=1e-5)


def test_timms_names_do_not_tell_paddings_apart(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = vitjax.create_model("efficientnet_b0", 5, **TINY)
    state = weights.to_torch("efficientnet_b0", noisy(model)[0])
    assert {"blocks.0.0.conv_dw.weight", "blocks.1.0.bn3.running_var"} <= set(state)
    prefixed = {f"model.{key}": value for key, value in state.items()}
    again = weights.from_torch("efficientnet_b0", prefixed, 5, **TINY)
    assert "those without 'tf_' need padding='symmetric'" in caplog.text
    theirs = weights.to_torch("efficientnet_b0", again)
    assert state.keys() == theirs.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], theirs[key])
