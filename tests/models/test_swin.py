"""Swin and Swin V2 against the official numbers, and on the maps that the official code refuses."""

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
from vitjax.layers.spec import spec
from vitjax.models.swin import PatchMerging
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
SMALL = dict(dims=(8, 16, 32, 64), depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), num_classes=5)
NAMES = ("swin_tiny", "swinv2_tiny_w8")


@pytest.mark.parametrize(
    ("case", "name"), [("swin_tiny_w7_224", "swin_tiny"), ("swinv2_tiny_w8_256", "swinv2_tiny_w8")]
)
def test_swin_is_the_official_one(case: str, name: str) -> None:
    check_case(case, name, STAGES)


@pytest.mark.parametrize("name", vitjax.list_models("swin*"))
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


def variables(model) -> dict:
    """Parameters of which none is zero, as the norms of Swin V2 are at first."""
    tree = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noisy)


def images(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(2), (2, *shape, 3))


@pytest.mark.parametrize("name", NAMES)
def test_any_image(name: str) -> None:
    model = vitjax.create_model(name, **SMALL)
    params = variables(model)
    for height, width in ((64, 64), (97, 131), (224, 160)):
        x = images(height, width)
        logits, grad = jax.value_and_grad(lambda x: model.apply(params, x).sum())(x)
        assert jnp.isfinite(logits) and jnp.isfinite(grad).all()
        maps = model.apply(params, x, method="features")
        sides = [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
        assert [m.shape[1:] for m in maps] == [
            (*s, d) for s, d in zip(sides, (8, 16, 32, 64), strict=True)
        ]


@pytest.mark.parametrize("name", NAMES)
def test_windows_shrink_to_small_maps(name: str) -> None:
    """As the official constructor: window = map, and no shift there."""
    window = 7 if name == "swin_tiny" else 8
    model = vitjax.create_model(name, **SMALL, image_size=(96, 192))
    params, x = variables(model), images(96, 192)
    mixers = [dict(m[1].at(i).kwargs) for i, m in enumerate(model.mixers)]
    assert [m["window_size"] for m in mixers] == [window, window, 6, 3]
    assert [m["map_size"] for m in mixers] == [(24, 48), (12, 24), (6, 12), (3, 6)]
    unshifted = vitjax.create_model(
        name,
        **SMALL,
        image_size=(96, 192),
        mixer="{0}|{0}(shift='half') ; {0}|{0}(shift='half') ; {0} ; {0}".format(
            model.mixers[0][0]
            .name.replace("WindowCosineAttention", "window_cosine")
            .replace("WindowAttention", "window")
        ),
    )
    np.testing.assert_array_equal(model.apply(params, x), unshifted.apply(params, x))
    other = images(192, 96)  # no image that the model is made for: always shifted
    assert jnp.abs(model.apply(params, other) - unshifted.apply(params, other)).max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_and_remat(name: str) -> None:
    model = vitjax.create_model(name, **SMALL)
    params, x = variables(model), images(96, 96)
    logits = model.apply(params, x)
    low = vitjax.create_model(name, **SMALL, dtype=jnp.bfloat16).apply(params, x)
    assert low.dtype == jnp.bfloat16
    error = jnp.linalg.norm(low.astype(jnp.float32) - logits) / jnp.linalg.norm(logits)
    assert error < 3e-2
    remat = vitjax.create_model(name, **SMALL, remat=True)
    np.testing.assert_allclose(remat.apply(params, x), logits, atol=1e-6)


OPTIONS = [
    dict(absolute_position=True, patch_norm=False, qkv_bias=False, mlp_ratio=2.5, patch_size=2),
    dict(window_size=(4, 4, 2, 2), drop_rate=0.1, attn_drop_rate=0.1, image_size=(64, 96)),
    dict(mixer="full ; window ; window_cosine(window_size=4) ; full"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", OPTIONS)
def test_options(name: str, options: dict) -> None:
    model = vitjax.create_model(name, **SMALL, **options)
    params, x = variables(model), images(96, 128)
    assert jnp.isfinite(model.apply(params, x)).all()
    one, other = (
        model.apply(params, x, True, rngs={"dropout": jax.random.key(i)}) for i in range(2)
    )
    assert jnp.abs(one - other).max() > 0
    if "mixer" not in options:  # the authors have names for these
        kwargs = {**SMALL, **options}
        state_dict = weights.to_torch(name, params)
        back = weights.from_torch(name, state_dict, **kwargs)
        jax.tree.map(np.testing.assert_array_equal, back, params)


def test_scale_replaces_the_usual_one() -> None:
    """1/√head_dim, given by hand, changes nothing; another does."""
    params, x = variables(vitjax.create_model("swin_tiny", **SMALL)), images(64, 64)
    usual, same, other = (
        vitjax.create_model("swin_tiny", **SMALL, scale=s).apply(params, x)
        for s in (None, 8**-0.5, 1.0)
    )
    np.testing.assert_array_equal(usual, same)
    assert jnp.abs(usual - other).max() > 1e-4


class Identity(nn.Module):
    dtype: Any = None

    def __call__(self, x):
        return x


def test_patch_merging_concatenates_rows_before_columns() -> None:
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)  # 0 1 / 2 3
    merge = PatchMerging(4, norm=spec(Identity))
    out = merge.apply({"params": {"reduction": {"kernel": jnp.eye(4)}}}, x)
    np.testing.assert_array_equal(out[0, 0, 0], [0, 2, 1, 3])


def test_absolute_positions_follow_the_image() -> None:
    model = vitjax.create_model("swin_tiny", **SMALL, absolute_position=True, image_size=64)
    params, x = variables(model), images(64, 64)
    assert params["params"]["stem"]["absolute_position"].shape == (1, 256, 8)
    assert jnp.isfinite(model.apply(params, images(70, 90))).all()
    zero = jax.tree.map(lambda p: p, params)
    zero["params"]["stem"]["absolute_position"] *= 0
    assert jnp.abs(model.apply(params, x) - model.apply(zero, x)).max() > 1e-3


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
    logits = vitjax.create_model(name, **kwargs).apply({"params": larger}, images(128, 96))
    assert jnp.isfinite(logits).all()


def test_pretrained_windows_reach_the_bias() -> None:
    model = vitjax.create_model("swinv2_base_w24")
    assert [dict(m[0].at(i).kwargs)["pretrained_window_size"] for i, m in enumerate(model.mixers)] \
        == [12, 12, 12, 6]  # fmt: skip
    params = variables(vitjax.create_model("swinv2_tiny_w16", **SMALL))
    plain, pretrained = (
        vitjax.create_model("swinv2_tiny_w16", **SMALL, pretrained_window_size=p).apply(
            params, images(64, 64)
        )
        for p in (0, (12, 12, 12, 6))
    )
    assert jnp.abs(plain - pretrained).max() > 1e-4


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match=r"absolute_position"):
        vitjax.create_model("swin_tiny", absolute_positions=True)
    with pytest.raises(ValueError, match=r"3 windows .* 4 stages"):
        vitjax.create_model("swin_tiny", window_size=(7, 7, 7))
    model = vitjax.create_model("swin_tiny", **{**SMALL, "num_heads": (3, 3, 3, 3)})
    with pytest.raises(ValueError, match="8 cannot be split into 3 heads"):
        model.init(jax.random.key(0), images(64, 64))
