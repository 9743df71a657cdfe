"""Attentional feature fusion against the numbers of the authors' PyTorch code."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_gradients, check_stages
from vitjax.layers.fusion import AttentionalFusion, ChannelWeights, MultiScaleChannelAttention

BOTTLENECK = (("0", "conv"), ("1", "norm"), ("3", "conv"), ("4", "norm"))
"""Modules of a sequence of theirs; in a global one they count on from the pooling."""


def convolve(x: Any, kernel: Any, stride: int = 1) -> Any:
    """Convolve a map with PyTorch's kernel, padded to keep its size."""
    pad = kernel.shape[-1] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )


def normalize(x: Any, state: Any, name: str) -> Any:
    """Apply a BatchNorm's running statistics."""
    scale = state[f"{name}.weight"] * lax.rsqrt(state[f"{name}.running_var"] + 1e-5)
    return (x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]


def load_weights(state: dict[str, Any], local: str, whole: str) -> dict[str, Any]:
    """Give variables of `ChannelWeights` from two sequences of theirs, in float64 if they are."""
    params, stats = {}, {}
    for name, theirs, shift in (("local", local, 0), ("global", whole, 1)):
        for i in range(2):
            conv, norm = (f"{theirs}.{3 * i + shift + k}." for k in range(2))
            kernel = state[f"{conv}weight"].transpose(2, 3, 1, 0)
            params[f"{name}_{i}"] = {
                "conv": {"kernel": kernel, "bias": state[f"{conv}bias"]},
                "norm": {"scale": state[f"{norm}weight"], "bias": state[f"{norm}bias"]},
            }
            mean, var = state[f"{norm}running_mean"], state[f"{norm}running_var"]
            stats[f"{name}_{i}"] = {"norm": {"mean": mean, "var": var}}
    return {"params": params, "batch_stats": stats}


def nest(**parts: dict[str, Any]) -> dict[str, Any]:
    """Give the variables of a module of these parts."""
    kinds = ("params", "batch_stats")
    return {kind: {name: part[kind] for name, part in parts.items()} for kind in kinds}


@pytest.mark.golden
def test_the_modules_are_the_official_ones() -> None:
    data, meta, state = load_golden.load(FOLDER / "aff_modules.npz")
    x = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    (extra,) = meta["extra_inputs"]
    y = np.random.Generator(np.random.PCG64(extra["seed"])).standard_normal(extra["shape"])
    y = jnp.asarray(y.astype(np.float32).transpose(0, 2, 3, 1))
    probes = load_golden.probes(meta)
    trained = {k: v for k, v in state.items() if "running" not in k}

    def outputs(state: Any, x: Any, second: str = "iaff.global_att") -> Any:
        weights = {
            name: load_weights(state, f"{name}.local_att", f"{name}.global_att")
            for name in ("ms_cam", "aff", "iaff")
        }
        again = load_weights(state, "iaff.local_att2", second)
        twice = nest(weights_0=weights["iaff"], weights_1=again)
        return (
            MultiScaleChannelAttention().apply(nest(weights=weights["ms_cam"]), x),
            AttentionalFusion(factor=2.0).apply(nest(weights_0=weights["aff"]), x, y),
            AttentionalFusion(steps=2).apply(twice, x, y),
        )

    def loss(trained, x):
        # Their iAFF uses the first global branch twice.
        given = [z.transpose(0, 3, 1, 2) for z in outputs({**state, **trained}, x)]
        return sum(jnp.sum(z * p) for z, p in zip(given, probes, strict=True)), given

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, given), (grads, grad_x) = step(trained, x)
        papers = outputs(state, x, second="iaff.global_att2")[2]
    for ours, output in zip(given, meta["outputs"], strict=True):
        np.testing.assert_allclose(
            ours,
            data[f"{output['name']}_f64"],
            rtol=0,
            atol=5 * output["f32_noise"] + 1e-6,
            err_msg=output["name"],
        )
    (ref,) = meta["refs"]
    np.testing.assert_allclose(
        papers.transpose(0, 3, 1, 2),
        data["ref::iaff_paper_f64"],
        rtol=0,
        atol=5 * ref["f32_noise"] + 1e-6,
    )
    np.testing.assert_allclose(
        grad_x.transpose(0, 3, 1, 2),
        data["grad_x"],
        rtol=0,
        atol=10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"],
    )
    check_gradients(data, meta, {k: np.asarray(v) for k, v in grads.items()}, None)
    assert sum(v.size for v in trained.values()) == meta["num_params"]


def fused_resnet(state: dict[str, Any], x: Any) -> tuple[Any, dict[str, Any]]:
    """Give logits and stages of a ResNet-18 whose residual sums are attentional fusions."""
    sown = {"conv1": convolve(x, state["conv1.weight"], 2)}
    x = jax.nn.relu(normalize(sown["conv1"], state, "bn1"))
    x = lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )
    for i in range(4):
        for j in range(2):
            block, stride = f"layer{i + 1}.{j}", 2 if i and not j else 1
            y = convolve(x, state[f"{block}.conv1.weight"], stride)
            y = convolve(
                jax.nn.relu(normalize(y, state, f"{block}.bn1")), state[f"{block}.conv2.weight"]
            )
            y = normalize(y, state, f"{block}.bn2")
            if i and not j:
                x = convolve(x, state[f"{block}.downsample.0.weight"], stride)
                x = normalize(x, state, f"{block}.downsample.1")
            theirs = f"{block}.fuse_mode."
            weights = load_weights(state, f"{theirs}local_att", f"{theirs}global_att")
            x = AttentionalFusion(factor=2.0).apply(nest(weights_0=weights), y, x)
            sown[f"{block}.fuse_mode"] = x
            sown[block] = x = jax.nn.relu(x)
        sown[f"layer{i + 1}"] = x
    return jnp.mean(x, axis=(1, 2)) @ state["fc.weight"].T + state["fc.bias"], sown


@pytest.mark.golden
@pytest.mark.slow
def test_a_network_of_fusions_is_the_official_one() -> None:
    data, meta, state = load_golden.load(FOLDER / "aff_resnet18_96.npz")
    images = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    (probe,) = load_golden.probes(meta)
    trained = {k: v for k, v in state.items() if "running" not in k}

    def loss(trained, x):
        logits, sown = fused_resnet({**state, **trained}, x)
        return jnp.sum(logits * probe), (logits, sown)

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, (logits, sown)), (grads, grad_x) = step(trained, images)
    stages = [n for n in data["stage_names"].tolist() if n in sown]
    sown = {name: {"__call__": (x,)} for name, x in sown.items()}
    check_stages(data, sown, {name: (name,) for name in stages})
    np.testing.assert_allclose(
        logits, data["logits_f64"], rtol=0, atol=5 * meta["f32_noise"] + 1e-6
    )
    np.testing.assert_allclose(
        np.asarray(grad_x).transpose(0, 3, 1, 2)[:, :, ::16, ::16],
        data["grad_x"],
        rtol=0,
        atol=10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"],
    )
    check_gradients(data, meta, {k: np.asarray(v) for k, v in grads.items()}, None)
    assert sum(v.size for v in trained.values()) == meta["num_params"]


def fill(module: Any, *maps: Any) -> Any:
    """Give variables of a module, all zeros but the variances."""
    shapes = jax.eval_shape(lambda *maps: module.init(jax.random.key(0), *maps), *maps)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, float(path[-1].key == "var"), leaf.dtype), shapes
    )


@pytest.mark.parametrize("steps", [1, 2])
def test_without_weights_it_is_the_sum(steps: int) -> None:
    x, y = jnp.asarray(np.random.default_rng(0).standard_normal((2, 1, 5, 7, 8), np.float32))
    fuse: Any = AttentionalFusion(steps=steps, factor=2.0)
    np.testing.assert_allclose(fuse.apply(fill(fuse, x, y), x, y), x + y, atol=1e-6)
    alone: Any = MultiScaleChannelAttention()
    np.testing.assert_allclose(alone.apply(fill(alone, x), x), x / 2, atol=1e-6)


@pytest.mark.slow
def test_training_has_finite_gradients_and_bfloat16_is_close() -> None:
    x, y = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 7, 8)), jnp.float32)
    fuse: Any = AttentionalFusion(steps=2)
    variables = fuse.init(jax.random.key(0), x, y)

    @jax.jit
    @jax.grad
    def grads(params):
        z, changed = fuse.apply(
            {**variables, "params": params}, x, y, True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(z)) + 0 * sum(map(jnp.sum, jax.tree.leaves(changed)))

    for grad in jax.tree.leaves(grads(variables["params"])):
        assert np.isfinite(grad).all()
    exact = fuse.apply(variables, x, y)
    half: Any = AttentionalFusion(steps=2, dtype=jnp.bfloat16)
    half = half.apply(variables, x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=5e-2)


def test_too_large_a_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="choose 3 or less"):
        ChannelWeights().init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
