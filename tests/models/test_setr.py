"""SETR against the official numbers, and on images that are not square."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import vitjax
from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_gradients, check_stages
from tests.models.test_pvt import noisy, run
from vitjax import weights
from vitjax.layers.resize import resize

TINY = dict(backbone="vit_b16(width=64, depth=4, num_heads=4)", image_size=96)
SMALL = dict(
    setr_naive=dict(auxiliary_layers=(1,)),
    setr_pup=dict(auxiliary_layers=(1,)),
    setr_mla=dict(width=16),
)
BLOCKS: dict[str, tuple[str, ...]] = {
    "patch_embed": ("backbone", "patch_embed"),
    **{f"backbone.blocks.{i}": ("backbone", f"block_{i}") for i in range(4)},
}
STAGES: dict[str, dict[str, tuple[str, ...]]] = dict(
    setr_naive=BLOCKS,
    setr_pup={**BLOCKS, "bn3": ("head", "conv_3")},  # its ReLU works in place
    setr_mla={
        **BLOCKS,
        "norm_0": ("backbone", "neck", "norm_0"),
        "mla": ("backbone", "neck", "output_0"),
    },
)
STRIDES = dict(setr_naive=(16, 16), setr_pup=(2, 4), setr_mla=(4, 16))


def tiny(name: str, num_classes: int = 5, **options: Any) -> Any:
    """Give the model of the golden case."""
    return vitjax.create_model(name, num_classes, **{**TINY, **SMALL[name], **options})


def count(tree: Any) -> int:
    """Give the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.golden
@pytest.mark.parametrize("name", SMALL)
def test_setr_is_the_official_one(name: str) -> None:
    data, meta, state = load_golden.load(FOLDER / f"{name}.npz")
    model, options = tiny(name, 19), {**TINY, **SMALL[name]}
    variables = weights.from_torch(name, state, 19, **options)
    images = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    probes, wanted = load_golden.probes(meta), set(STAGES[name].values())

    def loss(params, x):
        (logits, auxiliary), sown = model.apply(
            {**variables, "params": params},
            x,
            method="all_logits",
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: (
                method == "__call__" and module.path in wanted
            ),
        )
        outputs = [resize(y, (96, 96)).transpose(0, 3, 1, 2) for y in (logits, *auxiliary)]
        total = sum(jnp.sum(y * probe) for y, probe in zip(outputs, probes, strict=True))
        return total, (outputs, sown["intermediates"])

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, (outputs, sown)), (grads, grad_x) = step(variables["params"], images)

    tolerance = 5 * meta["f32_noise"] + 1e-6
    for ours, output in zip(outputs, meta["outputs"], strict=True):
        np.testing.assert_allclose(
            load_golden.stored(np.asarray(ours), output),
            data[f"{output['name']}_f64"],
            rtol=0,
            atol=tolerance,
            err_msg=output["name"],
        )
    check_stages(data, sown, STAGES[name])
    np.testing.assert_allclose(
        np.asarray(grad_x).transpose(0, 3, 1, 2)[:, :, ::16, ::16],
        data["grad_x"],
        rtol=0,
        atol=10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"],
    )
    # What the official code has and does not use; its cls_token is dropped before MLA's blocks.
    used = [k for k in data["keys"].tolist() if "conv_seg" not in k]
    used = [k for k in used if name != "setr_mla" or k != "backbone.cls_token"]
    rows = [data["keys"].tolist().index(k) for k in used]
    data = {**data, "keys": data["keys"][rows], "grad_norm_f64": data["grad_norm_f64"][rows]}
    check_gradients(data, meta, weights.to_torch(name, {"params": grads}, **options), None)
    unused = sum(state[key].size for key in meta["unused_params"])
    token = 2 * 64 if name == "setr_mla" else 0  # with its position
    assert count(variables["params"]) == meta["num_params"] - unused - token


@pytest.mark.slow
@pytest.mark.parametrize(("size", "width"), [("b16", 768), ("l16", 1024)])
def test_heads_have_the_sizes_of_the_official_ones(size: str, width: int) -> None:
    """Layer by layer, from the official code (heads of width 256 and 4 × 128)."""
    vit = count(weights.abstract_variables(vitjax.create_model(f"vit_{size}", 0))["params"])
    vit -= 2 * width  # its last norm
    conv = 256 + 2 * 256  # bias and norm of a convolution
    naive = 2 * width + width * 256 + conv + 257 * 19
    up = 2 * width + 9 * width * 256 + conv + 257 * 19
    pup = up + 3 * (9 * 256 * 256 + conv)
    neck = 4 * (2 * width + width * 256 + 9 * 256 * 256 + 2 * 2 * 256)
    mla = 4 * (9 * 256 * 128 + 9 * 128 * 128 + 2 * 2 * 128) + 9 * 512 * 19 + 19
    for name, heads in (
        (f"setr_naive_vit_{size}", 4 * naive),
        (f"setr_pup_vit_{size}", pup + 4 * up),
        (f"setr_mla_vit_{size}", neck + mla + 4 * 256 * 19 - 2 * width),
    ):
        model = vitjax.create_model(name, 19, image_size=224)
        assert count(weights.abstract_variables(model)["params"]) == vit + heads, name


@pytest.mark.parametrize(
    ("name", "blocks", "helpers"),
    [  # in_index of the official configurations
        ("setr_naive_vit_l16", (9, 14, 19, 23), (9, 14, 19)),
        ("setr_naive_vit_b16", (2, 5, 8, 11), (2, 5, 8)),
        ("setr_pup", (9, 14, 19, 23), (9, 14, 19, 23)),
        ("setr_pup_vit_b16", (4, 7, 9, 11), (4, 7, 9, 11)),
        ("setr_mla", (5, 11, 17, 23), (5, 11, 17, 23)),
        ("setr_mla_vit_b16", (2, 5, 8, 11), (2, 5, 8, 11)),
    ],
)
def test_blocks_are_those_of_the_authors(name: str, blocks: tuple, helpers: tuple) -> None:
    model: Any = vitjax.create_model(name)
    assert model.encoder.build().layers_of_features == blocks
    assert tuple(blocks[dict(h.kwargs)["index"]] for h in model.auxiliary) == helpers
    assert dict(model.head.kwargs).get("index", -1) == -1  # the last block


@pytest.mark.parametrize("name", SMALL)
def test_images_need_not_be_square(name: str) -> None:
    model = tiny(name)
    variables, _ = noisy(model)
    images = jax.ShapeDtypeStruct((2, 64, 112, 3), jnp.float32)
    logits, auxiliary = jax.eval_shape(
        lambda x: model.apply(variables, x, method="all_logits"), images
    )
    stride, other = STRIDES[name]
    assert logits.shape == (2, 64 // stride, 112 // stride, 5)
    assert {y.shape for y in auxiliary} == {(2, 64 // other, 112 // other, 5)}


def test_rows_and_columns_are_not_exchanged() -> None:
    model = tiny("setr_naive", image_size=(32, 64))
    variables, images = noisy(model, (32, 64))
    other = tiny("setr_naive", image_size=(64, 32))
    turned: Any = traverse_util.flatten_dict(variables["params"])
    table = turned["backbone", "pos_embed"]
    grid = table[:, 1:].reshape(1, 2, 4, -1).transpose(0, 2, 1, 3).reshape(1, 8, -1)
    turned["backbone", "pos_embed"] = np.concatenate([table[:, :1], grid], axis=1)
    kernel = turned["backbone", "patch_embed", "proj", "kernel"]
    turned["backbone", "patch_embed", "proj", "kernel"] = kernel.transpose(1, 0, 2, 3)
    turned = {**variables, "params": traverse_util.unflatten_dict(turned)}
    ours = run(model, variables, images)
    np.testing.assert_allclose(
        run(other, turned, images.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3), ours, atol=1e-5
    )
    assert np.std(ours, axis=(1, 2)).min() > 1e-3  # positions differ


@pytest.mark.slow
@pytest.mark.parametrize("name", ["setr_pup", "setr_mla"])
def test_bfloat16_is_close(name: str) -> None:
    model = tiny(name)
    variables, images = noisy(model)
    exact = run(model, variables, images)
    half = run(tiny(name, dtype=jnp.bfloat16), variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=5e-2 * np.abs(exact).max())


@pytest.mark.parametrize("name", SMALL)
def test_weights_there_and_back(name: str) -> None:
    options = {**TINY, **SMALL[name]}
    state = weights.to_torch(name, noisy(tiny(name))[0], **options)
    assert any(key.startswith("auxiliary_head.0.") for key in state)
    again = weights.to_torch(name, weights.from_torch(name, state, 5, **options), **options)
    assert state.keys() == again.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], again[key])
    larger = weights.from_torch(name, state, 5, **{**options, "image_size": (96, 128)})
    table = larger["params"]["backbone"]["pos_embed"]
    assert table.shape[1] == 48 + (name != "setr_mla")


def test_a_class_token_that_no_block_reads_is_dropped() -> None:
    options = {**TINY, **SMALL["setr_mla"]}
    state = weights.to_torch("setr_mla", noisy(tiny("setr_mla"))[0], **options)
    theirs = dict(state)
    token = np.full((1, 1, 64), 7, np.float32)
    theirs["backbone.cls_token"] = token
    theirs["backbone.pos_embed"] = np.concatenate([token, state["backbone.pos_embed"]], axis=1)
    again = weights.to_torch(
        "setr_mla", weights.from_torch("setr_mla", theirs, 5, **options), **options
    )
    np.testing.assert_array_equal(again["backbone.pos_embed"], state["backbone.pos_embed"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_training_has_finite_gradients(name: str) -> None:
    model = tiny(name, remat=True, scan=True)
    variables, images = noisy(model, (32, 48), batch=2)

    def loss(params):
        (logits, auxiliary), changed = model.apply(
            {**variables, "params": params},
            images,
            True,
            method="all_logits",
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        return sum(jnp.sum(jnp.sin(y)) for y in (logits, *auxiliary)), changed

    grads, changed = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    flat: Any = traverse_util.flatten_dict(grads, sep="/")
    for path, grad in flat.items():
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 0, path
    before, after = (jax.tree.leaves(v["batch_stats"]) for v in (variables, changed))
    assert all(np.abs(b - a).max() > 0 for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("setr_pup", dict(backbone="swin_tiny"), "choose a backbone such as 'vit_l16'"),
        ("setr_mla", dict(backbone="deit_tiny_distilled"), "SETR-MLA's ViT has no class token"),
        ("setr_mla", dict(backbone="vit_b16(layers_of_features=(3,))"), "which SETR chooses"),
        ("setr_naive", dict(backbone="vit_b16", auxiliary_layers=(12,)), "blocks 0 to 11"),
    ],
)
def test_errors_say_what_to_do(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vitjax.create_model(name, **options).encoder.build()
