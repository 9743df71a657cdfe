"""UPerNet against the official numbers, and on maps of any size."""

import functools
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import vitjax
from tests.golden import heads, load_golden
from tests.golden.compare import FOLDER, check_stages
from tests.models.test_pvt import noisy, run
from vitjax import weights
from vitjax.heads.fcn import FCNHead
from vitjax.heads.upernet import UPerNetHead
from vitjax.layers.pool import adaptive_average_pool
from vitjax.layers.resize import resize
from vitjax.weights import swin, table
from vitjax.weights.libraries import translate
from vitjax.weights.upernet import TABLE, adapt

COUNTS = json.loads((FOLDER / "param_counts.json").read_text())
TINY = "swin_tiny(dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))"
SMALL = dict(backbone=TINY, width=16, auxiliary_width=8, image_size=64)
SHORT = {**SMALL, "backbone": "swin_tiny(dims=(8, 16), depths=(1, 1), num_heads=(1, 2))"}
"""With two stages, for what costs much to compile."""
STAGES = {
    "backbone.swin.embeddings": ("backbone", "stem"),
    "decode_head.psp_modules.0": ("head", "pool_0"),
    "decode_head.psp_modules.3": ("head", "pool_3"),
    "decode_head.bottleneck": ("head", "bottleneck"),
    "decode_head.lateral_convs.0": ("head", "lateral_0"),
    "decode_head.fpn_convs.0": ("head", "fpn_0"),
    "decode_head.fpn_bottleneck": ("head", "fpn_bottleneck"),
    "auxiliary_head.convs": ("auxiliary_0", "conv_0"),
}


@pytest.fixture(scope="module")
def official():
    """transformers' case, its state dict and our model."""
    data, meta, state_dict = load_golden.load(FOLDER / "upernet_swin_tiny.npz")
    size = dict(image_size=tuple(meta["input_shape"][2:]))
    return data, meta, state_dict, vitjax.create_model("upernet_swin_tiny", 150, **size)


def keys(trained: dict[str, Any]) -> dict[str, Any]:
    """Translate their names of parameters."""
    model = vitjax.create_model("upernet", 150)
    found = adapt(trained, model)
    own = re.compile(r"backbone\.(?!norm\d)")
    inner = {own.sub("", key): norm for key, norm in found.items() if own.match(key)}
    inner = translate(swin.LIBRARIES, inner, model.encoder.build())
    heads_ = {key: norm for key, norm in found.items() if not own.match(key)}
    return {**heads_, **{f"backbone.{key}": norm for key, norm in inner.items()}}


@pytest.mark.golden
@pytest.mark.slow
def test_upernet_is_the_one_of_transformers(official) -> None:
    """Outputs in float32 and float64, gradients in float64: one ReLU lies so near to its kink that
    rounding decides which side it is on, and moves the input's gradient by a percent.
    """
    data, meta, state_dict, model = official
    variables = weights.from_torch("upernet_swin_tiny", state_dict, 150)
    images = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    forward = jax.jit(functools.partial(model.apply, method="all_logits"))
    with jax.default_matmul_precision("highest"):
        logits, (helper,) = forward(variables, images)
    for ours, entry in zip((logits, helper), meta["outputs"][4:6], strict=True):
        stored = load_golden.stored(heads.in_torch_order(ours, entry), entry)
        atol = 5 * entry["f32_noise"] + 1e-6
        np.testing.assert_allclose(stored, data[f"{entry['name']}_f64"], rtol=0, atol=atol)
    with jax.enable_x64(True):
        wide = {key: np.asarray(value, np.float64) for key, value in state_dict.items()}
        _check_in_float64(data, meta, wide, model)


def _check_in_float64(data: Any, meta: Any, state_dict: dict[str, Any], model: Any) -> None:
    variables = weights.from_torch("upernet_swin_tiny", state_dict, 150)
    variables = jax.tree.map(jnp.asarray, variables)
    images = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1), jnp.float64)

    def outputs(model, images):
        maps = model.backbone.features(images)
        logits, helper = model.decode(maps), model.helpers[0](maps)
        return *maps, logits, helper, resize(logits, images.shape[1:3])

    def apply(params, images):
        found, sown = model.apply(
            {**variables, "params": params},
            images,
            method=outputs,
            mutable=["intermediates"],
            capture_intermediates=lambda module, _: module.path in STAGES.values(),
        )
        return found, sown["intermediates"]

    @jax.jit
    def gradients(params, images, cotangents):
        found, pull, sown = jax.vjp(apply, params, images, has_aux=True)
        return found, sown, pull(cotangents)

    def losses(found):
        labels = data["in::labels"]
        return [heads.cross_entropy(found[i], labels, "labelled") for i in (4, 5)]

    shapes = jax.eval_shape(lambda p, x: apply(p, x)[0], variables["params"], images)
    with jax.default_matmul_precision("highest"):
        probe = tuple(p.astype(jnp.float64) for p in heads.probe_of(meta, shapes))
        found, sown, (grads, grad_x) = gradients(variables["params"], images, probe)
        pull_losses = jax.jit(jax.grad(lambda f: losses(f)[0] + 0.4 * losses(f)[1]))(found)
        _, _, (trained, _) = gradients(variables["params"], images, pull_losses)

    heads.check_outputs(data, meta, found)
    check_stages(data, sown, STAGES)
    np.testing.assert_allclose(losses(found), data["train_loss_f64"], rtol=1e-5)
    heads.check_input_gradient(data, meta, grad_x)
    for which, tree in (("grad_norm", grads), ("grad_norm_train", trained)):
        ours = weights.to_torch("upernet_swin_tiny", {"params": tree})
        heads.check_norms(data, which, ours, keys)


@pytest.mark.golden
def test_the_heads_are_those_of_mmsegmentation() -> None:
    data, meta, state_dict = load_golden.load(FOLDER / "uperhead_mmseg.npz")
    maps = [load_golden.inputs(meta).transpose(0, 2, 3, 1), *heads.extra_maps(meta)]
    maps = tuple(jnp.asarray(x) for x in maps)
    both = {"head": UPerNetHead(150, width=64), "auxiliary_0": FCNHead(150, width=32)}
    variables = heads.load_heads(TABLE, state_dict, both, maps)

    def apply(params, finest):
        given = (finest, *maps[1:])
        every = {**variables, "params": params}
        return tuple(
            head.apply({c: v[name] for c, v in every.items()}, given) for name, head in both.items()
        )

    @jax.jit
    def gradients(params, finest, cotangents):
        found, pull = jax.vjp(apply, params, finest)
        return found, pull(cotangents)

    def losses(found, count):
        return [heads.cross_entropy(logits, data["in::labels"], count) for logits in found]

    with jax.default_matmul_precision("highest"):
        shapes = jax.eval_shape(apply, variables["params"], maps[0])
        probe = heads.probe_of(meta, shapes)
        found, (grads, grad_x) = gradients(variables["params"], maps[0], probe)
        pull_losses = jax.grad(lambda f: losses(f, "all")[0] + 0.4 * losses(f, "all")[1])(found)
        _, (trained, _) = gradients(variables["params"], maps[0], pull_losses)

    heads.check_outputs(data, meta, found)
    np.testing.assert_allclose(losses(found, "all"), data["train_loss_f64"], rtol=1e-5)
    torch = [data[f"ref::torch_{name}.loss_ce_f64"] for name in ("decode", "aux")]
    np.testing.assert_allclose(losses(found, "labelled"), torch, rtol=1e-5)
    heads.check_input_gradient(data, meta, grad_x)
    for which, tree in (("grad_norm", grads), ("grad_norm_train", trained)):
        ours = table.dump(TABLE, traverse_util.flatten_dict({"params": tree}))
        heads.check_norms(data, which, ours, lambda trained: trained)


def size_of(params: Any) -> int:
    """Count the numbers in a tree of shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_counts_are_the_official_ones(size: str) -> None:
    published = size != "large"
    name, options = f"upernet_swin_{size}", {}
    if not published:
        name, options = "upernet", dict(backbone="swin_large")
    params = weights.abstract_variables(vitjax.create_model(name, 150, **options))["params"]
    assert size_of(params) == COUNTS[f"transformers_upernet_swin_{size}"]["params"]


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        ("swin_tiny_small", (96, 192, 384, 768)),
        ("swin_base", (128, 256, 512, 1024)),
        ("swin_large", (192, 384, 768, 1536)),
        ("resnet50", (256, 512, 1024, 2048)),
        ("debiformer_tiny", (64, 128, 256, 512)),
    ],
)
def test_counts_of_heads_are_those_of_mmsegmentation(name: str, dims: tuple[int, ...]) -> None:
    maps = tuple(jax.ShapeDtypeStruct((1, 8, 8, c), jnp.float32) for c in dims)
    shapes = [
        jax.eval_shape(head.init, jax.random.key(0), maps)["params"]
        for head in (UPerNetHead(150), FCNHead(150))
    ]
    assert size_of(shapes) == COUNTS[f"uperhead_fcn_{name}"]["params"]


def test_cells_are_those_of_torch() -> None:
    row = jnp.arange(7.0)
    x = jnp.stack([row, 10 * row], axis=-1)[None, :, None]  # one column
    three = [1.0, 3.0, 5.0]  # of rows 0-2, 2-4, 4-6
    np.testing.assert_allclose(adaptive_average_pool(x, 3)[0, :, 1, 0], three, rtol=1e-6)
    six = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    np.testing.assert_allclose(adaptive_average_pool(x, 6)[0, :, 5, 1], [10 * v for v in six])
    np.testing.assert_allclose(adaptive_average_pool(x[:, :2], 3)[0, :, 0, 0], [0, 0.5, 1])


def test_one_cell_and_no_pyramid_is_a_chain_of_convolutions() -> None:
    """The limit of one map that is no larger than a pixel: pooling repeats it."""
    rng = np.random.default_rng(0)
    head = UPerNetHead(3, width=4, pool_sizes=(1, 2), strides=(4, 8))
    maps = tuple(jnp.asarray(rng.standard_normal((2, 1, 1, 4)), jnp.float32) for _ in range(2))
    variables: Any = jax.jit(head.init)(jax.random.key(0), maps)
    p = jax.tree.map(np.asarray, variables["params"])

    def conv(name: str, *xs: Any) -> Any:
        kernel = p[name]["conv"]["kernel"]
        centre = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
        return np.maximum(np.concatenate(xs, axis=-1) @ centre / np.sqrt(1 + 1e-5), 0)

    fine, coarse = (np.asarray(m)[:, 0, 0] for m in maps)
    pooled = conv("bottleneck", coarse, conv("pool_0", coarse), conv("pool_1", coarse))
    lateral = conv("fpn_0", conv("lateral_0", fine) + pooled)
    x = conv("fpn_bottleneck", lateral, pooled)
    x = x @ p["classifier"]["conv"]["kernel"][0, 0] + p["classifier"]["conv"]["bias"]
    logits: Any = head.apply(variables, maps)
    np.testing.assert_allclose(logits[:, 0, 0], x, atol=1e-6)


@pytest.mark.slow
def test_any_image_size() -> None:
    size = (97, 131)
    model = vitjax.create_model("upernet", 5, **SMALL)
    variables, images = noisy(model, size)
    logits, (helper,) = run(model, variables, images, method="all_logits")
    quarter = tuple(-(-s // 4) for s in size)
    sixteenth = tuple(-(-s // 16) for s in size)
    assert logits.shape == (1, *quarter, 5) and helper.shape == (1, *sixteenth, 5)
    assert np.isfinite(logits).all() and np.isfinite(helper).all()
    assert np.ptp(logits, axis=(1, 2)).min() > 0


@pytest.mark.slow
def test_bfloat16_is_close() -> None:
    model = vitjax.create_model("upernet", 5, **SHORT)
    variables, images = noisy(model)
    exact = run(model, variables, images)
    half = run(vitjax.create_model("upernet", 5, **SHORT, dtype=jnp.bfloat16), variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())


@pytest.mark.slow
def test_training_reaches_every_parameter() -> None:
    model = vitjax.create_model("upernet", 5, **SHORT, drop_rate=0.3, remat=True)
    variables, images = noisy(model, batch=2)

    def loss(params):
        (logits, helpers), new = model.apply(
            {**variables, "params": params},
            images,
            True,
            method="all_logits",
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return sum(jnp.mean(jax.nn.log_softmax(x)[..., 0]) for x in (logits, *helpers)), new

    grads, new = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    flat: Any = traverse_util.flatten_dict(grads, sep="/")
    assert all(np.isfinite(g).all() for g in flat.values())
    assert {"head", "auxiliary_0"} <= set(new["batch_stats"])
    heads_only = {k: g for k, g in flat.items() if not k.startswith("backbone/")}
    assert all(np.abs(g).max() > 0 for g in heads_only.values())
    assert np.mean([np.abs(g).max() > 0 for g in flat.values()]) > 0.9


def test_first_weights_are_those_of_mmsegmentation() -> None:
    maps = tuple(jnp.zeros((1, 4, 4, c)) for c in (32, 64))
    head = vitjax.create_model("upernet", 150, **SMALL)
    built = UPerNetHead(150, width=64, strides=(4, 8), param_init=head.param_init)
    params: Any = jax.jit(built.init)(jax.random.key(0), maps)["params"]
    spread = np.std(params["bottleneck"]["conv"]["kernel"])
    np.testing.assert_allclose(spread, np.sqrt(2 / (9 * 64)), rtol=0.02)
    np.testing.assert_allclose(np.std(params["classifier"]["conv"]["kernel"]), 0.01, rtol=0.05)
    assert not params["classifier"]["conv"]["bias"].any()
