"""ConvNeXt against timm and torchvision, and in the names of all who published it.

`convnext_*.npz` hold timm's atto at 64×80 pixels and a small model of torchvision's class at 70×94,
by the rules of `load_golden.py` (PyTorch 2.13, timm 1.0.31, torchvision 0.28).
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
from vitjax.weights.configs.timm import timm_model
from vitjax.weights.convnext import CONVNEXT, TIMM

SMALL: dict[str, Any] = dict(
    dims=(16, 24, 32, 40), depths=(1, 2, 1, 1), num_classes=10, image_size=(70, 94)
)
TINY: dict[str, Any] = dict(dims=(8, 8, 16, 16), depths=(1, 2, 1, 1), num_classes=5, image_size=64)
COUNTS = {  # of timm 1.0.31; torchvision 0.28 has the same from tiny to large
    "convnext_atto": 3_695_520, "convnext_femto": 5_217_784, "convnext_pico": 9_045_672,
    "convnext_nano": 15_593_560, "convnext_tiny": 28_589_128, "convnext_small": 50_223_688,
    "convnext_base": 88_591_464, "convnext_large": 197_767_336, "convnext_xlarge": 350_196_968,
}  # fmt: skip


@pytest.mark.golden
@pytest.mark.slow
def test_atto_is_timms() -> None:
    stages = {"stem": "stem", "head.norm": "norm", **{f"stages.{i}": f"stage_{i}" for i in (0, 3)}}
    check_case(
        "convnext_atto_timm_64x80",
        "convnext_atto",
        stages,
        rename=lambda key: weights.libraries.rename(key, TIMM.rules),
    )


@pytest.mark.golden
def test_it_is_torchvisions() -> None:
    stages = {
        "features.0": "stem",
        "classifier.0": "norm",
        **{f"features.{2 * i + 1}": f"stage_{i}" for i in range(4)},
    }
    check_case(
        "convnext_small_tv_70x94",
        "convnext_tiny",
        stages,
        **SMALL,
        rename=lambda key: weights.libraries.rename(key, CONVNEXT.rules),
    )


def test_counts_are_timms() -> None:
    assert {n: int(ROWS[n][1].replace(",", "")) for n in COUNTS} == COUNTS
    assert [*COUNTS] == vitjax.list_models("convnext_*")
    params = weights.abstract_variables(vitjax.create_model("convnext_atto"))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS["convnext_atto"]


def timm(key: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """Give an array as timm's smaller sizes have it: MLPs of 1×1 convolutions."""
    key = key.replace("downsample_layers.0.", "stem.")
    for i in range(4):
        key = key.replace(f"downsample_layers.{i}.", f"stages.{i}.downsample.")
        for j in range(2):
            key = key.replace(f"stages.{i}.{j}.", f"stages.{i}.blocks.{j}.")
    key = key.replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")
    key = key.replace("head.", "head.fc.")
    key = f"head.{key}" if key.startswith("norm.") else key
    return key, value[:, :, None, None] if "mlp.fc" in key and value.ndim == 2 else value


def torchvision(key: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """Give an array as torchvision has it."""
    for i in range(4):
        key = key.replace(f"downsample_layers.{i}.", f"features.{2 * i}.")
        key = key.replace(f"stages.{i}.", f"features.{2 * i + 1}.")
    if key.startswith("features.") and key.count(".") == 4:
        for theirs, ours in enumerate(("dwconv", "", "norm", "pwconv1", "", "pwconv2")):
            key = key.replace(f".{ours}.", f".block.{theirs}.") if ours else key
    if key.endswith(".gamma"):
        return key.replace("gamma", "layer_scale"), value[:, None, None]
    key = f"classifier.0.{key[5:]}" if key.startswith("norm.") else key
    return key.replace("head.", "classifier.2."), value


def test_weights_there_and_back_in_all_names(caplog: pytest.LogCaptureFixture) -> None:
    variables = random_variables(vitjax.create_model("convnext_tiny", **TINY))
    state = weights.to_torch("convnext_tiny", variables)
    assert state["stages.1.1.pwconv1.weight"].shape == (32, 8)
    assert {"downsample_layers.3.1.weight", "stages.0.0.gamma", "norm.bias"} <= state.keys()
    for convert, said in ((timm, "timm"), (torchvision, "torchvision"), (lambda *kv: kv, "")):
        caplog.clear()
        theirs = dict(convert(k, v) for k, v in state.items())
        again = weights.from_torch("convnext_tiny", theirs, **TINY)
        chex.assert_trees_all_equal(again, variables)
        assert bool(said) == bool(caplog.text) and f"names of {said}" in (caplog.text + "names of ")
    hnf = {k.replace("head.norm", "norm_pre"): v for k, v in (timm(*kv) for kv in state.items())}
    chex.assert_trees_all_equal(weights.from_torch("convnext_tiny_hnf", hnf, **TINY), variables)
    theirs["head.scale"] = theirs.pop("head.bias")
    with pytest.raises(ValueError, match="2 keys differ"):
        weights.from_torch("convnext_tiny", theirs, **TINY)


def test_timms_config_names_its_options() -> None:
    config = dict(architecture="convnext_atto", model_args=dict(depths=[1, 1, 1, 1], conv_mlp=True))
    options = dict(depths=(1, 1, 1, 1))
    assert timm_model(config, "config.json") == ("convnext_atto", options)
    with pytest.raises(ValueError, match="use_grn"):
        timm_model(dict(config, model_args=dict(use_grn=True)), "config.json")
    pool = dict(architecture="poolformer_s12.sail_in1k")
    assert timm_model(pool, "config.json") == ("poolformer_s12", dict(norm_pooled=True))
    assert vitjax.create_model("convnext_base.fb_in22k") == vitjax.create_model("convnext_base")


def test_without_layer_scale_and_with_other_mixers_the_parameters_are_those_of_the_parts() -> None:
    def block(**options: Any) -> set[str]:
        model = vitjax.create_model("convnext_tiny", **TINY, **options)
        return set(weights.abstract_variables(model)["params"]["stage_0"]["block_0"])

    plain = weights.abstract_variables(
        vitjax.create_model("convnext_tiny", **TINY, layer_scale_init=None)
    )["params"]["stage_0"]["block_0"]
    assert set(plain) == {"mixer"} and set(plain["mixer"]) == {"conv", "norm", "mlp"}
    assert block() == {"mixer"}
    transformer = {"mixer", "mlp", "norm1", "norm2", "layer_scale1", "layer_scale2"}
    assert block(mixer="window") == transformer
    assert block(mixer="pooling") == transformer - {"mixer"}
    with pytest.raises(ValueError, match="norm_pooled and stage_norm exclude each other"):
        vitjax.create_model("convnext_tiny", **TINY).clone(stage_norm=True)


@pytest.mark.slow
def test_the_head_reads_the_norm_of_the_mean() -> None:
    model: Any = vitjax.create_model("convnext_tiny", **TINY)
    variables = random_variables(model)
    x = jax.random.normal(jax.random.key(0), (2, 70, 97, 3))

    def run(module: Any) -> Any:
        return module(x), module.features(x), module.head_features(x)

    logits, maps, positions = jax.jit(lambda v: model.apply(v, method=run))(variables)
    assert [m.shape[1:3] for m in maps] == [(17, 24), (8, 12), (4, 6), (2, 3)]
    assert model.strides == (4, 8, 16, 32)
    head, norm = variables["params"]["head"], variables["params"]["norm"]

    def normalised(y: Any) -> Any:
        y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-6)
        return y * norm["scale"] + norm["bias"]

    expected = normalised(maps[-1].mean((1, 2))) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(positions, normalised(maps[-1]), atol=1e-4)
    hnf = jax.jit(model.clone(norm_pooled=False).apply)(variables, x)
    expected = positions.mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(hnf, expected, atol=1e-4)


@pytest.mark.slow
def test_it_trains_in_bfloat16_with_stochastic_depth() -> None:
    model: Any = vitjax.create_model("convnext_tiny", **TINY, drop_path_rate=0.5, remat=True)
    model = model.clone(dtype=jnp.bfloat16)
    variables, x = random_variables(model), jnp.ones((4, 64, 64, 3))

    def logits(params: Any, key: Any) -> Any:
        return model.apply({"params": params}, x, True, rngs={"dropout": key})

    run = jax.jit(jax.value_and_grad(lambda *a: jnp.sum(logits(*a).astype(jnp.float32) ** 2)))
    (one, grads), (other, _) = (run(variables["params"], jax.random.key(i)) for i in (0, 1))
    assert one != other
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert np.abs(grads["stage_0"]["block_0"]["mixer"]["layer_scale"]).max() > 0
