"""CoAtNet against timm's numbers, published sizes, and with other mixers."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import vitjax
from tests.golden.compare import FOLDER, check_case
from tests.models.test_pvt import noisy, run
from vitjax import weights
from vitjax.models.coatnet import MENU, POOLS

SMALL: dict[str, Any] = dict(
    dims=(8, 16, 16, 24), depths=(1, 2, 2, 1), stem_width=(4, 8), head_dim=4, num_classes=5
)
ENTRIES = ("stem/block", "downsample_1", "downsample_2", "downsample_3")


@pytest.mark.golden
@pytest.mark.slow
def test_nano_is_timms() -> None:
    stages = {
        "stem": "stem/conv_1", "norm": "norm", "head": "head",
        **{f"stages.{i}": f"stage_{i}" for i in range(4)},
        **{f"stages.{i}.blocks.0": entry for i, entry in enumerate(ENTRIES)},
        **{f"stages.{i}.blocks.{j + 1}": f"stage_{i}/block_{j}"
           for i, depth in enumerate((3, 4, 6, 3)) for j in range(depth - 1)},
    }  # fmt: skip
    check_case("coatnet_nano_rw_224", "coatnet_nano_rw_224", stages)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"), [("0", 25), ("1", 42), ("2", 75), ("3", 168), ("4", 275)]
)
def test_the_papers_sizes_have_its_parameters(name: str, published: int) -> None:
    """Within a percent of its millions; size 3 has one less."""
    params = weights.abstract_variables(vitjax.create_model(f"coatnet_{name}"))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert round(count / 1e6) == published - (name == "3")


def test_nano_has_the_parameters_of_timms() -> None:
    params = weights.abstract_variables(vitjax.create_model("coatnet_nano_rw"))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert (
        count == json.loads(str(np.load(FOLDER / "coatnet_nano_rw_224.npz")["meta"]))["num_params"]
    )


@pytest.mark.parametrize("variant", ["0", "nano_rw"])
def test_maps_round_up(variant: str) -> None:
    model: Any = vitjax.create_model(f"coatnet_{variant}", **SMALL)
    variables = weights.abstract_variables(model)
    images = jax.ShapeDtypeStruct((1, 97, 131, 3), jnp.float32)
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, images)
    assert [m.shape[1:] for m in maps] == [
        (-(-97 // s), -(-131 // s), c) for s, c in zip(model.strides, SMALL["dims"], strict=True)
    ]


def test_pooling_by_hand() -> None:
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)  # rows 0…4, 5…9, 10…14
    pooled = {name: np.asarray(pool(x))[0, :, :, 0].tolist() for name, pool in POOLS.items()}
    assert pooled == {
        "max": [[6, 8, 9], [11, 13, 14]],
        "average": [[3, 5, 6.5], [10.5, 12.5, 14]],
        "stride": [[0, 2, 4], [10, 12, 14]],
    }


@pytest.mark.slow
@pytest.mark.parametrize("mixer", [name for name in MENU if name != "mbconv"])
def test_any_mixer_stands_in(mixer: str) -> None:
    options = dict(SMALL, depths=(2, 2, 2, 2), image_size=64)
    model: Any = vitjax.create_model(
        "coatnet_0", **options, mixer=f"mbconv;mbconv;mbconv|{mixer};{mixer}"
    )
    shapes = traverse_util.flatten_dict(weights.abstract_variables(model)["params"], sep="/")
    assert "downsample_2/mixer/se/fc1/kernel" in shapes
    assert any(path.startswith("downsample_3/mixer/") for path in shapes) == (mixer != "pooling")
    assert ("downsample_3/expand/kernel" in shapes) == (not mixer.startswith("full"))
    assert not any(path.startswith("stage_2/block_0/mixer/se") for path in shapes)


def test_blocks_go_on_with_the_mixer_after_the_first_blocks() -> None:
    model: Any = vitjax.create_model(
        "coatnet_0", **dict(SMALL, depths=(1, 1, 3, 1)), mixer="mbconv;mbconv;mbconv|full;full"
    )
    shapes = weights.abstract_variables(model)["params"]
    assert "se" in shapes["downsample_2"]["mixer"]
    assert "qkv" in shapes["stage_2"]["block_0"]["mixer"]
    assert "se" in shapes["stage_2"]["block_1"]["mixer"]


@pytest.mark.slow
def test_weights_there_and_back_at_another_size() -> None:
    model: Any = vitjax.create_model("coatnet_0", **SMALL, image_size=64)
    variables, images = noisy(model, (96, 96))
    state = weights.to_torch("coatnet_0", variables)
    table = "stages.2.blocks.1.attn.rel_pos.relative_position_bias_table"
    assert state[table].shape == (49, 4)  # a map of 4×4
    assert state["stages.2.blocks.0.attn.qkv.weight"].shape == (48, 16, 1, 1)
    again = weights.to_torch(
        "coatnet_0", weights.from_torch("coatnet_0", state, **SMALL, image_size=64)
    )
    assert state.keys() == again.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], again[key])
    larger = weights.from_torch("coatnet_0", state, **SMALL, image_size=96)
    assert larger["params"]["downsample_2"]["mixer"]["position_bias"].shape == (11, 11, 4)
    del state[table]
    with pytest.raises(ValueError, match=r"missing: stages\.2\.blocks\.1\.attn\.rel_pos"):
        weights.from_torch("coatnet_0", state, **SMALL)
    resized = vitjax.create_model("coatnet_0", **SMALL, image_size=96)
    assert np.abs(run(resized, larger, images) - run(model, variables, images)).max() < 1e-4


@pytest.mark.slow
def test_bfloat16_dropout_remat_and_scan() -> None:
    options = dict(SMALL, dims=(8, 16), depths=(3, 3), image_size=16)
    options["mixer"] = "mbconv ; full(position_bias=True)"
    model: Any = vitjax.create_model("coatnet_0", **options)
    variables, images = noisy(model, (16, 16), batch=2)
    exact = run(model, variables, images)
    half = run(model.clone(dtype=jnp.bfloat16), variables, images)
    assert half.dtype == jnp.bfloat16
    assert np.linalg.norm(half - exact) <= 5e-2 * np.linalg.norm(exact)
    drops: dict[str, Any] = dict(
        drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.5, remat=True, scan=True
    )
    model: Any = vitjax.create_model("coatnet_0", **options, **drops)
    np.testing.assert_allclose(run(model, variables, images), exact, atol=1e-5)

    def loss(params):
        logits, new = model.apply(
            {**variables, "params": params},
            images,
            True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        return jnp.sum(jnp.sin(logits)), new

    grads, new = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert jax.tree.structure(new["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match=r"pool.*'mean'"):
        vitjax.create_model("coatnet_0", pool="mean")
    with pytest.raises(ValueError, match=r"conv_act.*'swish'.*silu"):
        vitjax.create_model("coatnet_0", conv_act="swish")
    with pytest.raises(ValueError, match=r"depths=\(0, 1, 1, 1\), .*at least one block"):
        vitjax.create_model("coatnet_0", depths=(0, 1, 1, 1))
    with pytest.raises(ValueError, match="a width and at least one block for each stage"):
        vitjax.create_model("coatnet_0", dims=(96, 192))
    with pytest.raises(ValueError, match="head_dim=40 does not divide"):
        vitjax.create_model("coatnet_0", head_dim=40)
    with pytest.raises(ValueError, match="leave width out"):
        vitjax.create_model("coatnet_0", mixer="full(width=8)")
    with pytest.raises(ValueError, match="qkv_bias=False changes nothing"):
        vitjax.create_model("coatnet_0", mixer="mbconv", qkv_bias=False)
