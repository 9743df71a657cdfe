"""Semantic FPN against the official numbers, on maps of any size and on plain transformers."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import vitjax
from tests.drawn import random_variables
from tests.golden import heads, load_golden
from tests.golden.compare import FOLDER, check_stages
from tests.models.test_pvt import noisy, run
from tests.models.test_upernet import size_of
from vitjax import weights
from vitjax.heads.fpn import SemanticFPNHead, nearest
from vitjax.weights import table
from vitjax.weights.semantic_fpn import TABLE

COUNTS = json.loads((FOLDER / "param_counts.json").read_text())
TINY = "pvt_v2_b0(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4))"
SMALL = dict(backbone=TINY, width=8, neck_width=16, image_size=64)
SHORT = {
    **SMALL,
    "backbone": "pvt_v2_b0(dims=(8, 16), depths=(1, 1), num_heads=(1, 2), mlp_ratio=2.0)",
}
"""With two stages, for what costs much to compile."""
STAGES = {
    "neck.fpn_convs.0": ("neck", "fpn_0"),
    "decode_head.scale_heads.0": ("scale_0_0",),
}


@pytest.mark.golden
def test_neck_and_head_are_those_of_mmsegmentation() -> None:
    data, meta, state_dict = load_golden.load(FOLDER / "semantic_fpn_pvt.npz")
    maps = [load_golden.inputs(meta).transpose(0, 2, 3, 1), *heads.extra_maps(meta)]
    maps = tuple(jnp.asarray(x) for x in maps)
    head = SemanticFPNHead(150)
    variables = heads.load_heads(TABLE, state_dict, {"head": head}, maps)
    wanted = {("neck",), *STAGES.values()}

    def apply(params, finest):
        every = {**variables, "params": params}
        logits, sown = head.apply(
            {c: v["head"] for c, v in every.items()},
            (finest, *maps[1:]),
            mutable=["intermediates"],
            capture_intermediates=lambda m, _: m.path in wanted,
        )
        sown = sown["intermediates"]
        return (*sown["neck"]["__call__"][0], logits), sown

    @jax.jit
    def gradients(params, finest, cotangents):
        found, pull, sown = jax.vjp(apply, params, finest, has_aux=True)
        return found, sown, pull(cotangents)

    with jax.default_matmul_precision("highest"):
        shapes = jax.eval_shape(lambda p, x: apply(p, x)[0], variables["params"], maps[0])
        probe = heads.probe_of(meta, shapes)
        found, sown, (grads, grad_x) = gradients(variables["params"], maps[0], probe)

        def loss(found, count="all"):
            return heads.cross_entropy(found[-1], data["in::labels"], count)

        _, _, (trained, _) = gradients(variables["params"], maps[0], jax.grad(loss)(found))

    heads.check_outputs(data, meta, found)
    check_stages(data, sown, STAGES)
    np.testing.assert_allclose(loss(found), data["train_loss_f64"][0], rtol=1e-5)
    torch = data["ref::torch_decode.loss_ce_f64"]
    np.testing.assert_allclose(loss(found, "labelled"), torch, rtol=1e-5)
    heads.check_input_gradient(data, meta, grad_x)
    for which, tree in (("grad_norm", grads), ("grad_norm_train", trained)):
        ours = table.dump(TABLE, traverse_util.flatten_dict({"params": tree}))
        heads.check_norms(data, which, ours, lambda trained: trained)


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        ("pvt_small_to_large", (64, 128, 320, 512)),
        ("pvtv2_b0", (32, 64, 160, 256)),
        ("resnet50", (256, 512, 1024, 2048)),
    ],
)
def test_counts_are_those_of_mmsegmentation(name: str, dims: tuple[int, ...]) -> None:
    maps = tuple(jax.ShapeDtypeStruct((1, 8, 8, c), jnp.float32) for c in dims)
    shapes = jax.eval_shape(SemanticFPNHead(150).init, jax.random.key(0), maps)["params"]
    assert size_of(shapes) == COUNTS[f"semantic_fpn_head_{name}"]["params"]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["pvt_tiny", "pvt_small", "pvt_v2_b0", "pvt_v2_b2_li"])
def test_counts_are_those_of_backbone_and_head(backbone: str) -> None:
    """A PVT has no class token under it, no last norm and no classifier; all else stays."""
    model = vitjax.create_model(f"semantic_fpn_{backbone}", 150)
    params = weights.abstract_variables(model)["params"]
    whole = COUNTS[backbone]["params"]
    unread = 512 * 1000 + 1000 if "b0" not in backbone else 256 * 1000 + 1000
    unread += 0 if "v2" in backbone else 2 * 512 + 512 + 512  # last norm, token and its position
    head = COUNTS["semantic_fpn_head_" + ("pvtv2_b0" if "b0" in backbone else "pvt_small_to_large")]
    assert size_of(params) == whole - unread + head["params"]
    assert "cls_token" not in params["backbone"]["downsample_3"]


def test_nearest_is_that_of_torch() -> None:
    x = jnp.arange(3.0).reshape(1, 3, 1, 1)
    assert nearest(x, (6, 1)).ravel().tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest(x, (5, 1)).ravel().tolist() == [0, 0, 1, 1, 2]
    assert nearest(x, (7, 2))[0, :, 1, 0].tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert nearest(x, (2, 1)).ravel().tolist() == [0, 1]


@pytest.mark.slow
def test_any_image_size() -> None:
    size = (97, 131)
    model = vitjax.create_model("semantic_fpn", 5, **SMALL)
    variables, images = noisy(model, size)
    logits = run(model, variables, images)
    assert logits.shape == (1, -(-size[0] // 4), -(-size[1] // 4), 5)
    assert np.isfinite(logits).all() and np.ptp(logits, axis=(1, 2)).min() > 0
    assert run(model, variables, images, method="all_logits")[1] == ()


BACKBONES = {
    "vit_ti16(width=24, depth=4, num_heads=2)": 1,
    "vit_ti16(width=24, depth=4, num_heads=2, layers_of_features=(0, 1, 2, 3))": 4,
    "volo_d1(dims=(8, 24, 24, 24), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2))": 4,
    "swin_tiny(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4))": 0,
    "pvt_tiny(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4))": 0,
}


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_stands_on_any_backbone(backbone: str) -> None:
    options: Any = {**SMALL, "backbone": backbone}
    model: Any = vitjax.create_model("semantic_fpn", 5, **options)
    images = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)

    def both(images):
        variables = model.init(jax.random.key(0), images)
        return variables, model.apply(variables, images)

    variables, logits = jax.eval_shape(both, images)
    assert logits.shape == (1, 16, 24, 5)
    made = variables["params"]["head"].get("resample", {})
    assert len([name for name in made if name.startswith("lateral")]) == BACKBONES[backbone]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    state = weights.to_torch("semantic_fpn", zeros, **options)
    assert ("neck.1.fpn_convs.0.conv.weight" in state) == bool(made)
    again = weights.from_torch("semantic_fpn", state, 5, **options)
    assert jax.tree.map(np.shape, again) == jax.tree.map(np.shape, zeros)


@pytest.mark.slow
def test_pvt_reads_weights_with_a_class_token_and_without() -> None:
    """The authors' segmentation weights have the token's position, and not the token."""
    name, options = "semantic_fpn", {**SMALL, "backbone": list(BACKBONES)[-1]}
    variables, _ = noisy(vitjax.create_model(name, 5, **options))
    state = weights.to_torch(name, variables, **options)
    key, token = "backbone.pos_embed4", np.ones((1, 1, 32), np.float32)
    positioned = {**state, key: np.concatenate([token, state[key]], axis=1)}
    whole = {**positioned, "backbone.cls_token": token}
    larger = {**positioned, key: np.concatenate([token, np.ones((1, 9, 32))], axis=1)}
    for theirs in (positioned, whole):
        again = weights.to_torch(name, weights.from_torch(name, theirs, 5, **options), **options)
        for k, v in state.items():
            np.testing.assert_array_equal(again[k], v)
    resized = weights.from_torch(name, larger, 5, **options)
    table = resized["params"]["backbone"]["downsample_3"]["pos_embed"]
    np.testing.assert_allclose(table, 1, rtol=1e-6)


@pytest.mark.slow
def test_weights_there_and_back() -> None:
    variables, _ = noisy(vitjax.create_model("semantic_fpn", 5, **SMALL))
    state = weights.to_torch("semantic_fpn", variables, **SMALL)
    assert state["decode_head.scale_heads.3.4.bn.running_mean"].shape == (8,)
    assert {"neck.fpn_convs.3.conv.bias", "backbone.norm4.weight"} <= state.keys()
    again = weights.from_torch("semantic_fpn", state, 5, **SMALL)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.slow
def test_bfloat16_is_close() -> None:
    model = vitjax.create_model("semantic_fpn", 5, **SHORT)
    variables, images = noisy(model)
    exact = run(model, variables, images)
    half = vitjax.create_model("semantic_fpn", 5, **SHORT, dtype=jnp.bfloat16)
    half = run(half, variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())


@pytest.mark.slow
def test_training_reaches_every_parameter() -> None:
    model = vitjax.create_model("semantic_fpn", 5, **SHORT, drop_rate=0.3)
    variables, images = noisy(model, batch=2)

    def loss(params):
        logits, new = model.apply(
            {**variables, "params": params},
            images,
            True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return jnp.mean(jax.nn.log_softmax(logits)[..., 0]), new

    grads, new = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    flat: Any = traverse_util.flatten_dict(grads, sep="/")
    assert all(np.isfinite(g).all() for g in flat.values())
    assert all(np.abs(g).max() > 0 for k, g in flat.items() if k.startswith("head/"))
    changed = jax.tree.map(
        lambda a, b: np.abs(a - b).max() > 0, new, {"batch_stats": variables["batch_stats"]}
    )
    assert all(jax.tree.leaves(changed))


@pytest.mark.slow
def test_an_fpn_may_fuse_by_attention() -> None:
    """With weights of one half, AFF is the sum and iAFF a half of it (arXiv:2009.14082, eq. 4)."""
    tiny = dict(
        backbone="pvt_v2_b0(depths=(1,1,1,1), dims=(8,16,24,32), num_heads=(1,2,3,4))",
        image_size=64,
    )
    images = jax.random.normal(jax.random.key(1), (1, 64, 64, 3))
    plain = vitjax.create_model("semantic_fpn", 3, neck_width=16, width=8, **tiny)
    variables = random_variables(plain)

    def even(path, leaf):  # a sigmoid of zero
        name = jax.tree_util.keystr(path)
        return (
            jnp.zeros_like(leaf)
            if "fusion" in name and ("scale" in name or "bias" in name)
            else leaf
        )

    for fusion, factor in (("aff", 1.0), ("iaff", 0.5)):
        model = vitjax.create_model(
            "semantic_fpn", 3, neck_width=16, width=8, fusion=fusion, **tiny
        )
        own = random_variables(model)
        shared = traverse_util.flatten_dict(variables)
        merged = {p: shared.get(p, leaf) for p, leaf in traverse_util.flatten_dict(own).items()}
        merged = jax.tree_util.tree_map_with_path(even, traverse_util.unflatten_dict(merged))
        neck = jax.jit(
            lambda v, m=model: m.apply(
                v,
                images,
                capture_intermediates=lambda mod, _: (
                    mod.name == "lateral_2" or mod.name == "fpn_2" or mod.name == "lateral_3"
                ),
            )[1]
        )(merged)["intermediates"]["head"]["neck"]
        lateral, coarse = neck["lateral_2"]["__call__"][0], neck["lateral_3"]["__call__"][0]
        total = factor * (lateral + jnp.repeat(jnp.repeat(coarse, 2, 1), 2, 2))
        kernel = merged["params"]["head"]["neck"]["fpn_2"]["conv"]
        expected = (
            jax.lax.conv_general_dilated(
                total, kernel["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            + kernel["bias"]
        )
        np.testing.assert_allclose(neck["fpn_2"]["__call__"][0], expected, atol=2e-5)
    with pytest.raises(ValueError, match="Unknown fusion 'af'; did you mean 'aff'"):
        vitjax.create_model("semantic_fpn", fusion="af")
