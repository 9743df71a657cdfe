"""ViT: counts, switches that must not change the function, positions, and mistakes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from vitjax import weights
from vitjax.abstract import abstract_init
from vitjax.analysis.cost import count
from vitjax.layers.position import resize_positions
from vitjax.models.encoder import stack_layers, unstack_layers

TINY = dict(width=24, depth=3, num_heads=2, image_size=28, num_classes=5)


def tiny(**options):
    return vitjax.create_model("vit_ti7", **{**TINY, **options})


def images(height: int = 28, width: int = 28, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (2, height, width, 3))


def init(model, seed: int = 1):
    """Variables with no zeros in them: a zero head would hide everything before it."""
    variables = jax.jit(model.init)(jax.random.key(seed), images())
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vit_ti16", 5_717_416),
        ("vit_s16", 22_050_664),
        ("vit_s32", 22_878_952),
        ("vit_b16", 86_567_656),
        ("vit_b32", 88_224_232),
        ("vit_b8", 86_576_872),
        ("vit_l16", 304_326_632),
        ("vit_l32", 306_535_400),
        ("vit_h14", 632_045_800),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int) -> None:
    shapes = weights.abstract_variables(vitjax.create_model(name))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == parameters


@pytest.mark.slow
@pytest.mark.parametrize(("name", "millions"), [("vit_g14", 1012.6), ("vit_G14", 1844.4)])
def test_the_giants_have_the_published_size(name: str, millions: float) -> None:
    shapes = weights.abstract_variables(vitjax.create_model(name))
    assert abs(sum(x.size for x in jax.tree.leaves(shapes)) / 1e6 - millions) < 0.1


@pytest.mark.slow
def test_multiply_adds_are_the_official_count() -> None:
    assert count(vitjax.create_model("vit_ti16"), (1, 224, 224, 3)).macs == 1_253_683_200
    scanned = vitjax.create_model("vit_ti16", scan=True)
    assert count(scanned, (1, 224, 224, 3)).macs == 1_253_683_200


@pytest.mark.slow
def test_registers_are_tokens_without_positions() -> None:
    def size(name: str) -> int:
        return sum(
            x.size for x in jax.tree.leaves(weights.abstract_variables(vitjax.create_model(name)))
        )

    assert size("vit_s14_reg4") - size("vit_s14") == (4 - 1) * 384
    model = tiny(num_registers=3, class_position=False)
    tokens, grid = model.apply(init(model), images(), method="encode")
    assert grid == (4, 4)
    assert tokens.shape == (2, 1 + 3 + 16, 24)


def test_any_patch_size_is_on_the_menu() -> None:
    assert vitjax.create_model("vit_b20").patch_size == 20
    assert "vit_s14" in vitjax.list_models("vit_s*")
    assert vitjax.list_models("vit_?16") == ["vit_s16", "vit_b16", "vit_l16"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(pool="token", representation_size=11, layer_scale_init=0.5),
        dict(pool="map", position="sincos2d", num_registers=2),
    ],
)
def test_scan_and_remat_change_no_number(options: dict) -> None:
    model = tiny(**options, depth=2)
    variables = init(model)
    stacked = {"params": stack_layers(variables["params"])}
    chex.assert_trees_all_equal(unstack_layers(stacked["params"]), variables["params"])

    def value_and_grad(m, v):
        return jax.jit(jax.value_and_grad(lambda v: jnp.sum(m.apply(v, images()) ** 2)))(v)

    plain, grads = value_and_grad(model, variables)
    for scan, remat in ((False, True), (True, False), (True, True)):
        other = tiny(**options, depth=2, scan=scan, remat=remat)
        v = stacked if scan else variables
        shapes = abstract_init(other.init, jax.random.key(0), images())
        chex.assert_trees_all_equal_shapes(shapes, v)
        value, g = value_and_grad(other, v)
        np.testing.assert_allclose(value, plain, rtol=1e-5)
        g = unstack_layers(g["params"])
        chex.assert_trees_all_close(g, grads["params"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    model = tiny(drop_path_rate=0.5, num_classes=0, pool="gap")
    variables = init(model)
    x = jnp.repeat(images()[:1], 2048, axis=0)
    apply = jax.jit(lambda k: model.apply(variables, x, True, rngs={"dropout": k}))
    outputs = np.asarray(apply(jax.random.key(0))).round(4)
    # The first of three blocks is never dropped, the others have two branches each: 2⁴ outcomes.
    assert len(np.unique(outputs, axis=0)) == 16
    whole = model.apply(variables, x[:1], False)
    scanned = tiny(drop_path_rate=0.5, num_classes=0, pool="gap", scan=True)
    stacked = {"params": stack_layers(variables["params"])}
    np.testing.assert_allclose(scanned.apply(stacked, x[:1], False), whole, atol=1e-4)
    apply = jax.jit(lambda k: scanned.apply(stacked, x, True, rngs={"dropout": k}))
    assert len(np.unique(np.asarray(apply(jax.random.key(0))).round(4), axis=0)) == 16


@pytest.mark.slow
def test_features_are_the_patches_as_a_map() -> None:
    model = tiny(num_registers=2, class_position=False)
    variables = init(model)
    (features,) = model.apply(variables, images(28, 35), method="features")
    assert features.shape == (2, 4, 5, 24)
    tokens, _ = model.apply(variables, images(28, 35), method="encode")
    np.testing.assert_array_equal(features.reshape(2, 20, 24), tokens[:, 3:])


def test_positions_follow_the_image_smooth_and_in_two_dimensions() -> None:
    ramp = jnp.arange(8.0)[:, None] * 2 + jnp.arange(12.0)[None] * 3
    table = jnp.broadcast_to(ramp[..., None], (8, 12, 4)).reshape(1, 96, 4)
    prefixed = jnp.concatenate([jnp.full((1, 1, 4), 7.0), table], axis=1)

    def resized(method: str, *grid: int) -> np.ndarray:
        out = resize_positions(prefixed, grid, num_prefix=1, source_grid=(8, 12), method=method)
        np.testing.assert_array_equal(out[:, 0], 7.0)
        return np.asarray(out[0, 1:]).reshape(*grid, 4)[..., 2]

    for method in ("bicubic", "bilinear"):
        np.testing.assert_allclose(resized(method, 8, 12), ramp, atol=1e-5)
        larger = resized(method, 16, 24)  # twice the grid: the ramp at half the slope
        np.testing.assert_allclose(np.diff(larger, axis=0)[5:-5], 1.0, atol=1e-4)
        np.testing.assert_allclose(np.diff(larger, axis=1)[:, 5:-5], 1.5, atol=1e-4)
        assert np.isfinite(resized(method, 5, 7)).all()
    with pytest.raises(ValueError, match="A position table of 96 patches is no 9×9 grid"):
        resize_positions(prefixed, (3, 3), num_prefix=1)


@pytest.mark.slow
def test_loading_at_another_resolution_interpolates_the_positions() -> None:
    model, larger = tiny(), tiny(image_size=(35, 56))
    state_dict = weights.to_torch("vit_ti7", init(model))
    options = {k: v for k, v in TINY.items() if k != "image_size"}
    loaded = weights.from_torch("vit_ti7", state_dict, **options, image_size=(35, 56))
    assert loaded["params"]["pos_embed"].shape == (1, 1 + 5 * 8, 24)
    # Resized when it is loaded, or each time that it is used: the same.
    same = weights.from_torch("vit_ti7", state_dict, **TINY)
    x = images(35, 56)
    np.testing.assert_allclose(
        jax.jit(larger.apply)(loaded, x), jax.jit(model.apply)(same, x), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_weights_go_there_and_back(scan: bool) -> None:
    options = {**TINY, "scan": scan, "layer_scale_init": 0.1, "qk_norm": True}
    variables = init(tiny(**options))
    state_dict = weights.to_torch("vit_ti7", variables)
    assert state_dict["blocks.2.attn.qkv.weight"].shape == (72, 24)
    chex.assert_trees_all_equal(weights.from_torch("vit_ti7", state_dict, **options), variables)


@pytest.mark.slow
def test_every_key_that_does_not_fit_is_listed_at_once() -> None:
    state_dict = weights.to_torch("vit_ti7", init(tiny()))
    state_dict["head.bias"] = state_dict["head.bias"][:-1]
    state_dict["extra.weight"] = state_dict.pop("blocks.1.norm1.weight")
    with pytest.raises(ValueError, match="3 keys differ") as error:
        weights.from_torch("vit_ti7", state_dict, **TINY)
    for text in (
        "missing: blocks.1.norm1.weight",
        "misshapen: head.bias is (4,)",
        "unused: extra.weight",
    ):
        assert text in str(error.value)


@pytest.mark.slow
def test_bfloat16_stays_near_float32() -> None:
    model, half = tiny(), tiny(dtype=jnp.bfloat16)
    variables = init(model)
    exact, rough = (jax.jit(m.apply)(variables, images()) for m in (model, half))
    assert rough.dtype == jnp.bfloat16
    assert all(
        x.dtype == jnp.float32 for x in jax.tree.leaves(half.init(jax.random.key(0), images()))
    )
    error = np.linalg.norm(np.asarray(rough, np.float32) - exact) / np.linalg.norm(exact)
    assert error < 3e-2


def test_a_new_model_predicts_every_class_alike() -> None:
    model = tiny()
    logits = model.apply(jax.jit(model.init)(jax.random.key(0), images()), images())
    np.testing.assert_array_equal(logits, np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(pool="mean"), "Unknown pool 'mean'; .*Choose from: token, gap, map"),
        (dict(position="rotary"), "Unknown position 'rotary'"),
        (dict(num_heads=5), "a width of 24 cannot be split into 5 heads; num_heads must divide it"),
        (dict(mixer="ful"), "did you mean 'full'"),
        (dict(widht=3), "Unknown hyperparameter of 'vit_ti7' 'widht'; did you mean 'width'"),
        (dict(scan=True, mixer="full | full(qk_norm=True)"), "scan=True needs equal layers"),
        (dict(mixer="full;full"), "describe 2 stages, and the model has 1"),
        (dict(mixer="full(qk_norm=f(x))"), "does not parse"),
        (dict(position="sincos2d", width=26), "divisible by 4; got 26"),
    ],
)
def test_mistakes_are_told(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        tiny(**options).init(jax.random.key(0), images())


def test_an_image_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="28×30 pixels cannot be cut into patches of 7×7"):
        tiny().init(jax.random.key(0), images(28, 30))


def test_it_works_from_nnx() -> None:
    from flax import nnx

    model = nnx.bridge.ToNNX(tiny(), rngs=nnx.Rngs(0)).lazy_init(images())
    assert model(images()).shape == (2, 5)
