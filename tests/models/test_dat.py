"""DAT and DAT++ against the numbers of the official code, and at other sizes and options."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import variables_of
from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_case
from vitjax import weights

DEPTHS = {"dat_v1_tiny_224": (2, 2, 6, 2), "dat_pp_tiny_224": (2, 4, 18, 2)}


def stages(depths: tuple[int, ...]) -> dict[str, str]:
    names = {"patch_proj": "stem", "cls_norm": "norm"}
    for i, depth in enumerate(depths):
        names[f"stage{i + 1}"] = f"stage_{i}"
        if i:
            names[f"down{i}"] = f"downsample_{i}"
        for j in range(depth):
            names[f"stages.{i}.attns.{j}"] = f"stage_{i}/block_{j}/mixer"
            names[f"stages.{i}.mlps.{j}"] = f"stage_{i}/block_{j}/mlp"
    return names


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("dat_v1_tiny_224", "dat_tiny"),
        pytest.param("dat_pp_tiny_224", "dat_pp_tiny", marks=pytest.mark.slow),
    ],
)
def test_dat_is_the_official_one(case, name):
    check_case(case, name, stages(DEPTHS[case]))


def shapes_of(name, **overrides):
    return weights.abstract_variables(vitjax.create_model(name, **overrides))


def published(name):
    if name.startswith("dat_pp"):
        return json.loads((FOLDER / "param_counts.json").read_text())[name]["params"]
    # Of CVPR's sizes the golden file counts the first; the paper rounds the others to 50M and 88M.
    return {"dat_tiny": 28_319_138, "dat_small": 49_700_402, "dat_base": 87_881_632}[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("dat_*"))
def test_parameter_counts(name):
    leaves = jax.tree.leaves(shapes_of(name))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == published(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dat_tiny", "dat_pp_tiny"])
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (512, 200)])
def test_any_image_size(name, size):
    model = vitjax.create_model(name, num_classes=10, depths=(2, 2, 2, 2))
    variables = weights.abstract_variables(model)
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, images)
    assert [m.shape[1:3] for m in maps] == [
        tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)
    ]


def golden_weights(case="dat_v1_tiny_224"):
    return load_golden.load(FOLDER / f"{case}.npz", check=False)[2]


@pytest.mark.slow
@pytest.mark.parametrize("case", DEPTHS)
def test_weights_there_and_back(case):
    name = "dat_pp_tiny" if "pp" in case else "dat_tiny"
    theirs = golden_weights(case)
    back = weights.to_torch(name, weights.from_torch(name, theirs))
    assert set(back) == set(theirs)
    assert all(np.array_equal(back[key], theirs[key]) for key in theirs)


ALL_MIXERS = (
    "convnext | window(shift=4) ; neighborhood | deformable(position_bias='log') ; "
    "deformable(offsets=False) | deformable(position_bias='conv') ; "
    "deformable(position_bias='fixed') | window"
)


@pytest.mark.slow
def test_every_part_has_a_name_in_the_checkpoints():
    options = dict(
        mixer=ALL_MIXERS,
        layer_scale_init=(1e-5, 1e-5, None, None),
        depths=(2, 2, 2, 2),
        conv_mlp=(True, False, True, False),
        cpe_kernel_size=(3, 0, 3, 0),
        image_size=64,
    )
    variables = jax.tree.map(
        lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32),
        shapes_of("dat_tiny", **options),
    )
    theirs = weights.to_torch("dat_tiny", variables)
    for key in (
        "stages.0.attns.0.weight", "stages.0.ln_cnvnxt.0.norm.weight", "stages.0.mlps.0.dwc.bias",
        "stages.0.mlps.0.linear1.0.weight", "stages.0.layer_scales.3.weight",
        "stages.0.local_perception_units.1.weight", "stages.1.attns.0.rpb",
        "stages.1.attns.1.rpe_table.2.weight", "stages.2.attns.1.rpe_table.weight",
        "stages.2.attns.0.proj_v.weight", "stages.3.attns.0.rpe_table",
        "stages.3.attns.1.proj_qkv.weight", "stages.3.mlps.0.chunk.linear1.weight",
    ):  # fmt: skip
        assert key in theirs, key
    assert "stages.0.layer_norms.0.norm.weight" not in theirs
    assert theirs["stages.3.attns.0.rpe_table"].shape == (24, 4, 4)
    back = weights.from_torch("dat_tiny", theirs, **options)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


@pytest.mark.slow
@pytest.mark.parametrize("case", DEPTHS)
def test_tables_of_another_image_and_window_size_are_resized(case):
    name = "dat_pp_tiny" if "pp" in case else "dat_tiny"
    local = "window_size" if name == "dat_tiny" else "neighborhood_size"
    options = {"image_size": (96, 160), local: 5}
    params = weights.from_torch(name, golden_weights(case), **options)["params"]
    mixers = [params["stage_2"][f"block_{i}"]["mixer"] for i in (0, 1)]
    assert mixers[1]["bias"]["table"].shape[1:] == (11, 19)
    if name == "dat_tiny":
        assert mixers[0]["relative_position_bias"].shape == (81, 12)
    else:
        assert mixers[0]["rpb"].shape == (8, 9, 9)


@pytest.mark.slow
def test_a_fixed_table_of_another_image_size_is_resized():
    options = dict(
        depths=(1, 1, 1, 1), mixer="window ; window ; window ; deformable", position_bias="fixed"
    )
    variables = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, np.float32), shapes_of("dat_tiny", **options)
    )
    theirs = weights.to_torch("dat_tiny", variables)
    params = weights.from_torch("dat_tiny", theirs, image_size=(64, 96), **options)["params"]
    table = params["stage_3"]["block_0"]["mixer"]["bias"]["table"]
    np.testing.assert_allclose(table, np.ones((24, 6, 6)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dat_tiny", "dat_pp_tiny"])
def test_bfloat16_is_near_float32(name):
    """With weights as initialised. The golden ones of DAT++ make maps and tables white noise, where
    a point that moves by 0.05 pixels, as rounding its query does, reads 4% other values.
    """
    exact, half = (
        vitjax.create_model(name, 0, image_size=96, depths=(1, 2, 4, 2), dtype=dtype)
        for dtype in (None, "bfloat16")
    )
    images = jax.random.normal(jax.random.key(0), (2, 96, 96, 3))
    variables = variables_of(exact, images)
    want, got = (jax.jit(model.apply)(variables, images) for model in (exact, half))
    assert got.dtype == jnp.bfloat16
    assert jnp.linalg.norm(got.astype(jnp.float32) - want) < 3e-2 * jnp.linalg.norm(want)


@pytest.mark.slow
def test_it_trains_with_every_dropout_and_remat():
    options = dict(
        depths=(1, 1, 2, 1), mixer="neighborhood ; deformable ; deformable | window ; convnext",
        drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.3, remat=True, image_size=64,
    )  # fmt: skip
    model = vitjax.create_model("dat_pp_tiny", 10, **options)
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    variables = variables_of(model, images)

    def loss(params):
        out = model.apply({"params": params}, images, True, rngs={"dropout": jax.random.key(2)})
        return jnp.sum((out - 1) ** 2)

    grads = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert np.abs(grads["head"]["kernel"]).max() > 0


def test_errors_teach():
    with pytest.raises(ValueError, match="did you mean 'deformable'"):
        vitjax.create_model("dat_tiny", mixer="deformabel")
    with pytest.raises(ValueError, match="2 per-stage values"):
        vitjax.create_model("dat_tiny", stride=(8, 4))
    with pytest.raises(ValueError, match="12 heads cannot be split into 5 offset groups"):
        shapes_of("dat_tiny", offset_groups=5)
