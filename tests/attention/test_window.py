"""Window attention: geometry, a reference that looks at every pair, full attention as limit."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.analysis.cost import multiply_adds
from vitjax.attention import MIXERS, VIDEO_MIXERS, parse_mixers
from vitjax.attention.core import DotProductAttention, dot_product_attention
from vitjax.attention.full import FullAttention
from vitjax.attention.window import WindowAttention, window_attention, window_shift
from vitjax.attention.window_cosine import (
    WindowCosineAttention,
    cosine_queries_keys,
    log_spaced_coordinates,
)
from vitjax.attention.windows import (
    relative_bias,
    relative_position_index,
    shift_map,
    shift_mask,
    window_merge,
    window_partition,
    windows_to_join,
)
from vitjax.kernels.platform import traced_for

MODULES = (WindowAttention, WindowCosineAttention)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def perturbed(mixer, x: jax.Array) -> dict:
    """Parameters none of which is at a special first value."""
    leaves, tree = jax.tree.flatten(jax.jit(mixer.init)(jax.random.key(0), x))
    leaves = [leaf + 0.3 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, leaves)


def every_pair(q, k, v, *, window_size: int, shift: int, bias=None):
    """The same attention over the whole map, where each query sees its cell of the shifted grid."""
    batch, height, width, heads, _ = q.shape
    y, x = (g.reshape(-1) for g in np.mgrid[:height, :width])
    cell = [(t - shift) // window_size for t in (y, x)]
    sees = np.equal(*np.ix_(cell[0], cell[0])) & np.equal(*np.ix_(cell[1], cell[1]))
    if bias is not None:
        # Of pairs in no common window the entry means nothing, and is masked.
        within = ((y - shift) % window_size) * window_size + (x - shift) % window_size
        bias = bias[:, within][:, :, within]
    tokens = [t.reshape(batch, height * width, heads, -1) for t in (q, k, v)]
    out = dot_product_attention(*tokens, bias=bias, mask=jnp.asarray(sees))
    return out.reshape(batch, height, width, heads, -1)


def test_partition_and_merge_are_inverse() -> None:
    x = normal(2, 6, 9, 4, 5)
    windows = window_partition(x, 3)
    assert windows.shape == (2, 6, 9, 4, 5)
    np.testing.assert_array_equal(windows[:, 1, 5], x[:, 1, 5])  # second window, row 1, column 2
    np.testing.assert_array_equal(window_merge(windows, 3, 6, 9), x)
    np.testing.assert_array_equal(shift_map(shift_map(x, 2), -2), x)
    with pytest.raises(ValueError, match="6×9 cannot be cut into windows of 4×4"):
        window_partition(x, 4)


@pytest.mark.slow
@pytest.mark.parametrize("window_size", [1, 2, 3, 7])
def test_relative_bias_is_the_gather(window_size: int) -> None:
    table = normal((2 * window_size - 1) ** 2, 3)
    index = relative_position_index(window_size)
    np.testing.assert_array_equal(relative_bias(table), table[index].transpose(2, 0, 1))
    probe = normal(3, window_size**2, window_size**2, seed=1)
    grads = [
        jax.grad(lambda t, f=f: jnp.sum(f(t) * probe))(table)
        for f in (relative_bias, lambda t: t[index].transpose(2, 0, 1))
    ]
    np.testing.assert_allclose(*grads, atol=1e-5)


def test_relative_position_index_by_hand() -> None:
    """Window 2: offsets query - key are -1, 0, 1, row-major in a 3×3 table."""
    np.testing.assert_array_equal(
        relative_position_index(2), [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    )


def test_shift_mask_by_hand() -> None:
    """A map of 4×4, windows of 2, shift 1: only the first window is whole."""
    mask = shift_mask((4, 4), 2, 1)
    assert mask[0].all()
    np.testing.assert_array_equal(mask[1], np.kron(np.ones((2, 2)), np.eye(2)))
    np.testing.assert_array_equal(mask[2], np.kron(np.eye(2), np.ones((2, 2))))
    np.testing.assert_array_equal(mask[3], np.eye(4))


@pytest.mark.parametrize("shape", [(8, 12), (4, 8), (4, 4)])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_windows_are_masked_full_attention(shape: tuple[int, int], shift: int) -> None:
    q, k, v = (normal(2, *shape, 3, 5, seed=i) for i in range(3))
    bias = normal(3, 16, 16, seed=3)
    ours, theirs = (
        jax.jit(functools.partial(f, window_size=4, shift=shift))(q, k, v, bias=bias)
        for f in (window_attention, every_pair)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_one_window_without_bias_is_full_attention() -> None:
    x = normal(2, 5, 5, 12)
    mixer = WindowAttention(num_heads=3, window_size=5, shift="half")
    params = dict(perturbed(mixer, x)["params"])
    table = params.pop("relative_position_bias")
    full = FullAttention(num_heads=3).apply({"params": params}, x)
    params["relative_position_bias"] = jnp.zeros_like(table)
    np.testing.assert_allclose(mixer.apply({"params": params}, x), full, atol=1e-5)


@pytest.mark.slow
def test_padding_carries_the_biases() -> None:
    """A 5×6 map in windows of 4 is the top left of the 8×8 map with zeros around it."""
    x = normal(2, 5, 6, 12)
    mixer = WindowAttention(num_heads=3, window_size=4, shift=2)
    params = perturbed(mixer, x)
    padded = mixer.apply(params, jnp.pad(x, ((0, 0), (0, 3), (0, 2), (0, 0))))
    np.testing.assert_allclose(mixer.apply(params, x), padded[:, :5, :6], atol=1e-5)
    assert jnp.abs(mixer.apply(params, x[:, :4, :4]) - padded[:, :4, :4]).max() > 1e-3


def test_shift_of_classification_and_of_segmentation() -> None:
    assert window_shift("half", 7, (14, 14), None) == 3
    assert window_shift("half", 7, (14, 7), None) == 0
    assert window_shift("half", 7, (7, 7), (7, 7)) == 0
    assert window_shift("half", 7, (5, 6), (7, 7)) == 3
    assert window_shift(9, 7, (14, 14), (14, 14)) == 2
    with pytest.raises(ValueError, match="or 'half' of the window"):
        window_shift("third", 7, (14, 14), None)


@pytest.mark.slow
@pytest.mark.parametrize("factory", MODULES)
@pytest.mark.parametrize("shape", [(7, 11), (13, 3), (1, 1)])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_prime_maps_and_finite_gradients(factory, shape: tuple[int, int], qkv_bias: bool) -> None:
    mixer = factory(num_heads=2, window_size=4, shift=2, map_size=(8, 8), qkv_bias=qkv_bias)
    x = normal(2, *shape, 8)
    params = jax.jit(mixer.init)(jax.random.key(0), x)  # without bias, padding makes q and k zero

    def loss(params, x):
        y = mixer.apply(params, x)
        return jnp.sum(y**2), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    assert y.shape == x.shape
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize("factory", MODULES)
def test_dtypes_weights_and_dropout(factory) -> None:
    x = normal(2, 8, 8, 8)
    mixer = factory(num_heads=2, window_size=4, shift=2, attn_drop_rate=0.5, drop_rate=0.5)
    params = perturbed(mixer, x)
    full, sown = mixer.apply(params, x, mutable=["intermediates"])
    (weights,) = sown["intermediates"]["attend"]["weights"]
    assert weights.shape == (2, 4, 2, 16, 16)
    low = mixer.clone(dtype=jnp.bfloat16).apply(params, x)
    assert low.dtype == jnp.bfloat16
    error = jnp.linalg.norm(low.astype(jnp.float32) - full) / jnp.linalg.norm(full)
    assert error < 3e-2
    one, other = (
        mixer.apply(params, x, True, rngs={"dropout": jax.random.key(i)}) for i in range(2)
    )
    assert jnp.abs(one - other).max() > 0.1


def test_cosine_attention_is_bounded_by_the_smallest_temperature() -> None:
    q, k = normal(3, 5, 2, 4), normal(3, 5, 2, 4, seed=1)
    unit_q, unit_k = (t / np.linalg.norm(t, axis=-1, keepdims=True) for t in (q, k))
    log_scale = jnp.asarray([[1.0], [99.0]])
    a, b = cosine_queries_keys(100 * q, 0.01 * k, log_scale)
    np.testing.assert_allclose(a, unit_q * np.array([[np.e], [100.0]]), rtol=1e-5)
    np.testing.assert_allclose(b, unit_k, rtol=1e-5)


def test_log_spaced_coordinates_by_hand() -> None:
    table = log_spaced_coordinates(8).reshape(15, 15, 2)
    np.testing.assert_allclose(table[0, 7], [-np.log2(9) / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(table[9, 14], [np.log2(1 + 16 / 7) / 3, np.log2(9) / 3], rtol=1e-6)
    far = log_spaced_coordinates(16, 8).reshape(31, 31, 2)
    np.testing.assert_allclose(far[8:23, 8:23], table, rtol=1e-6)
    np.testing.assert_allclose(far[30, 15, 0], np.log2(1 + 8 * 15 / 7) / 3, rtol=1e-6)
    assert not log_spaced_coordinates(1).any()


def test_scale_replaces_the_usual_one() -> None:
    x = normal(2, 4, 4, 8)
    mixer = WindowAttention(num_heads=2, window_size=4)
    params = perturbed(mixer, x)
    usual, same, other = (mixer.clone(scale=s).apply(params, x) for s in (None, 0.5, 1.0))
    np.testing.assert_array_equal(usual, same)
    assert jnp.abs(usual - other).max() > 1e-3


def test_a_pretrained_window_changes_the_bias() -> None:
    x = normal(1, 4, 4, 8)
    mixer = WindowCosineAttention(num_heads=2, window_size=4)
    params = perturbed(mixer, x)
    usual, same, other = (mixer.clone(pretrained_window_size=w).apply(params, x) for w in (0, 4, 8))
    np.testing.assert_array_equal(usual, same)
    assert jnp.abs(usual - other).max() > 1e-3


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("window(window_size=3, shift=1)", (6, 9)),
        ("window(window_size=3)", (5, 6)),
        ("window_cosine(window_size=3, shift=1)", (6, 9)),
        ("window_modulated(window_size=3, shift=1, modulator=True)", (6, 9)),
        ("window3d(window_size=3, window_size_t=2, shift=1)", (2, 6, 9)),
    ],
)
def test_joined_windows_are_separate(text: str, size: tuple[int, ...]) -> None:
    """As a program for TPUs joins them: values, gradients, and what is counted."""
    (mixer,) = parse_mixers(text, 1, VIDEO_MIXERS if len(size) == 3 else MIXERS)[0]
    module = mixer.default(num_heads=2).build()
    x = normal(2, *size, 6)
    params, probe = perturbed(module, x), normal(2, *size, 6, seed=1)

    def run(platform: str) -> Any:
        lengths = []

        def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, DotProductAttention):
                lengths.append(args[0].shape[-3])
            return call(*args, **kwargs)

        def loss(params: Any, x: jax.Array) -> jax.Array:
            return jnp.vdot(module.apply(params, x), probe)

        with nn.intercept_methods(keep):
            traced = traced_for(platform)(jax.value_and_grad(loss, (0, 1)))
            found = traced(params, x)
            forward = jax.make_jaxpr(traced_for(platform)(module.apply))(params, x)
        return found, multiply_adds(forward.jaxpr), lengths[0]

    (alone, counted, length), (joined, as_joined, longer) = run("cpu"), run("tpu")
    assert longer > length and counted == as_joined
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), alone, joined)


def test_as_many_windows_are_joined_as_fill_128_lanes() -> None:
    given = [(64, 49), (4, 49), (1, 49), (25, 49), (9, 64), (6, 16), (4, 144), (12, 9)]
    assert [windows_to_join(*g) for g in given] == [2, 2, 1, 1, 1, 6, 1, 12]


def test_sown_weights_are_of_single_windows() -> None:
    mixer = WindowAttention(num_heads=2, window_size=3)
    x = normal(2, 6, 9, 6)
    see = functools.partial(mixer.apply, mutable=["intermediates"])
    _, sown = traced_for("tpu")(see)(perturbed(mixer, x), x)
    assert sown["intermediates"]["attend"]["weights"][0].shape == (2, 6, 2, 9, 9)
