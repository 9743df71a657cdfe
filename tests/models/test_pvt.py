"""PVT against the official numbers, and on maps of any size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import vitjax
from tests.drawn import draw
from tests.golden.compare import FOLDER, check_case
from vitjax import weights

ENTRIES = ("stem", "downsample_1", "downsample_2", "downsample_3")
STAGES = {
    "norm": "norm",
    **{f"patch_embed{i + 1}": f"{entry}/patch" for i, entry in enumerate(ENTRIES)},
    **{f"stage{i + 1}_out": f"stage_{i}" for i in range(4)},
    **{f"block{i + 1}.0": f"stage_{i}/block_0" for i in range(4)},
}
SMALL = dict(dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4), num_classes=5)


@pytest.mark.golden
@pytest.mark.usefixtures("optimized")
def test_pvt_is_the_official_one() -> None:
    check_case("pvt_tiny_224", "pvt_tiny", STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_small", "pvt_medium", "pvt_large"])
def test_counts_are_the_official_ones(name: str) -> None:
    counts = json.loads((FOLDER / "param_counts.json").read_text())
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counts[name]["params"]


def noisy(model, size=(64, 64), batch=1):
    """Random variables, none of them zero, and images."""
    rng = np.random.default_rng(0)
    variables = draw(weights.abstract_variables(model), rng)
    return variables, jnp.asarray(rng.standard_normal((batch, *size, 3)), jnp.float32)


def run(model, variables, *args, **kwargs):
    """`model.apply`, compiled."""
    return jax.jit(lambda variables, *args: model.apply(variables, *args, **kwargs))(
        variables, *args
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (112, 75)])
def test_any_image_size(size: tuple[int, int]) -> None:
    model = vitjax.create_model("pvt_tiny", **SMALL)
    variables, images = noisy(model, size)
    assert np.isfinite(run(model, variables, images)).all()
    maps = run(model, variables, images, method="features")
    assert [m.shape[1:] for m in maps] == [
        (size[0] // s, size[1] // s, c) for s, c in zip((4, 8, 16, 32), SMALL["dims"])
    ]


@pytest.mark.slow
def test_another_image_size_resizes_tables_alike_in_the_model_and_at_loading() -> None:
    model = vitjax.create_model("pvt_tiny", image_size=64, **SMALL)
    variables, _ = noisy(model)
    images = noisy(model, (96, 160), 2)[1]
    state = weights.to_torch("pvt_tiny", variables)
    overrides = dict(SMALL, image_size=(96, 160))
    loaded = weights.from_torch("pvt_tiny", state, **overrides)
    assert loaded["params"]["downsample_3"]["pos_embed"].shape == (1, 3 * 5 + 1, 32)
    resized = run(vitjax.create_model("pvt_tiny", **overrides), loaded, images)
    np.testing.assert_allclose(run(model, variables, images), resized, atol=1e-5)


def test_positions_are_interpolated_as_torch_does() -> None:
    functional = pytest.importorskip("torch.nn.functional")
    import torch

    from vitjax.layers.position import resize_grid

    table = np.random.default_rng(0).standard_normal((7, 7, 3)).astype(np.float32)
    for shape in ((11, 9), (4, 5)):
        theirs = functional.interpolate(
            torch.tensor(table).permute(2, 0, 1)[None], size=shape, mode="bilinear"
        )[0].permute(1, 2, 0)
        ours = resize_grid(jnp.asarray(table), shape, "bilinear", antialias=False)
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_weights_there_and_back() -> None:
    model = vitjax.create_model("pvt_tiny", **SMALL)
    state = weights.to_torch("pvt_tiny", noisy(model)[0])
    assert {"cls_token", "pos_embed4", "block1.0.attn.sr.weight", "block4.0.mlp.fc2.bias"} <= set(
        state
    )
    again = weights.to_torch("pvt_tiny", weights.from_torch("pvt_tiny", state, **SMALL))
    assert state.keys() == again.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], again[key])
    gap = weights.from_torch("pvt_tiny", state, **SMALL, pool="gap")
    assert gap["params"]["downsample_3"]["pos_embed"].shape == (1, 49, 32)
    del state["head.bias"]
    with pytest.raises(ValueError, match=r"missing: head\.bias"):
        weights.from_torch("pvt_tiny", state, **SMALL)


@pytest.mark.slow
def test_dtypes_dropout_and_remat() -> None:
    options = dict(SMALL, image_size=64)
    model = vitjax.create_model("pvt_tiny", **options)
    variables, images = noisy(model, batch=2)
    exact = run(model, variables, images)
    half = run(vitjax.create_model("pvt_tiny", **options, dtype=jnp.bfloat16), variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())
    drops = dict(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.5, remat=True)
    model = vitjax.create_model("pvt_tiny", **options, **drops)

    def loss(params):
        return model.apply(
            {"params": params}, images, True, rngs={"dropout": jax.random.key(0)}
        ).sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    grads = jax.tree.leaves(grads)
    assert all(np.isfinite(g).all() for g in grads)
    # Stochastic depth may drop a branch for both samples; which, the version of jax decides.
    assert np.mean([np.abs(g).max() > 0 for g in grads]) > 0.7


@pytest.mark.slow
def test_options() -> None:
    model = vitjax.create_model(
        "pvt_tiny", **SMALL, sr_ratio=(4, 4, 2, 1), qkv_bias=False, scale=1.0
    )
    flat = traverse_util.flatten_dict(weights.abstract_variables(model)["params"], sep="/")
    assert flat["stage_0/block_0/mixer/reduce/conv/kernel"].shape == (4, 4, 8, 8)
    assert "stage_0/block_0/mixer/q/bias" not in flat
    for mixer in ("full", "sra(sr_ratio=2) ; sra ; sra ; full"):
        weights.abstract_variables(vitjax.create_model("pvt_tiny", **SMALL, mixer=mixer))
    model = vitjax.create_model("pvt_tiny", **SMALL, pool="gap", mixer="pooling|window")
    assert "cls_token" not in weights.abstract_variables(model)["params"]["downsample_3"]
    headless = vitjax.create_model("pvt_tiny", **{**SMALL, "num_classes": 0, "image_size": 64})
    variables, images = noisy(headless)
    assert run(headless, variables, images).shape == (1, 32)


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match="'token' or 'gap'"):
        vitjax.create_model("pvt_tiny", pool="map")
    model = vitjax.create_model("pvt_tiny", **SMALL, mixer="sra(sr_ratio=2)")
    with pytest.raises(ValueError, match=r"takes sequences.*pool='gap'"):
        weights.abstract_variables(model)
