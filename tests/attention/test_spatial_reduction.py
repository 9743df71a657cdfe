"""Spatial-reduction attention: its limit, its reductions, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.core import dot_product_attention
from vitjax.attention.full import FullAttention
from vitjax.attention.spatial_reduction import (
    SpatialReductionAttention,
    spatial_reduction_attention,
)
from vitjax.layers.pool import adaptive_average_pool


def normal(seed: int, *shape: int):
    return jax.random.normal(jax.random.key(seed), shape)


def test_without_reduction_it_is_full_attention() -> None:
    q, k, v = (normal(i, 2, 5, 7, 2, 4) for i in range(3))
    flat = [t.reshape(2, 35, 2, 4) for t in (q, k, v)]
    np.testing.assert_allclose(
        spatial_reduction_attention(q, k, v).reshape(2, 35, 2, 4),
        dot_product_attention(*flat),
        atol=1e-6,
    )
    x = normal(3, 2, 5, 7, 8)
    ours = SpatialReductionAttention(num_heads=2)
    params = ours.init(jax.random.key(0), x)["params"]
    kernel = [params["q"]["kernel"], params["kv"]["kernel"]]
    bias = [params["q"]["bias"], params["kv"]["bias"]]
    full = {
        "qkv": {"kernel": jnp.concatenate(kernel, axis=1), "bias": jnp.concatenate(bias)},
        "proj": params["proj"],
    }
    np.testing.assert_allclose(
        ours.apply({"params": params}, x),
        FullAttention(num_heads=2).apply({"params": full}, x),
        atol=1e-6,
    )
    assert ours.apply({"params": params}, x.reshape(2, 35, 8)).shape == (2, 35, 8)


def test_adaptive_pooling_is_the_mean_over_overlapping_cells() -> None:
    x = normal(0, 2, 13, 5, 3)
    pooled = adaptive_average_pool(x, 7)
    for i, j in np.ndindex(7, 7):
        rows = slice(i * 13 // 7, -(-(i + 1) * 13 // 7))
        columns = slice(j * 5 // 7, -(-(j + 1) * 5 // 7))
        np.testing.assert_allclose(pooled[:, i, j], x[:, rows, columns].mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(adaptive_average_pool(x[:, :5], 5), x[:, :5], atol=1e-6)


@pytest.mark.parametrize("size", [(14, 21), (13, 11)])
def test_adaptive_pooling_is_torchs(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    x = normal(0, 2, *size, 3)
    theirs = torch.nn.functional.adaptive_avg_pool2d(
        torch.tensor(np.asarray(x)).permute(0, 3, 1, 2), 7
    )
    np.testing.assert_allclose(
        adaptive_average_pool(x, 7), theirs.permute(0, 2, 3, 1).numpy(), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"sr_ratio": 2}, {"sr_ratio": 8}, {"pooled_size": 7}])
@pytest.mark.parametrize("size", [(8, 8), (13, 7), (5, 11)])
def test_any_map_has_finite_gradients(options: dict, size: tuple[int, int]) -> None:
    mixer, x = SpatialReductionAttention(num_heads=2, **options), normal(0, 2, *size, 8)
    params = jax.jit(mixer.init)(jax.random.key(1), x)
    out, sown = mixer.apply(params, x, mutable=["intermediates"])
    assert out.shape == x.shape
    keys = (
        49
        if "pooled_size" in options
        else max(1, size[0] // options["sr_ratio"]) * max(1, size[1] // options["sr_ratio"])
    )
    weights = sown["intermediates"]["attend"]["weights"][0]
    if min(size) >= options.get("sr_ratio", 0):
        assert weights.shape == (2, 2, size[0] * size[1], keys)
    grads = jax.jit(jax.grad(lambda p, x: jnp.sum(mixer.apply(p, x) ** 2), (0, 1)))(params, x)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))  # one key: none for q


def test_a_sequence_cannot_be_reduced() -> None:
    mixer = SpatialReductionAttention(num_heads=2, sr_ratio=2)
    with pytest.raises(ValueError, match=r"A map \[B, H, W, C\] is needed"):
        mixer.init(jax.random.key(0), jnp.zeros((1, 50, 8)))
