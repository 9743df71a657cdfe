"""UPerNet on every kind of backbone: pyramids with norms of their own, and maps of one stride."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.models.test_pvt import noisy
from tests.models.test_upernet import SMALL
from vitjax import weights
from vitjax.heads.neck import MultiLevelNeck

BACKBONES = {
    "vit_ti16(width=24, depth=4, num_heads=2)": (16,),
    "vit_ti16(width=24, depth=4, num_heads=2, layers_of_features=(0, 1, 2, 3))": (16,) * 4,
    "volo_d1(dims=(8, 24, 24, 24), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2))": (8, 16, 16, 16),
    "biformer_tiny(dims=(32, 32, 64, 64), depths=(1, 1, 1, 1), n_win=4)": (4, 8, 16, 32),
    "debiformer_tiny(dims=(32, 32, 64, 64), depths=(2, 2, 2, 2), n_win=4, "
    "offset_groups=(1, 1, 2, 2))": (4, 8, 16, 32),
    "dat_tiny(dims=(32, 32, 96, 192), depths=(1, 1, 2, 2), num_heads=(1, 1, 3, 6))": (4, 8, 16, 32),
    "poolformer_s12(dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))": (4, 8, 16, 32),
    "convnext_tiny(dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))": (4, 8, 16, 32),
    "nat_mini(dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))": (4, 8, 16, 32),
}


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_stands_on_any_backbone(backbone: str) -> None:
    model: Any = vitjax.create_model("upernet", 5, **{**SMALL, "backbone": backbone})
    images = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)

    (logits, (helper,)), variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, method="all_logits"), images
    )
    strides = model.encoder.build().strides
    assert strides == BACKBONES[backbone]
    # The finest map of a pyramid, ours or the backbone's own, has stride 4.
    assert logits.shape == (1, 16, 24, 5)
    assert helper.shape[1] == 64 // (strides[-2] if len(strides) > 1 else strides[0])
    params = variables["params"]
    made = len(set(strides)) < 4
    assert ("resample" in params["head"]) == made
    if made:
        laterals = [name for name in params["head"]["resample"] if name.startswith("lateral")]
        assert len(laterals) == len(strides)
    own = backbone.startswith(("biformer", "debiformer", "dat", "poolformer", "convnext", "nat"))
    norms = [name for name in params["backbone"] if name.startswith("feature_norm")]
    assert len(norms) == (4 if own else 0)
    # A final norm and a classifier that no head reads have no parameters.
    assert own is False or not {"norm", "head"} & set(params["backbone"])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    options = {**SMALL, "backbone": backbone}
    state = weights.to_torch("upernet", zeros, **options)
    again = weights.from_torch("upernet", state, 5, **options)
    assert jax.tree.map(np.shape, again) == jax.tree.map(np.shape, zeros)
    if own:  # the names of the authors' segmentation code
        theirs = {theirs_norms(key, backbone[:3]): value for key, value in state.items()}
        assert (theirs.keys() == state.keys()) == backbone.startswith(("convnext", "nat"))
        weights.from_torch("upernet", theirs, 5, **options)


def theirs_norms(key: str, family: str) -> str:
    if family in ("con", "nat"):  # as they are
        return key
    if family == "poo":
        return re.sub(r"(?<=^backbone\.norm)\d", lambda match: str(2 * int(match[0])), key)
    new = r"backbone.norms.\1.norm." if family == "dat" else r"backbone.extra_norms.\1."
    return re.sub(r"^backbone\.norm(\d)\.", new, key)


def test_the_norms_of_maps_are_of_what_heads_read_alone() -> None:
    own = "biformer_tiny(dims=(32, 32), depths=(1, 1), n_win=2, mixer='bra(topk=2)')"
    model: Any = vitjax.create_model("upernet", 5, **{**SMALL, "backbone": own})
    variables, images = noisy(model)
    backbone = model.encoder.build()
    inner = {c: v["backbone"] for c, v in variables.items()}
    plain = backbone.clone(feature_norm=None)
    maps = jax.jit(lambda v, x: backbone.apply(v, x, method="features"))(inner, images)
    bare = jax.jit(lambda v, x: plain.apply(v, x, method="features"))(inner, images)
    for i, (normed, x) in enumerate(zip(maps, bare, strict=True)):
        x = np.asarray(x)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        p = inner["params"][f"feature_norm_{i}"]
        np.testing.assert_allclose(normed, x * p["scale"] + p["bias"], atol=1e-4)


def test_a_pyramid_is_made_as_said() -> None:
    neck = MultiLevelNeck((16,), width=2)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 6, 3)), jnp.float32)
    variables: Any = neck.init(jax.random.key(0), (x,))
    maps: Any = neck.apply(variables, (x,))
    assert [m.shape for m in maps] == [(1, 16, 24, 2), (1, 8, 12, 2), (1, 4, 6, 2), (1, 2, 3, 2)]
    p: Any = jax.tree.map(np.asarray, variables["params"])
    flat = np.asarray(x) @ p["lateral_0"]["conv"]["kernel"][0, 0]
    half = flat.reshape(1, 2, 2, 3, 2, 2).mean(axis=(2, 4))  # where bilinear is a mean of four
    kernel = p["conv_3"]["conv"]["kernel"]
    corner = sum(half[0, i, j] @ kernel[i + 1, j + 1] for i in (0, 1) for j in (0, 1))
    np.testing.assert_allclose(maps[3][0, 0, 0], corner, atol=1e-5)
    with pytest.raises(ValueError, match=r"gives 2 maps.*layers_of_features"):
        MultiLevelNeck((16, 16))


@pytest.mark.parametrize("family", ["biformer", "debiformer"])
@pytest.mark.parametrize("size", ["small", "base"])
def test_published_backbones_are_what_the_authors_configure(family: str, size: str) -> None:
    rate = {"small": 0.3, "base": 0.4}[size]
    model: Any = vitjax.create_model(f"upernet_{family}_{size}", 150)
    options = dict(model.encoder.kwargs)
    assert options["n_win"] == 8 and options["drop_path_rate"] == rate and options["dense"]
    last = model.encoder.build().mixers[-1][0].at(3).kwargs
    assert dict(last).get("topk") == (49 if family == "debiformer" else None)
