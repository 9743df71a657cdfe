"""PVT v2 against the official numbers, and on maps of any size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import vitjax
from tests.golden.compare import FOLDER, check_case
from tests.models.test_pvt import ENTRIES, SMALL, noisy, run
from vitjax import weights

STAGES = {
    **{f"patch_embed{i + 1}": entry for i, entry in enumerate(ENTRIES)},
    **{f"stage{i + 1}_out": f"norm_{i}" for i in range(4)},
    **{f"block{i + 1}.0": f"stage_{i}/block_0" for i in range(4)},
}


@pytest.mark.golden
@pytest.mark.usefixtures("optimized")
def test_pvt_v2_is_the_official_one() -> None:
    check_case("pvt_v2_b0_224", "pvt_v2_b0", STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("pvt_v2_*"))
def test_counts_are_the_official_ones(name: str) -> None:
    counts = json.loads((FOLDER / "param_counts.json").read_text())
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counts[name]["params"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
@pytest.mark.parametrize("size", [(64, 64), (97, 131)])
def test_any_image_size(name: str, size: tuple[int, int]) -> None:
    model = vitjax.create_model(name, **SMALL)
    variables, images = noisy(model, size)
    assert np.isfinite(run(model, variables, images)).all()
    maps = run(model, variables, images, method="features")
    assert [m.shape[1:] for m in maps] == [
        (-(-size[0] // s), -(-size[1] // s), c) for s, c in zip((4, 8, 16, 32), SMALL["dims"])
    ]
    np.testing.assert_allclose(jnp.mean(maps[0], axis=-1).std(), 0, atol=0.1)  # normalised


def timm_names(key: str) -> str:
    """The authors' key as timm has it, for the keys below."""
    for i in range(4):
        entry = "patch_embed." if i == 0 else f"stages.{i}.downsample."
        key = key.replace(f"patch_embed{i + 1}.", entry).replace(
            f"block{i + 1}.", f"stages.{i}.blocks."
        )
        if key.startswith(f"norm{i + 1}."):
            key = f"stages.{i}.norm." + key.split(".")[1]
    return key.replace("dwconv.dwconv", "dwconv")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
def test_weights_there_and_back(name: str) -> None:
    state = weights.to_torch(name, noisy(vitjax.create_model(name, **SMALL))[0])
    assert "block1.0.mlp.dwconv.dwconv.weight" in state
    assert ("block4.0.attn.sr.weight" in state) == name.endswith("_li")
    for theirs in (state, {timm_names(k): v for k, v in state.items()}):
        again = weights.to_torch(name, weights.from_torch(name, theirs, **SMALL))
        assert state.keys() == again.keys()
        for key in state:
            np.testing.assert_array_equal(state[key], again[key])


@pytest.mark.slow
def test_dtypes_dropout_and_remat() -> None:
    model = vitjax.create_model("pvt_v2_b2_li", **SMALL)
    variables, images = noisy(model, batch=2)
    exact = run(model, variables, images)
    half = vitjax.create_model("pvt_v2_b2_li", **SMALL, dtype=jnp.bfloat16)
    half = run(half, variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())
    drops = dict(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.5, remat=True)
    model = vitjax.create_model("pvt_v2_b0", **SMALL, **drops)
    variables, _ = noisy(model, batch=2)

    def loss(params):
        return model.apply(
            {"params": params}, images, True, rngs={"dropout": jax.random.key(0)}
        ).sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    grads = jax.tree.leaves(grads)
    assert all(np.isfinite(g).all() for g in grads)
    # Stochastic depth may drop a branch for both samples; which, the version of jax decides.
    assert np.mean([np.abs(g).max() > 0 for g in grads]) > 0.7


@pytest.mark.parametrize(
    "mixer", ["full", "window|window(shift='half')", "outlook", "dwconv", "pooling", "linear_sra"]
)
def test_other_mixers_stand_in(mixer: str) -> None:
    shapes = weights.abstract_variables(vitjax.create_model("pvt_v2_b0", **SMALL, mixer=mixer))
    flat = traverse_util.flatten_dict(shapes["params"], sep="/")
    assert "stage_3/block_0/mlp/dwconv/kernel" in flat
    assert ("stage_3/block_0/mixer/reduce/conv/kernel" in flat) == (mixer == "linear_sra")
