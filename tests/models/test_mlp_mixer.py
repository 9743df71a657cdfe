"""MLP-Mixer against the official numbers, Google's names, and its fixed number of patches."""

import json
import pathlib
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
from vitjax.attention.token_mlp import TokenMlp

STAGES = {"stem": "patch_embed", "norm": "norm", "head": "head"} | {
    f"blocks.{i}": f"block_{i}" for i in (0, 7)
}
TINY: dict[str, Any] = dict(
    width=12, depth=2, num_heads=2, patch_size=8, image_size=24, num_classes=5
)


@pytest.mark.golden
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("mixer_s32_224", "mixer_s32"),
        pytest.param("mixer_b16_224", "mixer_b16", marks=pytest.mark.slow),
    ],
)
def test_mixer_is_the_official_one(case: str, name: str) -> None:
    check_case(case, name, STAGES if name == "mixer_s32" else {"blocks.0": "block_0"})


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("mixer_*"))
def test_counts_are_the_official_ones(name: str) -> None:
    counts = json.loads((FOLDER / "param_counts.json").read_text())
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counts[name]["params"]


def test_the_token_mlp_is_the_equation() -> None:
    """U = W2 σ(W1 X) over the rows of X, which are the positions."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 7))
    mixer: Any = TokenMlp(token_ratio=11 / 7)
    variables = noisy_of(mixer.init(jax.random.key(1), x))
    fc1, fc2 = (variables["params"]["tokens"][name] for name in ("fc1", "fc2"))
    assert fc1["kernel"].shape == (15, 11)
    hidden = jnp.einsum("bnc,nh->bhc", x.reshape(2, 15, 7), fc1["kernel"])
    hidden = jax.nn.gelu(hidden + fc1["bias"][:, None], approximate=False)
    wanted = jnp.einsum("bhc,hn->bnc", hidden, fc2["kernel"]) + fc2["bias"][:, None]
    ours: Any = mixer.apply(variables, x)
    np.testing.assert_allclose(ours, wanted.reshape(x.shape), atol=1e-5)
    sequence: Any = mixer.apply(variables, x.reshape(2, 15, 7))
    np.testing.assert_array_equal(sequence, ours.reshape(2, 15, 7))


def noisy_of(variables):
    return jax.tree.map(lambda v: v + 0.1 * np.cos(np.arange(v.size)).reshape(v.shape), variables)


@pytest.mark.parametrize("scan", [False, True])
def test_another_number_of_patches_is_told(scan: bool) -> None:
    model: Any = vitjax.create_model("mixer_s32", **TINY, scan=scan)
    shapes = weights.abstract_variables(model)
    with pytest.raises(ValueError, match=r"mix 9 positions, and x has 12; resize the images"):
        jax.eval_shape(model.apply, shapes, jnp.zeros((1, 24, 32, 3)))
    other: Any = vitjax.create_model("mixer_s32", **{**TINY, "image_size": (24, 32)}, scan=scan)
    shapes = weights.abstract_variables(other)
    (features,) = jax.eval_shape(
        lambda v, x: other.apply(v, x, method="features"), shapes, jnp.zeros((1, 24, 32, 3))
    )
    assert features.shape == (1, 3, 4, 12)


@pytest.mark.parametrize("mixer", ["full", "dwconv", "token_mlp(token_ratio=0.25) | full"])
def test_other_mixers_stand_in_and_some_take_any_size(mixer: str) -> None:
    model: Any = vitjax.create_model("mixer_s32", **TINY, mixer=mixer)
    shapes = weights.abstract_variables(model)
    if "token" in mixer:
        assert shapes["params"]["block_0"]["mixer"]["tokens"]["fc1"]["kernel"].shape == (9, 3)
    else:
        logits = jax.eval_shape(model.apply, shapes, jnp.zeros((1, 40, 56, 3)))
        assert logits.shape == (1, 5)


def test_an_option_of_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="qkv_bias=False changes nothing in 'mixer_s32'"):
        vitjax.create_model("mixer_s32", qkv_bias=False)


def test_weights_there_and_back_also_by_googles_names(tmp_path: pathlib.Path) -> None:
    model: Any = vitjax.create_model("mixer_s32", **TINY)
    variables = random_variables(model)
    state = weights.to_torch("mixer_s32", variables)
    assert state["blocks.1.mlp_tokens.fc1.weight"].shape == (6, 9)
    assert state["blocks.1.mlp_channels.fc2.weight"].shape == (12, 48)
    chex.assert_trees_all_equal(weights.from_torch("mixer_s32", state, **TINY), variables)

    params = jax.device_get(variables["params"])
    google = {f"stem/{k}": v for k, v in params["patch_embed"]["proj"].items()}
    google |= {f"head/{k}": v for k, v in params["head"].items()}
    google |= {f"pre_head_layer_norm/{k}": v for k, v in params["norm"].items()}
    for i in range(2):
        block = params[f"block_{i}"]
        for k in (0, 1):
            for theirs, ours in (
                (f"LayerNorm_{k}", block[f"norm{k + 1}"]),
                (f"token_mixing/Dense_{k}", block["mixer"]["tokens"][f"fc{k + 1}"]),
                (f"channel_mixing/Dense_{k}", block["mlp"][f"fc{k + 1}"]),
            ):
                google |= {f"MixerBlock_{i}/{theirs}/{leaf}": v for leaf, v in ours.items()}
    np.savez(tmp_path / "mixer.npz", **google)
    options = {k: v for k, v in TINY.items() if k != "num_classes"}
    loaded: Any
    loaded, again = vitjax.load_pretrained("mixer_s32", tmp_path / "mixer.npz", **options)
    assert loaded.num_classes == 5
    chex.assert_trees_all_equal(again, variables)


@pytest.mark.slow
def test_bfloat16_dropout_scan_and_remat() -> None:
    model: Any = vitjax.create_model("mixer_s32", **TINY)
    variables, x = random_variables(model), jax.random.normal(jax.random.key(0), (2, 24, 24, 3))
    exact = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())
    drops: dict[str, Any] = dict(drop_rate=0.1, drop_path_rate=0.5, remat=True, scan=True)
    model: Any = vitjax.create_model("mixer_s32", **TINY, **drops)

    def loss(params):
        return model.apply({"params": params}, x, True, rngs={"dropout": jax.random.key(0)}).sum()

    shapes = weights.abstract_variables(model)["params"]
    params = jax.tree.map(lambda s: jnp.cos(jnp.arange(s.size)).reshape(s.shape), shapes)
    grads = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    assert all(np.isfinite(g).all() for g in grads)
    assert np.mean([np.abs(g).max() > 0 for g in grads]) > 0.7
