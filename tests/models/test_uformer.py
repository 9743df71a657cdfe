"""Uformer against the official numbers, and on images of any size."""

import json
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
from vitjax.analysis.cost import trace
from vitjax.attention.window_modulated import ModulatedWindowAttention
from vitjax.layers.upsample import Upsample
from vitjax.models.uformer import mirror_to_multiple

PARTS = {
    **{f"encoderlayer_{i}": f"stage_{i}" for i in range(4)},
    "conv": "stage_4",
    **{f"decoderlayer_{i}": f"stage_{i + 5}" for i in range(4)},
}
STAGES = {
    "input_proj": "stem", "output_proj": "head", "down0": "downsample_1", "up0": "upsample_5",
    "bottleneck": "stage_4", **{f"enc{i}": f"stage_{i}" for i in range(4)},
    **{f"dec{i}": f"stage_{i + 5}" for i in range(4)},
    **{f"{theirs}.blocks.{j}": f"{ours}/block_{j}" for theirs, ours in PARTS.items()
       for j in range(2)},
}  # fmt: skip
OFFICIAL = {
    "uformer_t": "T",
    "uformer_t_modulator": "T_modulator",
    "uformer_s": "S",
    "uformer_s_modulator": "S_modulator",
    "uformer_b": "B_modulator",
    "uformer_b_plain": "B",
}
SMALL: dict[str, Any] = dict(
    width=4,
    depths=(0, 2, 0, 0, 2, 0, 0, 2, 1),
    num_heads=(1, 1, 2, 2, 2, 2, 2, 1, 1),
    window_size=2,
    mlp_ratio=2.0,
    image_size=64,
)
"""Images become multiples of 32 pixels; stages without blocks save compilation."""


@pytest.mark.golden
@pytest.mark.parametrize("size", ["t", pytest.param("s", marks=pytest.mark.slow)])
def test_uformer_is_the_official_one(size: str) -> None:
    data, meta, state_dict = load_golden.load(FOLDER / f"uformer_{size}_128.npz")
    name = f"uformer_{size}_modulator"
    model, variables = vitjax.create_model(name), weights.from_torch(name, state_dict)
    images = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    (probe,) = load_golden.probes(meta)
    paths = {theirs: tuple(ours.split("/")) for theirs, ours in STAGES.items()}
    wanted = set(paths.values())

    def loss(params, x):
        out, sown = model.apply(
            {"params": params},
            x,
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: (
                method == "__call__" and module.path in wanted
            ),
        )
        out = out.transpose(0, 3, 1, 2)
        return jnp.sum(out * probe), (out, sown["intermediates"])

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, (out, sown)), (grads, grad_x) = step(variables["params"], images)

    check_stages(data, sown, paths)
    out = load_golden.stored(out, meta["outputs"][0])
    tolerance = 5 * meta["f32_noise"] + 1e-6
    np.testing.assert_allclose(out, data["logits_f64"], rtol=0, atol=tolerance)
    s = meta["grad_x_stride"]
    grad_x = grad_x.transpose(0, 3, 1, 2)[:, :, ::s, ::s]
    atol = 10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"]
    np.testing.assert_allclose(grad_x, data["grad_x"], rtol=0, atol=atol)
    check_gradients(data, meta, weights.to_torch(name, {"params": grads}), None)


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_counts_are_the_official_ones(name: str) -> None:
    official = json.loads((FOLDER / "param_counts.json").read_text())[f"uformer_{OFFICIAL[name]}"]
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == official["params"]


@pytest.mark.slow
def test_multiply_adds_are_counted_as_the_official_ones() -> None:
    official = json.loads((FOLDER / "param_counts.json").read_text())["uformer_T"]
    assert trace(vitjax.create_model("uformer_t"), (1, 256, 256, 3))[1] == official["macs"]


@pytest.fixture(scope="module")
def small():
    """Give a model, its variables, its compiled forward pass, images and their result."""
    model = vitjax.create_model("uformer_t_modulator", **SMALL)
    variables, images = noisy(model, (40, 70), batch=2)
    images = mirror_to_multiple(images, 32)
    apply = jax.jit(model.apply)
    return model, variables, apply, images, apply(variables, images)


@pytest.mark.slow
def test_images_are_mirrored_to_whole_windows_and_cropped(small) -> None:
    _, variables, apply, whole, want = small
    assert whole.shape == (2, 64, 96, 3)
    part = apply(variables, whole[:, :40, :70])
    np.testing.assert_allclose(part, want[:, :40, :70], atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 97), (64, 32)])
def test_mirrors_are_numpys(size: tuple[int, int]) -> None:
    images = noisy(vitjax.create_model("uformer_t", **SMALL), size)[1]
    bottom, right = (-side % 32 for side in size)
    want = np.pad(images, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(mirror_to_multiple(images, 32), want)


def test_the_image_is_added_to_the_output(small) -> None:
    _, variables, apply, images, out = small
    assert np.abs(out - images).max() > 0.1
    head = jax.tree.map(np.zeros_like, variables["params"]["head"])
    params = {**variables["params"], "head": head}
    np.testing.assert_array_equal(apply({"params": params}, images), images)


def test_only_the_decoder_is_modulated_and_only_where_asked() -> None:
    def tables(**options: Any) -> set[str]:
        model = vitjax.create_model("uformer_t", **SMALL | dict(depths=(1,) * 9), **options)
        flat = traverse_util.flatten_dict(weights.abstract_variables(model)["params"], sep="/")
        return {path.split("/")[0] for path in flat if path.endswith("modulator")}

    assert tables() == set()
    assert tables(modulator=True) == {f"stage_{i}" for i in (5, 6, 7, 8)}


@pytest.mark.parametrize("shift", [0, 1])
def test_the_modulator_is_added_to_each_token_of_a_window(shift: int) -> None:
    side, (height, width) = 3, (6, 9)
    options: Any = dict(num_heads=2, window_size=side, shift=shift)
    x = np.random.default_rng(0).standard_normal((2, height, width, 4)).astype(np.float32)
    modulated: Any = ModulatedWindowAttention(modulator=True, **options)
    variables = modulated.init(jax.random.key(0), jnp.asarray(x))
    params = {**variables["params"]}
    table = np.asarray(params.pop("modulator"))
    added = x.copy()
    for i in range(height):
        for j in range(width):
            row = (i - shift) % side * side + (j - shift) % side
            added[:, i, j] += table[row]
    plain: Any = ModulatedWindowAttention(**options)
    want = plain.apply({"params": params}, jnp.asarray(added))
    np.testing.assert_allclose(modulated.apply(variables, jnp.asarray(x)), want, atol=1e-5)


def test_borders_of_a_map_that_is_no_square_stay_apart() -> None:
    mixer: Any = ModulatedWindowAttention(num_heads=1, window_size=4, shift="half", modulator=True)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 12, 2)), jnp.float32)
    variables = jax.jit(mixer.init)(jax.random.key(1), x)
    for (i, j), rows, columns in (((0, 0), (0, 2), (0, 2)), ((7, 5), (6, 8), (2, 6))):

        def pixel(x, i=i, j=j):
            return mixer.apply(variables, x)[0, i, j].sum()

        seen = np.abs(jax.jit(jax.grad(pixel))(x)[0]).max(-1) > 0
        want = np.zeros((8, 12), bool)
        want[slice(*rows), slice(*columns)] = True
        np.testing.assert_array_equal(seen, want)


def test_shifts_follow_the_image_size_of_the_model() -> None:
    def shifted(image_size: Any) -> list[int]:
        model = vitjax.create_model("uformer_t", image_size=image_size)
        mixers = enumerate(model.mixers)
        return [i for i, (_, odd) in mixers if dict(odd.kwargs)["shift"] == "half"]

    outer = [0, 1, 2, 3, 5, 6, 7, 8]
    assert shifted(128) == shifted((512, 128)) == outer
    assert shifted(256) == list(range(9))
    assert shifted(64) == [0, 1, 2, 6, 7, 8]


def test_stochastic_depth_rises_and_falls() -> None:
    rates = vitjax.create_model("uformer_b").drop_path_rates()
    encoder = np.linspace(0, 0.1, 19)
    np.testing.assert_allclose(rates, [*encoder, 0.1, 0.1, *encoder[::-1]])
    options = dict(vitjax.create_model("uformer_b").stage(7).kwargs)
    np.testing.assert_allclose(options["drop_path_rate"], [encoder[2], encoder[1]])


@pytest.mark.parametrize("name", ["uformer_t", "uformer_b"])
def test_weights_there_and_back(name: str) -> None:
    state = weights.to_torch(name, noisy(vitjax.create_model(name, **SMALL))[0])
    assert state["encoderlayer_1.blocks.1.attn.qkv.to_kv.weight"].shape == (16, 8)
    assert state["upsample_3.deconv.0.weight"].shape == (16, 4, 2, 2)
    assert ("decoderlayer_3.blocks.0.modulator.weight" in state) == (name == "uformer_b")
    index = {"conv.blocks.0.attn.relative_position_index": np.zeros((4, 4))}
    again = weights.to_torch(name, weights.from_torch(name, state | index, **SMALL))
    assert state.keys() == again.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], again[key])
    other = "uformer_b" if name == "uformer_t" else "uformer_t"
    with pytest.raises(ValueError, match=r"decoderlayer_2\.blocks\.1\.modulator\.weight"):
        weights.from_torch(other, state, **SMALL)


def test_first_weights_are_those_of_the_authors_code() -> None:
    """Check the modulator and transposed convolutions: ±1/√fan_in, the outputs for the fan-in."""
    x = jnp.zeros((1, 8, 8, 32))
    mixer: Any = ModulatedWindowAttention(num_heads=2, modulator=True)
    table = mixer.init(jax.random.key(0), x)["params"]["modulator"]
    np.testing.assert_allclose(table.std(), 1, rtol=0.05)
    for leaf in Upsample(16).init(jax.random.key(0), x)["params"].values():
        assert 0.7 < np.abs(leaf).max() * np.sqrt(4 * 16) <= 1


@pytest.mark.slow
def test_bfloat16_adds_to_images_of_full_precision(small) -> None:
    _, variables, _, images, exact = small
    half = vitjax.create_model("uformer_t_modulator", **SMALL, dtype=jnp.bfloat16)
    half = run(half, variables, images)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())


@pytest.mark.slow
def test_it_trains_with_dropout_remat_and_scan() -> None:
    options: Any = dict(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.2, mixer="window")
    options |= {**SMALL, "depths": (0, 0, 0, 0, 2, 0, 0, 0, 1)}
    model: Any = vitjax.create_model("uformer_t_modulator", **options, remat=True, scan=True)
    variables, images = noisy(model, (64, 32), batch=4)

    def loss(params):
        rngs = {"dropout": jax.random.key(0)}
        return jnp.square(model.apply({"params": params}, images, True, rngs=rngs)).sum()

    grads = jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"]))
    assert all(np.isfinite(g).all() for g in grads)
    assert np.mean([np.abs(g).max() > 0 for g in grads]) > 0.7  # some branches are dropped


def test_other_mixers_stand_in() -> None:
    assert vitjax.create_model("uformer_t", mixer="window|dwconv").multiple == 128
    mixer = "dwconv; sra; window(window_size=4)" + ";full" * 6
    model = vitjax.create_model("uformer_t", width=4, image_size=32, mixer=mixer)
    assert model.multiple == 16
    weights.abstract_variables(model)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must have 9 values"):
        vitjax.create_model("uformer_t", depths=(2, 2, 2))
    with pytest.raises(ValueError, match="changes nothing"):
        vitjax.create_model("uformer_t", mixer="dwconv", modulator=True)
    with pytest.raises(ValueError, match="'uformer_t' has no classes; num_classes=7"):
        vitjax.create_model("uformer_t", num_classes=7)
