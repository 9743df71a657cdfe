"""The non-local block against the official numbers, its limits and its formula."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_gradients
from vitjax.attention.full import FullAttention
from vitjax.attention.nonlocal_block import PAIRWISE, NonLocal
from vitjax.weights import nonlocal_resnet, table

X = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 6))  # a video


def filled(module: Any, x: jax.Array) -> Any:
    """Variables of a module, all at random."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float32), shapes)


@pytest.mark.golden
@pytest.mark.parametrize("sub_sample", [True, False])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_the_block_is_the_official_one(pairwise: str, sub_sample: bool) -> None:
    name = f"nonlocal_{pairwise}_{'sub' if sub_sample else 'full'}"
    data, meta, state = load_golden.load(FOLDER / f"{name}.npz")
    module = NonLocal(pairwise, sub_sample, normalized=True)
    x = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    (probe,) = load_golden.probes(meta)
    rows = nonlocal_resnet.block_rows("", "", sub_sample)
    shapes = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), x))
    assert sum(s.size for path, s in shapes.items() if path[0] == "params") == meta["num_params"]
    variables = traverse_util.unflatten_dict(table.load(rows, state, shapes))

    def loss(params: Any, x: jax.Array) -> Any:
        z = (x + module.apply({**variables, "params": params}, x)).transpose(0, 3, 1, 2)
        return jnp.sum(z * probe), z

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, z), (grads, grad_x) = step(variables["params"], x)
    atol = 5 * meta["f32_noise"] + 1e-6
    np.testing.assert_allclose(z, data["logits_f64"], rtol=0, atol=atol)
    atol = 10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"]
    np.testing.assert_allclose(grad_x.transpose(0, 3, 1, 2), data["grad_x"], rtol=0, atol=atol)
    theirs = table.dump(rows, traverse_util.flatten_dict({"params": grads}))
    check_gradients(data, meta, theirs, None)


def test_the_embedded_gaussian_is_attention_with_one_head() -> None:
    x = X[:, 0]
    module = NonLocal(sub_sample=False, inner_ratio=1.0)
    variables = filled(module, x)
    params = variables["params"]
    parts = [params[name] for name in ("theta", "phi", "g")]
    qkv = {
        "kernel": np.stack([part["kernel"] for part in parts], axis=1)[:, :, None],
        "bias": np.stack([part["bias"] for part in parts])[:, None],
    }
    full = FullAttention(num_heads=1, scale=1.0)
    expected = full.apply({"params": {"qkv": qkv, "proj": params["proj"]}}, x)
    np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_videos_are_pooled_in_space_alone(pairwise: str) -> None:
    """Against the formula, position by position; of the 4×5 pixels of a frame, 2×2 keys."""
    module = NonLocal(pairwise)
    variables = filled(module, X)
    params = variables["params"]

    def linear(x: Any, name: str) -> Any:
        return x @ params[name]["kernel"] + params[name]["bias"]

    def keys(x: Any) -> Any:
        return x[..., :4, :4, :].reshape(2, 3, 2, 2, 2, 2, -1).max((3, 5)).reshape(2, 12, -1)

    x = np.asarray(X)
    theta, phi = (x, x) if pairwise == "gaussian" else (linear(x, "theta"), linear(x, "phi"))
    theta, phi, g = theta.reshape(2, 60, -1), keys(phi), keys(linear(x, "g"))
    weights = np.einsum("bnc,bmc->bnm", theta, phi)
    if "gaussian" in pairwise:
        weights = np.exp(weights)
        weights /= weights.sum(-1, keepdims=True)
    elif pairwise == "concatenation":
        w = params["concat"]["kernel"][:, 0]
        weights = np.maximum((theta @ w[:3])[..., None] + (phi @ w[3:])[:, None], 0) / 12
    else:
        weights /= 12
    expected = linear(np.einsum("bnm,bmc->bnc", weights, g).reshape(2, 3, 4, 5, 3), "proj")
    out, seen = module.apply(variables, X, mutable=["intermediates"])
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    (found,) = jax.tree.leaves(seen)
    np.testing.assert_allclose(found[:, 0], weights, rtol=1e-4, atol=1e-5)


def test_it_begins_by_adding_nothing() -> None:
    for normalized in (True, False):
        module = NonLocal(normalized=normalized, zero_init=True)
        variables = module.init(jax.random.key(0), X)
        np.testing.assert_array_equal(module.apply(variables, X), 0)


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match="did you mean 'gaussian'"):
        NonLocal("gausian")
    with pytest.raises(ValueError, match=r"sub_sample=True pools a map \[B, H, W, C\]"):
        NonLocal().init(jax.random.key(0), X[:, 0, 0])
    small = NonLocal().init_with_output(jax.random.key(0), X[:, 0, :1, :1])[0]
    assert small.shape == (2, 1, 1, 6)
