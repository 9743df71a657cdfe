"""Swin and Swin V2 against the official numbers, and on the maps that the official code refuses."""

import functools
import json
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.golden.compare import FOLDER, check_case
from vitjax import weights
from vitjax.layers.downsample import PatchMerging
from vitjax.layers.spec import spec
from vitjax.models.swin import SwinStem
from vitjax.weights.swin import resize_bias_table

STAGES = {
    "patch_embed": "stem",
    "layer1": "downsample_1",
    "layer2": "downsample_2",
    "layer3": "downsample_3",
    "layer4": "stage_3",
    "norm": "norm",
} | {
    f"layers.{i}.blocks.{j}": f"stage_{i}/block_{j}"
    for i, depth in enumerate((2, 2, 6, 2))
    for j in range(depth)
}
SMALL: dict[str, Any] = dict(
    dims=(8, 16, 32, 64), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), num_classes=5
)
NAMES = ("swin_tiny", "swinv2_tiny_w8")


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "name"), [("swin_tiny_w7_224", "swin_tiny"), ("swinv2_tiny_w8_256", "swinv2_tiny_w8")]
)
def test_swin_is_the_official_one(case: str, name: str) -> None:
    check_case(case, name, STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*vitjax.list_models("swin_*"), *vitjax.list_models("swinv2_*")])
def test_counts_are_the_official_ones(name: str) -> None:
    counts = json.loads((FOLDER / "param_counts.json").read_text())
    model = vitjax.create_model(name)
    params = weights.abstract_variables(model)["params"]
    ours = sum(leaf.size for leaf in jax.tree.leaves(params))
    family, size, *_ = name.split("_")
    if family == "swinv2":  # its parameters depend on no window
        official = counts[f"swinv2_{size}_w16_256"]["params"]
    else:
        official = counts[f"swin_{size}_w7_224"]["params"]
        if name.endswith("_384"):  # the tables of windows 12 and 7
            heads = sum(d * h for d, h in zip(model.depths, model.num_heads, strict=True))
            official += (23**2 - 13**2) * heads
    assert ours == official


def variables(model) -> Any:
    """Parameters of which none is zero, as the norms of Swin V2 are at first."""
    shapes = weights.abstract_variables(model)
    rng = np.random.default_rng(0)

    def value(path, leaf) -> np.ndarray:
        noise = 0.1 * rng.standard_normal(leaf.shape).astype(np.float32)
        return noise + (path[-1].key == "scale")

    return jax.tree_util.tree_map_with_path(value, shapes)


def run(model, params, x, **kwargs) -> Any:
    return jax.jit(functools.partial(model.apply, **kwargs))(params, x)


def images(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(2), (2, *shape, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_image(name: str) -> None:
    model = vitjax.create_model(name, **SMALL)
    params = variables(model)
    x = images(67, 97)
    loss, grads = jax.jit(jax.value_and_grad(lambda p: model.apply(p, x).sum()))(params)
    assert jnp.isfinite(loss) and all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    for height, width in ((64, 64), (67, 97), (512, 160)):
        x = images(height, width)
        maps = jax.eval_shape(functools.partial(model.apply, method="features"), params, x)
        sides = [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
        assert [m.shape[1:] for m in maps] == [
            (*s, d) for s, d in zip(sides, (8, 16, 32, 64), strict=True)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_windows_shrink_to_small_maps(name: str) -> None:
    """As the official constructor: window = map, and no shift there."""
    window, mixer = (7, "window") if name == "swin_tiny" else (8, "window_cosine")
    shifted = f"{mixer} | {mixer}(shift='half')"
    model = vitjax.create_model(name, **SMALL, image_size=(96, 192))
    params, x = variables(model), images(96, 192)
    mixers = [dict(m[1].at(i).kwargs) for i, m in enumerate(model.mixers)]
    assert [m["window_size"] for m in mixers] == [window, window, 6, 3]
    assert [m["map_size"] for m in mixers] == [(24, 48), (12, 24), (6, 12), (3, 6)]
    mixer = f"{shifted} ; {shifted} ; {mixer} ; {mixer}"  # stages 3 and 4 are not shifted
    unshifted = vitjax.create_model(name, **SMALL, image_size=(96, 192), mixer=mixer)
    np.testing.assert_array_equal(run(model, params, x), run(unshifted, params, x))
    other = images(192, 96)  # no image that the model is made for: always shifted
    assert jnp.abs(run(model, params, other) - run(unshifted, params, other)).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name: str) -> None:
    model = vitjax.create_model(name, **SMALL)
    params, x = variables(model), images(96, 96)
    logits = run(model, params, x)
    low = run(vitjax.create_model(name, **SMALL, dtype=jnp.bfloat16), params, x)
    assert low.dtype == jnp.bfloat16
    error = jnp.linalg.norm(low.astype(jnp.float32) - logits) / jnp.linalg.norm(logits)
    assert error < 3e-2


OPTIONS: list[dict[str, Any]] = [
    dict(absolute_position=True, patch_norm=False, qkv_bias=False, mlp_ratio=2.5, patch_size=2),
    dict(window_size=(4, 4, 2, 2), drop_rate=0.1, attn_drop_rate=0.1, image_size=(64, 96)),
    dict(remat=True, mixer="full ; window ; window_cosine(window_size=4) ; full"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", OPTIONS)
def test_options(name: str, options: dict) -> None:
    model = vitjax.create_model(name, **SMALL, **options)
    params, x = variables(model), images(64, 96)
    step = jax.jit(lambda params, key: model.apply(params, x, True, rngs={"dropout": key}))
    one, other = (step(params, jax.random.key(i, impl="rbg")) for i in range(2))
    assert jnp.isfinite(one).all() and jnp.abs(one - other).max() > 0
    if "mixer" not in options:  # the authors have names for these
        kwargs = {**SMALL, **options}
        state_dict = weights.to_torch(name, params)
        back = weights.from_torch(name, state_dict, **kwargs)
        jax.tree.map(np.testing.assert_array_equal, back, params)


class Identity(nn.Module):
    dtype: Any = None

    def __call__(self, x):
        return x


def test_patch_merging_concatenates_rows_before_columns() -> None:
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)  # 0 1 / 2 3
    merge = PatchMerging(4, norm=spec(Identity))
    out = merge.apply({"params": {"reduction": {"kernel": jnp.eye(4)}}}, x)
    np.testing.assert_array_equal(out[0, 0, 0], [0, 2, 1, 3])


@pytest.mark.slow
def test_absolute_positions_follow_the_image() -> None:
    stem = SwinStem(width=8, map_size=(4, 6))
    params = stem.init(jax.random.key(0), images(16, 24))
    assert params["params"]["absolute_position"].shape == (1, 24, 8)
    table = jnp.mgrid[:4, :6][0].reshape(1, 24, 1) * jnp.ones(8)  # each row its number
    params["params"]["absolute_position"] = table
    plain = SwinStem(width=8)
    for height, width in ((16, 24), (30, 40)):
        x = images(height, width)
        added = stem.apply(params, x) - plain.apply(params, x)
        rows = (np.arange(len(added[0])) + 0.5) * 4 / len(added[0]) - 0.5
        np.testing.assert_allclose(added[0, 2:-2, 3, 0], rows[2:-2], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_both_naming_schemes(name: str) -> None:
    params = variables(vitjax.create_model(name, **SMALL))
    authors = weights.to_torch(name, params)
    buffers = {
        "layers.0.blocks.1.attn_mask": np.zeros(3),
        "layers.0.blocks.0.attn.relative_position_index": np.zeros(3),
        "layers.0.blocks.0.attn.relative_coords_table": np.zeros(3),
    }
    timm = {}
    for key, value in authors.items():
        if match := re.match(r"layers\.(\d)\.downsample(.*)", key):
            key = f"layers.{int(match[1]) + 1}.downsample{match[2]}"
        timm[re.sub("^head", "head.fc", key)] = value
    for state_dict in ({**authors, **buffers}, timm):
        back = weights.from_torch(name, state_dict, **SMALL)
        jax.tree.map(np.testing.assert_array_equal, back, params)
        for key, value in weights.to_torch(name, back).items():
            np.testing.assert_array_equal(value, authors[key])
    assert set(authors) == set(weights.to_torch(name, back))
    del authors["norm.weight"]
    with pytest.raises(ValueError, match=r"missing: norm\.weight"):
        weights.from_torch(name, authors, **SMALL)


def test_tables_of_another_window() -> None:
    """A table that is linear in the displacement keeps its values at the same relative place."""
    table = np.mgrid[-6:7, -6:7].reshape(2, -1).T.astype(np.float32)
    for window_size in (4, 12):
        side = 2 * window_size - 1
        resized = resize_bias_table(table, window_size).reshape(side, side, 2)
        expected = np.arange(1 - window_size, window_size) * 13 / side
        np.testing.assert_allclose(resized[3:-3, side // 2, 0], expected[3:-3], atol=1e-2)
        np.testing.assert_allclose(resized[side // 2, 3:-3, 1], expected[3:-3], atol=1e-2)
    assert resize_bias_table(table, 7) is table


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_at_another_image_and_window(name: str) -> None:
    positions = dict(absolute_position=True)
    small = vitjax.create_model(name, **SMALL, **positions, image_size=64, window_size=4)
    params = variables(small)
    state_dict = weights.to_torch(name, params)
    kwargs = {**SMALL, **positions, "image_size": (128, 96), "window_size": 6}
    larger = weights.from_torch(name, state_dict, **kwargs)["params"]
    assert larger["stem"]["absolute_position"].shape == (1, 32 * 24, 8)
    if name == "swin_tiny":
        table = larger["stage_1"]["block_0"]["mixer"]["relative_position_bias"]
        assert table.shape == (121, 2)
    logits = run(vitjax.create_model(name, **kwargs), {"params": larger}, images(128, 96))
    assert jnp.isfinite(logits).all()


def test_pretrained_windows_reach_the_mixers() -> None:
    mixers = vitjax.create_model("swinv2_base_w24").mixers
    pretrained = [dict(m[0].at(i).kwargs)["pretrained_window_size"] for i, m in enumerate(mixers)]
    assert pretrained == [12, 12, 12, 6]


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match=r"absolute_position"):
        vitjax.create_model("swin_tiny", absolute_positions=True)
    with pytest.raises(ValueError, match="3 windows, and the model has 4 stages"):
        vitjax.create_model("swin_tiny", window_size=(7, 7, 7))
    model = vitjax.create_model("swin_tiny", **{**SMALL, "num_heads": (3, 3, 3, 3)})
    with pytest.raises(ValueError, match="8 cannot be split into 3 heads"):
        model.init(jax.random.key(0), images(64, 64))
