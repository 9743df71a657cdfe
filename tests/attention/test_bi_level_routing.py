"""Bi-level routing: full attention as limit, a reference that looks at every pair, its modes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.analysis.cost import multiply_adds
from vitjax.attention.bi_level_routing import BiLevelRoutingAttention, bilevel_routing_attention
from vitjax.attention.core import dot_product_attention
from vitjax.attention.routing import (
    gather_regions,
    pool_regions,
    region_means,
    region_merge,
    region_partition,
    take_regions,
    topk_routing,
)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def heads(height: int, width: int) -> list[jax.Array]:
    return [normal(2, height, width, 3, 4, seed=i) for i in range(3)]


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def test_partition_and_merge_are_inverse() -> None:
    x = normal(2, 6, 9, 4, 5)
    regions = region_partition(x, 3)
    assert regions.shape == (2, 9, 2, 3, 4, 5)
    np.testing.assert_array_equal(regions[:, 5, 1, 2], x[:, 3, 8])  # second row, third column
    np.testing.assert_array_equal(region_merge(regions, 3), x)
    with pytest.raises(ValueError, match="pad the map"):
        region_partition(x, 4)


def test_all_regions_are_full_attention() -> None:
    q, k, v = heads(6, 9)
    out = bilevel_routing_attention(q, k, v, n_win=3)
    full = dot_product_attention(flat(q), flat(k), flat(v), scale=12**-0.5)
    np.testing.assert_allclose(flat(out), full, atol=1e-5)


@pytest.mark.parametrize("form", ["gather", "mask"])
def test_a_query_sees_the_positions_of_the_routed_regions(form: str) -> None:
    q, k, v = heads(6, 9)
    out = bilevel_routing_attention(q, k, v, n_win=3, topk=2, scale=0.7, form=form)
    means = [np.asarray(region_means(region_partition(x, 3))) for x in (q, k)]
    best = np.argsort(-means[0] @ means[1].transpose(0, 2, 1), axis=-1)[..., :2]
    y, x = (g.reshape(-1) for g in np.mgrid[:6, :9])
    region = y // 2 * 3 + x // 3
    sees = (best[:, region][:, :, None] == region[None, None, :, None]).any(-1)  # [B, N, M]
    masked = dot_product_attention(
        flat(q), flat(k), flat(v), scale=0.7, mask=jnp.asarray(sees)[:, None]
    )
    np.testing.assert_allclose(flat(out), masked, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 9), (4, 6, 9)])
def test_a_mask_is_gathering(shape: tuple[int, ...]) -> None:
    """Values and gradients, of maps and clips; queries on a smaller map than the keys."""
    n_win = (2, 3, 3)[-len(shape) :]
    few = tuple(n if n % 2 else side for n, side in zip(n_win, shape, strict=True))
    arrays = normal(2, *few, 3, 4), *(normal(2, *shape, 3, 4, seed=i) for i in (1, 2))
    probe = normal(2, *few, 3, 4, seed=3)

    def run(form: str) -> Any:
        def loss(arrays: Any) -> jax.Array:
            out = bilevel_routing_attention(*arrays, n_win=n_win, topk=4, scale=0.7, form=form)
            return jnp.vdot(out, probe)

        return jax.value_and_grad(loss)(arrays)

    gathered, masked = run("gather"), run("mask")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gathered, masked)


def test_small_maps_are_masked_unless_weights_are_sown() -> None:
    """A position sees 5 of 9 regions; 8 numbers of each key and value: 36 < 40 < 144 positions."""
    shapes = []

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, **options: Any) -> jax.Array:
        shapes.append((k.shape[1:-2], options.get("mask") is not None))
        return dot_product_attention(q, k, v, **options)

    for side in (6, 12):
        q, k, v = heads(side, side)
        bilevel_routing_attention(q, k, v, n_win=3, topk=5, attend=attend)
    assert shapes == [((36,), True), ((9, 80), False)]
    mixer = BiLevelRoutingAttention(num_heads=2, n_win=3, topk=5)
    x = normal(2, 6, 6, 8)
    variables = mixer.init(jax.random.key(0), x)
    out, sown = mixer.apply(variables, x, mutable=["intermediates"])
    assert sown["intermediates"]["attend"]["weights"][0].shape == (2, 9, 2, 4, 20)
    np.testing.assert_allclose(out, mixer.apply(variables, x), atol=1e-5)


def test_one_hot_gather_is_indexing() -> None:
    regions = normal(2, 9, 4, 3, 5)
    routes = topk_routing(normal(2, 9, 6), normal(2, 9, 6, seed=1), topk=4, scale=1.0).routes
    probe = normal(2, 9, 4, 4, 3, 5, seed=2)
    for_one_hot, for_take = (
        jax.value_and_grad(lambda x, gather=gather: jnp.sum(probe * gather(x, routes)))(regions)
        for gather in (gather_regions, take_regions)
    )
    np.testing.assert_allclose(gather_regions(regions, routes), take_regions(regions, routes))
    np.testing.assert_allclose(for_one_hot[1], for_take[1], atol=1e-5)


def test_pooling_of_keys_and_values() -> None:
    x = jnp.arange(25.0).reshape(1, 1, 5, 5, 1)
    means = pool_regions(x, "ada_avgpool", 2)[0, 0, :, :, 0]  # rows 0-2 and 2-4, columns likewise
    np.testing.assert_allclose(means, [[6, 8], [16, 18]])
    np.testing.assert_allclose(pool_regions(x, "maxpool", 2)[0, 0, :, :, 0], [[6, 8], [16, 18]])
    np.testing.assert_array_equal(pool_regions(x, "ada_maxpool", 5), x)
    q, k, v = heads(6, 6)
    out = bilevel_routing_attention(q, k, v, n_win=3, kv_downsample="avgpool", kv_size=2)
    means = [region_means(region_partition(t, 3)).reshape(2, 9, 3, 4) for t in (k, v)]
    full = dot_product_attention(flat(q), *means, scale=12**-0.5)
    np.testing.assert_allclose(flat(out), full, atol=1e-5)


@pytest.mark.slow
def test_weighted_routing() -> None:
    q, k, v = heads(6, 6)

    def out(q, mul_weight):
        return bilevel_routing_attention(q, k, v, n_win=3, topk=2, mul_weight=mul_weight)

    np.testing.assert_allclose(out(q, "hard"), out(q, "none"), atol=1e-6)
    assert np.abs(out(q, "soft") - out(q, "none")).max() > 1e-2
    grads = [jax.grad(lambda q, w=w: out(q, w).sum())(q) for w in ("none", "hard")]
    assert np.abs(grads[0] - grads[1]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(14, 14), (13, 17), (1, 1)])
def test_any_map(shape: tuple[int, int]) -> None:
    mixer = BiLevelRoutingAttention(num_heads=2, topk=4)
    x = normal(2, *shape, 8)
    rng = np.random.default_rng(0)
    variables = jax.eval_shape(mixer.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype("f"), variables)

    def loss(variables, x, train):
        return jnp.sum(jnp.sin(mixer.apply(variables, x, train)))

    padded = jnp.pad(x, ((0, 0), (0, -shape[0] % 7), (0, -shape[1] % 7), (0, 0)))
    apply = jax.jit(lambda v, x: mixer.apply(v, x, mutable=["intermediates"]))
    out, sown = apply(variables, x)
    expected = apply(variables, padded)[0][:, : shape[0], : shape[1]]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert sown["intermediates"]["router"]["routes"][0].shape == (2, 49, 4)
    step = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    grads = [step(variables, x, train) for train in (False, True)]
    for inference, training in zip(*map(jax.tree.leaves, grads)):
        assert np.isfinite(training).all()
        np.testing.assert_allclose(training, inference, atol=1e-4)


@pytest.mark.slow
def test_learned_routing_learns_only_with_weights() -> None:
    x = normal(1, 6, 6, 8)
    for mul_weight, learns in (("none", False), ("soft", True)):
        mixer = BiLevelRoutingAttention(
            num_heads=2, n_win=3, topk=2, param_routing=True, mul_weight=mul_weight
        )
        variables = jax.jit(mixer.init)(jax.random.key(0), x)
        loss = lambda v, mixer=mixer: jnp.sum(jnp.sin(mixer.apply(v, x)))  # noqa: E731
        grad = jax.jit(jax.grad(loss))(variables)["params"]["router"]["emb"]["kernel"]
        assert bool(np.abs(grad).max() > 0) == learns


def test_queries_of_another_width() -> None:
    mixer = BiLevelRoutingAttention(num_heads=2, n_win=2, topk=2, qk_dim=4)
    variables = jax.eval_shape(mixer.init, jax.random.key(0), normal(1, 4, 4, 8))
    assert jax.eval_shape(mixer.apply, variables, normal(1, 4, 4, 8)).shape == (1, 4, 4, 8)
    assert variables["params"]["w_qkv"]["kernel"].shape == (8, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(topk=50), "1 … 49"),
        (dict(kv_downsample="pool"), "'ada_maxpool'"),
        (dict(kv_downsample="avgpool", kv_size=3), "from 1 to 2"),
        (dict(mul_weight="firm"), "'soft'"),
        (dict(qk_dim=5), "must divide both"),
    ],
)
def test_errors_say_what_is_allowed(options: dict, message: str) -> None:
    mixer = BiLevelRoutingAttention(num_heads=2, **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(mixer.init, jax.random.key(0), normal(1, 14, 14, 8))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_masked_is_not_counted(dtype: Any) -> None:
    """Routing, and attention of 54 queries to 2 of 9 regions of 6 positions, twice 12 wide."""
    shapes = [jax.ShapeDtypeStruct((1, 6, 9, 3, 4), dtype)] * 3
    for form in ("gather", "mask"):
        run = functools.partial(bilevel_routing_attention, n_win=3, topk=2, form=form)
        counted = multiply_adds(jax.make_jaxpr(run)(*shapes).jaxpr)
        assert counted == 9 * 9 * 12 + 2 * 54 * 2 * 6 * 12


def test_a_mask_weights_and_pools_nothing() -> None:
    q, k, v = heads(6, 9)
    for options in (dict(mul_weight="soft"), dict(kv_downsample="avgpool", kv_size=2)):
        with pytest.raises(ValueError, match="use 'gather'"):
            bilevel_routing_attention(q, k, v, n_win=3, topk=2, form="mask", **options)
    with pytest.raises(ValueError, match="'mask'"):
        bilevel_routing_attention(q, k, v, n_win=3, form="masks")
