"""RefineNet on a ResNet-50 against the numbers of its PyTorch conversion."""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import vitjax
from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_gradients, check_stages
from tests.models.test_pvt import noisy, run
from vitjax import weights
from vitjax.heads.refinenet import RefineNetHead

CASE = "refinenet_r50_96x128"
STAGES: dict[str, tuple[str, ...]] = {
    "p_ims1d2_outl1_dimred": ("head", "block_0", "reduce"),
    "adapt_stage1_b": ("head", "block_0", "adapt_1"),
    "mflow_conv_g1_pool": ("head", "block_0", "pool"),
    "mflow_conv_g2_pool": ("head", "block_1", "pool"),
    "adapt_stage2_b": ("head", "block_1", "adapt_1"),
    "adapt_stage2_b2_joint_varout_dimred": ("head", "block_1", "fuse"),
    **{f"mflow_conv_g{i + 1}_b": ("head", f"block_{i}", "output_2") for i in range(4)},
    **{f"layer{i + 1}": ("backbone", f"stage_{i}") for i in range(4)},
    "clf_conv": ("head", "logits"),
}
SMALL: dict[str, Any] = dict(
    backbone="pvt_v2_b0(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4))",
    width=8,
    coarse_width=16,
    image_size=64,
)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_refinenet_is_the_official_one() -> None:
    """In float64, as in float32 rounding flips ReLUs, which moves gradients by some percent."""
    with jax.enable_x64(True):
        check()


def check() -> None:
    """Hold the model against the golden case in the precision that is set."""
    data, meta, state = load_golden.load(FOLDER / f"{CASE}.npz")
    state = {key: value.astype(np.float64) for key, value in state.items()}
    model = vitjax.create_model("refinenet_resnet50", 21)
    variables = weights.from_torch("refinenet_resnet50", state, 21)
    images = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1), jnp.float64)
    (probe,) = load_golden.probes(meta)
    wanted = set(STAGES.values())

    def loss(params, x):
        logits, sown = model.apply(
            {**variables, "params": params},
            x,
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: (
                method == "__call__" and module.path in wanted
            ),
        )
        return jnp.sum(logits.transpose(0, 3, 1, 2) * probe), (logits, sown["intermediates"])

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, (logits, sown)), (grads, grad_x) = step(variables["params"], images)

    check_stages(data, sown, STAGES)
    np.testing.assert_allclose(
        load_golden.stored(np.asarray(logits).transpose(0, 3, 1, 2), meta["outputs"][0]),
        data["logits_f64"],
        rtol=0,
        atol=1e-9 * np.abs(data["logits_f64"]).max(),
    )
    np.testing.assert_allclose(  # theirs is float32
        np.asarray(grad_x).transpose(0, 3, 1, 2)[:, :, ::16, ::16],
        data["grad_x"],
        rtol=0,
        atol=10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"],
    )
    theirs = weights.to_torch("refinenet_resnet50", {"params": grads})
    theirs = {key.removeprefix("backbone."): value for key, value in theirs.items()}
    check_gradients(data, meta, theirs, 1e-6)
    assert sum(leaf.size for leaf in jax.tree.leaves(grads)) == meta["num_params"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "official"), [("refinenet", 99_060_309), ("refinenet_resnet101", 118_052_437)]
)
def test_sizes_are_the_official_ones(name: str, official: int) -> None:
    params = weights.abstract_variables(vitjax.create_model(name, 21))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == official


TINY: dict[str, Any] = dict(
    backbone="resnet50(depths=(1, 1))", width=8, coarse_width=8, image_size=32
)


@pytest.mark.slow
def test_whole_models_and_classifiers_are_told_apart(tmp_path: pathlib.Path) -> None:
    """A whole model's ResNet has the names of a classifier's, which has no decoder."""
    model = vitjax.create_model("refinenet", 5, **TINY)
    variables = jax.tree.map(np.float32, noisy(model)[0])
    state = weights.to_torch("refinenet", variables, **TINY)
    theirs = {key.removeprefix("backbone."): value for key, value in state.items()}
    assert "layer2.0.downsample.1.running_var" in theirs
    save_file(theirs, tmp_path / "whole.safetensors")
    _, found = vitjax.load_pretrained("refinenet", tmp_path / "whole.safetensors", **TINY)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    with pytest.raises(ValueError, match=r"1 keys differ:\n  unused: backbone\.layer9\.x \(3,\)"):
        weights.from_torch("refinenet", {**theirs, "layer9.x": np.zeros(3)}, 5, **TINY)
    classifier = {k: v for k, v in theirs.items() if re.match(r"(conv1|bn1|layer\d)\.", k)}
    classifier |= {"fc.weight": np.zeros((9, 512)), "fc.bias": np.zeros(9)}
    save_file(classifier, tmp_path / "resnet.safetensors")
    _, found = vitjax.load_pretrained("refinenet", tmp_path / "resnet.safetensors", 5, **TINY)
    for kind in ("params", "batch_stats"):
        ours = found[kind]["backbone"]
        jax.tree.map(np.testing.assert_array_equal, ours, variables[kind]["backbone"])


@pytest.mark.slow
def test_any_size_and_bfloat16() -> None:
    model = vitjax.create_model("refinenet", 5, **SMALL)
    variables, images = noisy(model, (97, 131))
    exact = run(model, variables, images)
    assert exact.shape == (1, 25, 33, 5)  # the finest map's
    half = run(vitjax.create_model("refinenet", 5, **SMALL, dtype=jnp.bfloat16), variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=5e-2 * np.abs(exact).max())


def test_weights_there_and_back() -> None:
    state = weights.to_torch(
        "refinenet", noisy(vitjax.create_model("refinenet", 5, **SMALL))[0], **SMALL
    )
    assert "mflow_conv_g3_b3_joint_varout_dimred.weight" in state
    assert "backbone.norm1.weight" in state
    again = weights.to_torch(
        "refinenet", weights.from_torch("refinenet", state, 5, **SMALL), **SMALL
    )
    assert state.keys() == again.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], again[key])


def test_gradients_reach_every_map_and_parameter() -> None:
    head = RefineNetHead(num_classes=5, width=8, coarse_width=16)
    rng = np.random.default_rng(0)
    maps = tuple(rng.standard_normal((2, 12 // s, 16 // s, 4 * s), np.float32) for s in (1, 2))
    variables = jax.eval_shape(head.init, jax.random.key(0), maps)
    params = jax.tree.map(lambda p: 0.1 * rng.standard_normal(p.shape, np.float32), variables)

    def loss(params, maps):
        logits: Any = head.apply(params, maps, True)
        return jnp.sum(jnp.sin(logits))

    for grad in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(params, maps)):
        assert np.isfinite(grad).all()
        assert np.abs(grad).max() > 0


def test_of_one_map_the_decoder_is_one_block() -> None:
    """Without convolutions that fuse, as there is nothing coarser: a ViT may be the backbone."""
    model = vitjax.create_model(
        "refinenet", 5, backbone="vit_ti16(depth=1)", coarse_width=16, image_size=32
    )
    head = weights.abstract_variables(model)["params"]["head"]
    assert set(head) == {"block_0", "logits"}
    assert not any("fuse" in name for name in head["block_0"])
