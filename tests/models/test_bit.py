"""BiT against published counts, and against its forward pass spelt out in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import variables_of
from vitjax import weights

COUNTS = {  # in millions, as published
    "bit_r50x1": 25.55,
    "bit_r50x3": 217.32,
    "bit_r101x1": 44.54,
    "bit_r101x3": 387.93,
    "bit_r152x2": 236.34,
    "bit_r152x4": 936.53,
}
SMALL = dict(depths=(1, 2), num_classes=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("bit_*"))
def test_counts(name: str) -> None:
    params = weights.abstract_variables(vitjax.create_model(name))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert round(count / 1e6, 2) == COUNTS[name]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (75, 49)])
def test_bit_in_pytorch(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    model = vitjax.create_model("bit_r50x1", **SMALL)
    variables = variables_of(model, jnp.zeros((1, 64, 64, 3)))
    state_dict = {k: torch.tensor(v) for k, v in weights.to_torch("bit_r50x1", variables).items()}

    def conv(x, key, stride=1, padding=0):
        w = state_dict[f"{key}.weight"]
        var, mean = torch.var_mean(w, dim=(1, 2, 3), keepdim=True, unbiased=False)
        return f.conv2d(x, (w - mean) / torch.sqrt(var + 1e-8), None, stride, padding)

    def norm(x, key):
        return f.group_norm(x, 32, state_dict[f"{key}.weight"], state_dict[f"{key}.bias"]).relu()

    x = jax.random.normal(jax.random.key(2), (2, height, width, 3))
    y = conv(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2), "stem.conv", 2, 3)
    y = f.max_pool2d(f.pad(y, (1, 1, 1, 1)), 3, 2)
    for i, depth in enumerate(SMALL["depths"]):
        for j in range(depth):
            key, stride = f"stages.{i}.blocks.{j}", 2 if i and not j else 1
            z = norm(y, f"{key}.norm1")
            if not j:
                y = conv(z, f"{key}.downsample.conv", stride)
            z = norm(conv(z, f"{key}.conv1"), f"{key}.norm2")
            z = norm(conv(z, f"{key}.conv2", stride, 1), f"{key}.norm3")
            y = y + conv(z, f"{key}.conv3")
    pooled = norm(y, "norm").mean((2, 3), keepdim=True)
    logits = f.conv2d(pooled, state_dict["head.fc.weight"], state_dict["head.fc.bias"])[..., 0, 0]
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(ours, logits.numpy(), atol=2e-5)


@pytest.mark.slow
def test_strides_and_gradients() -> None:
    x = jax.random.normal(jax.random.key(2), (2, 67, 97, 3))
    full = vitjax.create_model("bit_r50x1")
    variables = weights.abstract_variables(full)
    maps = jax.eval_shape(lambda v: full.apply(v, x, method="features"), variables)
    assert [m.shape[1:3] for m in maps] == [(17, 25), (9, 13), (5, 7), (3, 4)]

    model = vitjax.create_model("bit_r50x1", **SMALL)
    variables = variables_of(model, jnp.zeros((1, 64, 64, 3)))
    grads, recomputed = (
        jax.jit(jax.grad(lambda v, m=m: m.apply(v, x).sum()))(variables)
        for m in (model, model.clone(remat=True))
    )
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grads, recomputed
    )


@pytest.mark.slow
def test_bfloat16() -> None:
    model = vitjax.create_model("bit_r50x1", **SMALL)
    variables = variables_of(model, jnp.zeros((1, 64, 64, 3)))
    x = jax.random.normal(jax.random.key(2), (2, 64, 64, 3))
    exact = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half.dtype == jnp.bfloat16
    assert jnp.linalg.norm(half - exact) <= 3e-2 * jnp.linalg.norm(exact)
