"""VOLO against the official numbers, on maps of any size, and with and without token labels."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import vitjax
from tests.golden.compare import FOLDER, check_case
from tests.models.test_pvt import noisy, run
from vitjax import weights

STAGES = {
    "stem": "stem/conv_2",
    "patch_embed": "stem",
    "network0": "stage_0",
    "network1": "downsample_1/proj",
    "network2": "stage_1",
    "network3": "stage_2",
    "network4": "stage_3",
    "post0": "post_0",
    "post1": "post_1",
    **{name: name for name in ("norm", "head", "aux_head")},
    **{f"network.0.{i}": f"stage_0/block_{i}" for i in range(4)},
    **{
        f"network.{s + 1}.{i}": f"stage_{s}/block_{i}"
        for s, depth in ((1, 4), (2, 8), (3, 2))
        for i in range(depth)
    },
}
SMALL = dict(
    dims=(16, 24, 24, 24), depths=(2, 1, 1, 1), num_heads=(2, 3, 3, 3), stem_width=8, num_classes=5
)


@pytest.mark.golden
def test_volo_is_the_official_one(optimized: None) -> None:
    # The logits hold a maximum over tokens. In this case two come so close that rounding, which the
    # compiler's options change, decides through which one the gradient goes.
    check_case("volo_d1_224", "volo_d1", STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("volo_*"))
def test_counts_are_the_official_ones(name: str) -> None:
    counts = json.loads((FOLDER / "param_counts.json").read_text())
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counts[f"{name}_224"]["params"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (104, 75)])
def test_any_image_size(size: tuple[int, int]) -> None:
    model = vitjax.create_model("volo_d1", **SMALL)
    variables, images = noisy(model, size)
    logits = run(model, variables, images)
    assert np.isfinite(logits).all()
    maps = run(model, variables, images, method="features")
    fine = tuple(-(-s // 2) // 4 for s in size)
    coarse = tuple(s // 2 for s in fine)
    assert [m.shape[1:3] for m in maps] == [fine, coarse, coarse, coarse]
    token, patches = run(model, variables, images, method="token_logits")
    assert patches.shape == (1, *coarse, 5)
    np.testing.assert_allclose(logits, token + 0.5 * patches.max(axis=(1, 2)), atol=1e-6)


@pytest.mark.slow
def test_another_image_size_resizes_positions_alike_in_the_model_and_at_loading() -> None:
    model = vitjax.create_model("volo_d1", image_size=64, **SMALL)
    variables, _ = noisy(model)
    images = noisy(model, (96, 160), 2)[1]
    overrides = dict(SMALL, image_size=(96, 160))
    loaded = weights.from_torch("volo_d1", weights.to_torch("volo_d1", variables), **overrides)
    assert loaded["params"]["downsample_1"]["pos_embed"].shape == (1, 6, 10, 24)
    resized = run(vitjax.create_model("volo_d1", **overrides), loaded, images)
    np.testing.assert_allclose(run(model, variables, images), resized, atol=1e-5)


@pytest.mark.slow
def test_weights_there_and_back() -> None:
    state = weights.to_torch("volo_d1", noisy(vitjax.create_model("volo_d1", **SMALL))[0])
    again = weights.to_torch("volo_d1", weights.from_torch("volo_d1", state, **SMALL))
    assert state.keys() == again.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], again[key])
    assert state["pos_embed"].shape == (1, 14, 14, 24)
    plain = weights.from_torch("volo_d1", state, **SMALL, token_label=False)
    assert "aux_head" not in plain["params"]
    with pytest.raises(ValueError, match=r"unused: cls_token"):
        weights.from_torch("volo_d1", state, **SMALL, post_layers=None)


def test_other_stage_patterns_load_with_the_official_numbering() -> None:
    options = dict(SMALL, dims=(16, 24, 30, 30), downsample=(True, True, False, False))
    model = vitjax.create_model("volo_d1", **options)
    state = weights.to_torch("volo_d1", noisy(model)[0])
    numbers = {"network.3.": "network.4.", "network.4.": "network.5."}
    numbers["network.downsample2."] = "network.3."
    official = {}
    for key, value in state.items():
        old = next((n for n in numbers if key.startswith(n)), "")
        official[numbers.get(old, "") + key.removeprefix(old)] = value
    assert official["network.3.proj.weight"].shape == (30, 24, 2, 2)
    again = weights.to_torch("volo_d1", weights.from_torch("volo_d1", official, **options))
    for key in state:
        np.testing.assert_array_equal(state[key], again[key])


@pytest.mark.slow
def test_pooling_and_class_blocks_are_options() -> None:
    no_token = dict(SMALL, post_layers=None, token_label=False, image_size=64)
    for options in (no_token, dict(no_token, pool="gap"), dict(no_token, num_classes=0)):
        model = vitjax.create_model("volo_d1", **options)
        variables, images = noisy(model)
        assert not {"cls_token", "post_0", "aux_head"} & set(variables["params"])
        assert run(model, variables, images).shape == (1, options["num_classes"] or 24)
    model = vitjax.create_model("volo_d1", **{**no_token, "pool": "gap"})
    variables, images = noisy(model)
    tokens = run(model, variables, images, method=lambda m, x: m.tokens(m.features(x)[-1], False))
    head = variables["params"]["head"]
    pooled = tokens.mean(axis=1) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(run(model, variables, images), pooled, atol=1e-5)
    options = dict(SMALL, kernel_size=5, stride=3, qkv_bias=True, scale=0.1, drop_rate=0.1)
    shapes = weights.abstract_variables(vitjax.create_model("volo_d1", **options))
    flat = traverse_util.flatten_dict(shapes["params"], sep="/")
    assert flat["stage_0/block_0/mixer/attn/kernel"].shape == (16, 2, 25, 25)
    assert "post_0/mixer/kv/bias" in flat
    for mixer in ("outlook ; outlook ; full ; sra", "window|pooling ; full ; dwconv ; linear_sra"):
        weights.abstract_variables(vitjax.create_model("volo_d1", **SMALL, mixer=mixer))


def test_outlookers_get_no_stochastic_depth() -> None:
    model = vitjax.create_model("volo_d1", drop_path_rate=0.17)
    assert model.drop_path_rate[:4] == (0.0,) * 4
    np.testing.assert_allclose(model.drop_path_rate[4:], np.linspace(0, 0.17, 18)[4:])


@pytest.mark.slow
def test_dtypes_dropout_and_remat() -> None:
    options = dict(SMALL, image_size=64)
    model = vitjax.create_model("volo_d1", **options)
    variables, images = noisy(model, batch=2)
    exact = run(model, variables, images)
    half = run(vitjax.create_model("volo_d1", **options, dtype=jnp.bfloat16), variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())
    drops = dict(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.5, remat=True)
    model = vitjax.create_model("volo_d1", **options, **drops)

    def loss(params, state):
        (token, patches), state = model.apply(
            {"params": params, **state},
            images,
            True,
            rngs={"dropout": jax.random.key(0)},
            method="token_logits",
            mutable=["batch_stats"],
        )
        return token.sum() + patches.sum(), state

    params, state = variables["params"], {"batch_stats": variables["batch_stats"]}
    step = jax.jit(jax.grad(loss, has_aux=True)).lower(params, state)
    grads, state = step.compile()(params, state)
    grads = jax.tree.leaves(grads)
    assert all(np.isfinite(g).all() for g in grads)
    # Stochastic depth may drop a branch for both samples; which, the version of jax decides.
    assert np.mean([np.abs(g).max() > 0 for g in grads]) > 0.7
    assert "gather" not in step.as_text()
    assert "scatter" not in step.as_text()


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match="token_label=False"):
        vitjax.create_model("volo_d1", pool="gap")
    with pytest.raises(ValueError, match="'ca'"):
        vitjax.create_model("volo_d1", post_layers=("sa",))
    model = vitjax.create_model("volo_d1", **SMALL, token_label=False)
    variables, images = noisy(model)
    with pytest.raises(ValueError, match="token_label=True"):
        run(model, variables, images, method="token_logits")
