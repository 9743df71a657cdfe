"""EfficientFormer against the official numbers; its attention against the formula."""

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
from vitjax.attention.efficientformer import EfficientFormerAttention, distance_bias
from vitjax.models.protocols import GivesDistillationLogits

STAGES = {
    "stem": "stem",
    "norm": "norm",
    "head": "head",
    "head_dist": "head_dist",
    "stages.3.blocks.4": "stage_3/block_3",
    **{f"stages.{i}": f"stage_{i}" for i in range(4)},
}
TINY: dict[str, Any] = dict(
    dims=(8, 8, 8, 16),
    depths=(1, 1, 1, 3),
    num_heads=(1, 1, 1, 2),
    num_attention=2,
    num_classes=5,
    image_size=64,
)


@pytest.mark.golden
@pytest.mark.usefixtures("optimized")
def test_efficientformer_is_the_official_one() -> None:
    check_case("efficientformer_l1", "efficientformer_l1", STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("efficientformer_*"))
def test_counts_are_the_official_ones(name: str) -> None:
    counts = json.loads((FOLDER / "param_counts.json").read_text())
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counts[name]["params"]


def test_attention_is_the_formula() -> None:
    """Softmax of q·k / √key_dim plus the bias of |Δy|, |Δx|, for each head."""
    mixer: Any = EfficientFormerAttention(num_heads=2, key_dim=3, value_ratio=5 / 3)
    x = jax.random.normal(jax.random.key(0), (2, 3, 2, 7))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
        mixer.init(jax.random.key(1), x)["params"],
    )
    assert params["qkv"]["kernel"].shape == (7, 2, 11)
    tokens = np.asarray(x.reshape(2, 6, 7))
    qkv = np.einsum("bnc,chd->bhnd", tokens, params["qkv"]["kernel"])
    qkv = qkv + params["qkv"]["bias"][:, None]
    q, k, v = qkv[..., :3], qkv[..., 3:6], qkv[..., 6:]
    logits = np.einsum("bhnd,bhmd->bhnm", q, k) / 3**0.5
    points = [(i, j) for i in range(3) for j in range(2)]
    for n, (y, x_) in enumerate(points):
        for m, (y2, x2) in enumerate(points):
            logits[:, :, n, m] += params["attention_biases"][:, abs(y - y2), abs(x_ - x2)]
    out = np.einsum("bhnm,bhmd->bnhd", jax.nn.softmax(logits), v).reshape(2, 6, 10)
    out = out @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(mixer.apply({"params": params}, x).reshape(2, 6, 7), out, atol=2e-4)


def test_biases_of_another_map_are_interpolated_at_run_time_and_when_loaded_alike() -> None:
    table = jax.random.normal(jax.random.key(0), (2, 3, 3))
    wide = distance_bias(table, 5, 4)
    np.testing.assert_allclose(wide, wide.transpose(0, 2, 1), atol=1e-5)  # distances have no sign
    state = {"stages.3.blocks.1.token_mixer.attention_biases": np.asarray(table).reshape(2, 9)}
    model: Any = vitjax.create_model("efficientformer_l1", **{**TINY, "image_size": (160, 128)})
    (loaded,) = weights.adapt(
        weights.FAMILIES[weights.model_spec("efficientformer_l1").factory], state, model
    ).values()
    assert loaded.shape == (2, 20)
    again = distance_bias(jnp.asarray(loaded).reshape(2, 5, 4), 5, 4)
    np.testing.assert_allclose(again, wide, atol=1e-5)


def test_maps_of_an_odd_size() -> None:
    model: Any = vitjax.create_model("efficientformer_l1", **TINY)
    maps = jax.eval_shape(
        lambda v, x: model.apply(v, x, method="features"),
        weights.abstract_variables(model),
        jnp.zeros((1, 97, 131, 3)),
    )
    assert [m.shape[1:] for m in maps] == [(25, 33, 8), (13, 17, 8), (7, 9, 8), (4, 5, 16)]
    assert isinstance(model, GivesDistillationLogits)


def timm_to_authors(key: str) -> str:
    for theirs, ours in (
        ("patch_embed.0.", "stem.conv1."),
        ("patch_embed.1.", "stem.norm1."),
        ("patch_embed.3.", "stem.conv2."),
        ("patch_embed.4.", "stem.norm2."),
        ("dist_head.", "head_dist."),
    ):
        key = key.replace(ours, theirs)
    for i in range(4):
        key = key.replace(f"stages.{i}.downsample.conv", f"network.{2 * i - 1}.proj")
        key = key.replace(f"stages.{i}.downsample.norm", f"network.{2 * i - 1}.norm")
        key = key.replace(f"stages.{i}.blocks.", f"network.{2 * i}.")
    return key.replace("ls1.gamma", "layer_scale_1").replace("ls2.gamma", "layer_scale_2")


@pytest.mark.parametrize("attention", [2, 3])
def test_weights_there_and_back_also_by_the_authors_names(attention: int) -> None:
    options = {**TINY, "num_attention": attention}
    variables = random_variables(vitjax.create_model("efficientformer_l1", **options))
    state = weights.to_torch("efficientformer_l1", variables)
    numbers = {key.split(".")[3] for key in state if key.startswith("stages.3.blocks.")}
    assert numbers == ({"0", "2", "3"} if attention == 2 else {"1", "2", "3"})
    assert state["stages.0.blocks.0.mlp.fc1.weight"].shape == (32, 8, 1, 1)
    assert state["stages.3.blocks.3.mlp.fc1.weight"].shape == (64, 16)
    buffer = {"network.6.2.token_mixer.attention_bias_idxs": np.zeros((4, 4), np.int64)}
    for theirs in (state, {timm_to_authors(k): v for k, v in state.items()} | buffer):
        again = weights.from_torch("efficientformer_l1", theirs, **options)
        chex.assert_trees_all_equal(again, variables)


@pytest.mark.slow
def test_bfloat16_statistics_remat_and_scan() -> None:
    options = {**TINY, "depths": (2, 1, 1, 2), "num_attention": 1, "drop_path_rate": 0.2}
    model: Any = vitjax.create_model("efficientformer_l1", **options)
    variables = random_variables(model)
    x = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    exact = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())
    for other in (model.clone(scan=True), model.clone(remat=True)):
        np.testing.assert_allclose(jax.jit(other.apply)(variables, x), exact, atol=1e-4)

    def loss(params):
        out, new = model.clone(remat=True).apply(
            {**variables, "params": params},
            x,
            True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return jnp.sum(out**2), new

    grads, new = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), new, {k: variables[k] for k in new})
    assert min(jax.tree.leaves(moved)) > 0


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="num_attention=5: the last stage has 4 blocks"):
        vitjax.create_model("efficientformer_l1", num_attention=5)
    with pytest.raises(ValueError, match="Unknown token mixer 'efficientforme'; did you mean"):
        vitjax.create_model("efficientformer_l1", late_mixer="efficientforme")
    with pytest.raises(ValueError, match="late_mixer='full;full' describes several stages"):
        vitjax.create_model("efficientformer_l1", late_mixer="full;full")
    with pytest.raises(ValueError, match=r"attn_drop_rate=0.1 changes nothing"):
        vitjax.create_model("efficientformer_l1", late_mixer="pooling", attn_drop_rate=0.1)
