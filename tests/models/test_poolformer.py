"""PoolFormer against the authors' code and timm's, and its parts against their formulas.

`poolformer_*.npz` hold a small model of sail-sg/poolformer at 70×94 pixels, and timm's s12 at
64×80, by the rules of `load_golden.py` (PyTorch 2.13, timm 1.0.31).
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import random_variables
from tests.golden.compare import check_case
from tests.models.test_table import ROWS
from vitjax import weights
from vitjax.layers.norm import map_norm

SMALL: dict[str, Any] = dict(
    dims=(16, 24, 32, 40), depths=(2, 1, 2, 1), num_classes=10, image_size=(70, 94)
)
TINY: dict[str, Any] = dict(dims=(8, 8, 16, 16), depths=(1, 2, 1, 1), num_classes=5, image_size=64)
STAGES = {f"network.{2 * i}": f"stage_{i}" for i in range(4)}
OF_TIMM = {f"stages.{i}": f"stage_{i}" for i in range(4)}
COUNTS = {  # of timm 1.0.31
    "poolformer_s12": 11_915_176,
    "poolformer_s24": 21_388_968,
    "poolformer_s36": 30_862_760,
    "poolformer_m36": 56_172_520,
    "poolformer_m48": 73_473_448,
}


LIBRARIES = weights.FAMILIES[weights.model_spec("poolformer_s12").factory].LIBRARIES


@pytest.mark.golden
def test_it_is_the_authors_one() -> None:
    check_case(
        "poolformer_small_70x94",
        "poolformer_s12",
        {"patch_embed": "stem", "norm": "norm", **STAGES},
        **SMALL,
    )


@pytest.mark.golden
@pytest.mark.slow
def test_s12_is_timms() -> None:
    renamed = weights.libraries.rename
    check_case(
        "poolformer_s12_timm_64x80",
        "poolformer_s12",
        {"stem": "stem", "head.norm": "norm", **OF_TIMM},
        rename=lambda key: renamed(key, LIBRARIES[0].rules),
        norm_pooled=True,
    )


def test_counts_are_timms() -> None:
    assert {n: int(ROWS[n][1].replace(",", "")) for n in COUNTS} == COUNTS
    assert [*COUNTS] == vitjax.list_models("poolformer_*")
    params = weights.abstract_variables(vitjax.create_model("poolformer_s12"))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS["poolformer_s12"]


def test_the_norm_is_of_whole_maps() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32) * [1, 2, 3, 4, 5]
    norm = map_norm().build()
    ours = norm.apply(norm.init(jax.random.key(0), x), x)
    flat = x.reshape(2, -1)
    expected = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(ours, expected.reshape(x.shape), atol=1e-5)


def test_weights_there_and_back_also_by_timms_names(caplog: pytest.LogCaptureFixture) -> None:
    variables = random_variables(vitjax.create_model("poolformer_s12", **TINY))
    state = weights.to_torch("poolformer_s12", variables)
    assert state["network.2.1.mlp.fc1.weight"].shape == (32, 8, 1, 1)
    assert {"network.5.proj.weight", "network.6.0.layer_scale_2"} <= state.keys()
    timm = {}
    for key, value in state.items():
        for i in range(4):
            key = key.replace(f"network.{2 * i - 1}.proj", f"stages.{i}.downsample.conv")
            key = key.replace(f"network.{2 * i}.", f"stages.{i}.blocks.")
        key = key.replace("layer_scale_1", "layer_scale1.scale")
        key = key.replace("layer_scale_2", "layer_scale2.scale").replace("head.", "head.fc.")
        key = "head." + key if key.startswith("norm.") else key
        timm[key.replace("patch_embed.proj", "stem.conv")] = value
    assert not timm.keys() & state.keys()
    for theirs in (state, timm):
        again = weights.from_torch("poolformer_s12", theirs, **TINY)
        chex.assert_trees_all_equal(again, variables)
    assert "norm_pooled=True is timm's" in caplog.text
    caplog.clear()
    weights.from_torch("poolformer_s12", timm, norm_pooled=True, **TINY)
    assert "names of timm" in caplog.text and "norm_pooled" not in caplog.text


def test_names_of_timm_with_a_tag() -> None:
    tagged = vitjax.create_model("poolformer_m36.sail_in1k")
    assert tagged == vitjax.create_model("poolformer_m36")
    with pytest.raises(ValueError, match=r"Unknown model 'swin_tiny\.sail_in1k'"):
        vitjax.create_model("swin_tiny.sail_in1k")


@pytest.mark.slow
def test_dense_maps_attention_in_its_place_and_bfloat16() -> None:
    options: dict[str, Any] = dict(TINY, mixer="pooling ; pooling ; full ; full")
    model: Any = vitjax.create_model("poolformer_s12", drop_path_rate=0.2, dense=True, **options)
    variables = random_variables(model.clone(feature_norm=None))
    x = jax.random.normal(jax.random.key(0), (2, 66, 97, 3))
    exact = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=5e-2 * np.abs(exact).max())
    maps, made = jax.jit(
        lambda v: model.apply(v, x, method="features", mutable=True, rngs=jax.random.key(0))
    )(variables)
    added = set(made["params"]) - set(variables["params"])
    assert added == {f"feature_norm_{i}" for i in range(4)}
    assert [m.shape[1:3] for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for m in maps:  # first norms: mean 0 and variance 1 of each whole map
        np.testing.assert_allclose(m.mean((1, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(m.var((1, 2, 3)), 1, atol=1e-3)
