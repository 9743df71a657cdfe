"""Mixers of clips: with one frame those of maps, plain attention as limit, their cost."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.drawn import variables_of
from vitjax.analysis.cost import multiply_adds
from vitjax.attention import MIXERS, VIDEO_MIXERS, parse_mixers, sampling
from vitjax.attention.bi_level_routing import bilevel_routing_attention
from vitjax.attention.core import dot_product_attention
from vitjax.attention.deformable_bi_level_routing import deformable_bilevel_routing_attention
from vitjax.attention.window import window_attention
from vitjax.attention.window3d import first_positions_bias
from vitjax.attention.windows import relative_position_index
from vitjax.kernels.depthwise import depthwise_conv_general_dilated, layout

SMALL = {
    "window3d": "window3d(window_size=3, window_size_t=2, shift='half')",
    "bra3d": "bra3d(n_win=2, n_win_t=2, topk=3)",
    "dbra3d": "dbra3d(n_win=2, n_win_t=2, topk=3, stride=2, kernel_size=3)",
}
WIDTH = 8


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def heads(*sides: int, count: int = 3) -> list[jax.Array]:
    return [normal(2, *sides, 2, 4, seed=i) for i in range(count)]


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1, *x.shape[-2:])


def build(text: str, menu: Any = VIDEO_MIXERS) -> Any:
    return parse_mixers(text, 1, menu)[0][0].default(num_heads=2).build()


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEO_MIXERS)
def test_a_clip_of_prime_sides_keeps_its_shape_and_has_finite_gradients(name: str) -> None:
    mixer, x = build(SMALL.get(name, name)), normal(2, 3, 5, 7, WIDTH)
    variables = variables_of(mixer, x)

    @jax.jit
    def loss(params: Any, x: Any) -> Any:
        y = mixer.apply({"params": params}, x, True)
        assert y.shape == x.shape
        return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape)))

    grads = jax.grad(loss, argnums=(0, 1))(variables["params"], x)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    # A bias of k moves all logits of a query alike; nothing else is without effect.
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def of_maps(params: Any) -> Any:
    """Parameters of the mixer of maps that are left of those of clips if there is one frame."""

    def leaf(path: Any, value: Any) -> Any:
        names = [part.key for part in path]
        if names[-1] == "relative_position_bias":  # no displacement in time
            return value.reshape(5, -1, value.shape[-1])[2]
        if names[-1] == "table":
            return value[:, 0]
        if names == ["offset", "offset", "kernel"] and value.shape[1] == 3:  # (t, y, x)
            return value[:, 1:]
        # Of a convolution [t, y, x, 1, C] the frame in the middle sees the only one.
        return value[len(value) // 2] if value.ndim == 5 else value

    return jax.tree_util.tree_map_with_path(leaf, params)


@pytest.mark.parametrize(
    ("clips", "maps"),
    [
        ("window3d(window_size=3, window_size_t=3, shift=1)", "window(window_size=3, shift=1)"),
        ("window3d(window_size=3, window_size_t=3, shift='half')",
         "window(window_size=3, shift='half')"),
        ("bra3d(n_win=3, topk=2, kernel_size_t=3)", "bra(n_win=3, topk=2)"),
        ("dbra3d(n_win=2, topk=2, stride=2, kernel_size=3, lepe_kernel_size=3)",
         "dbra(n_win=2, topk=2, stride=2, kernel_size=3, lepe_kernel_size=3, offset_channels=2)"),
        pytest.param(
            "dbra3d(n_win=2, topk=2, stride=2, kernel_size=3, offset_channels=1, stride_t=1, "
            "kernel_size_t=1)", "dbra(n_win=2, topk=2, stride=2, kernel_size=3)",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_clip_of_one_frame_is_a_map(clips: str, maps: str) -> None:
    x = normal(2, 1, 7, 5, WIDTH)
    clip, plain = build(clips), build(maps, MIXERS)
    variables = variables_of(clip, x)
    params = of_maps(variables["params"])
    shapes = jax.eval_shape(plain.init, jax.random.key(0), x[:, 0])["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda s: s.shape, shapes)
    expected = jax.jit(plain.apply)({"params": params}, x[:, 0])
    np.testing.assert_allclose(jax.jit(clip.apply)(variables, x)[:, 0], expected, atol=2e-6)


def test_agents_move_in_time() -> None:
    """A clip whose frames change gives another result if offsets in time are taken away."""
    x = normal(1, 4, 4, 4, WIDTH)
    mixer = build(SMALL["dbra3d"])
    variables = variables_of(mixer, x)
    see = jax.jit(lambda v: mixer.apply(v, x, mutable=["intermediates"])[1]["intermediates"])
    kernel = variables["params"]["offset"]["offset"]["kernel"]
    (moved,) = see(variables)["points"]
    variables["params"]["offset"]["offset"]["kernel"] = kernel.at[:, 0].set(0)
    (still,) = see(variables)["points"]
    assert moved.shape == (1, 1, 2, 2, 2, 3)
    np.testing.assert_allclose(still[..., 1:], moved[..., 1:], atol=1e-6)
    np.testing.assert_allclose(still[0, 0, :, 0, 0, 0], [-0.5, 0.5], atol=1e-6)
    assert np.abs(still - moved)[..., 0].max() > 0.05


def test_windows_of_the_whole_clip_are_full_attention() -> None:
    q, k, v = heads(2, 3, 5)
    table = normal(3 * 5 * 9, 2, seed=4)
    bias = first_positions_bias(table, (2, 3, 5), 30)
    ours = jax.jit(functools.partial(window_attention, window_size=(2, 3, 5)))(q, k, v, bias=bias)
    t, y, x = (g.reshape(-1) for g in np.mgrid[:2, :3, :5])
    rows = [a[:, None] - a + side - 1 for a, side in ((t, 2), (y, 3), (x, 5))]
    geometric = table[(rows[0] * 5 + rows[1]) * 9 + rows[2]].transpose(2, 0, 1)
    full = dot_product_attention(flat(q), flat(k), flat(v), bias=geometric)
    np.testing.assert_allclose(flat(ours), full, atol=1e-5)


def test_shifted_windows_are_masked_full_attention() -> None:
    """Each position sees its cell of the grid that is moved by the shift, along each axis."""
    window, shift = (2, 3, 2), (1, 1, 0)
    q, k, v = heads(4, 6, 4)
    ours = jax.jit(functools.partial(window_attention, window_size=window, shift=shift))(q, k, v)
    places = (g.reshape(-1) for g in np.mgrid[:4, :6, :4])
    cells = [(p - s) // m for p, s, m in zip(places, shift, window, strict=True)]
    sees = np.logical_and.reduce([c[:, None] == c for c in cells])
    full = dot_product_attention(flat(q), flat(k), flat(v), mask=jnp.asarray(sees))
    np.testing.assert_allclose(flat(ours), full, atol=1e-5)


def test_a_short_window_reads_the_first_rows_of_the_full_index() -> None:
    table = normal(5 * 7 * 5, 2)
    index = relative_position_index((3, 4, 3))
    assert index[0, -1] == 0 and index[-1, 0] == len(table) - 1
    for count in (36, 24, 10):
        expected = table[index[:count, :count]].transpose(2, 0, 1)
        np.testing.assert_array_equal(first_positions_bias(table, (3, 4, 3), count), expected)


def test_all_regions_are_full_attention() -> None:
    q, k, v = heads(4, 6, 4)
    full = dot_product_attention(flat(q), flat(k), flat(v), scale=0.3)
    attend = functools.partial(bilevel_routing_attention, n_win=(2, 3, 2), scale=0.3)
    out = jax.jit(attend)(q, k, v)
    np.testing.assert_allclose(flat(out), full, atol=1e-5)
    agents, bias = normal(2, 2, 3, 2, 2, 4, seed=3), normal(2, 2, 96, 12, seed=4)
    out = deformable_bilevel_routing_attention(
        q, k, v, agents, refine=lambda x: (flat(2 * x), flat(x)), bias=bias, n_win=(2, 3, 2),
        scale=0.3,
    )  # fmt: skip
    gathered = dot_product_attention(flat(agents), flat(k), flat(v), scale=0.3)
    full = dot_product_attention(flat(q), 2 * gathered, gathered, bias=bias, scale=0.3)
    np.testing.assert_allclose(flat(out), full, atol=1e-5)


def test_a_query_sees_the_positions_of_the_routed_regions() -> None:
    q, k, v = heads(4, 4, 6)
    n_win, topk = (2, 2, 3), 3
    out = bilevel_routing_attention(q, k, v, n_win=n_win, topk=topk, scale=0.5)
    t, y, x = (g.reshape(-1) for g in np.mgrid[:4, :4, :6])
    region = (t // 2 * 2 + y // 2) * 3 + x // 2
    means = [
        np.stack(
            [np.asarray(flat(a))[:, region == r].mean(axis=1).reshape(2, -1) for r in range(12)],
            axis=1,
        )
        for a in (q, k)
    ]
    best = np.argsort(-means[0] @ means[1].transpose(0, 2, 1), axis=-1)[..., :topk]
    sees = (best[:, region][:, :, None] == region[None, None, :, None]).any(-1)
    masked = dot_product_attention(
        flat(q), flat(k), flat(v), scale=0.5, mask=jnp.asarray(sees)[:, None]
    )
    np.testing.assert_allclose(flat(out), masked, atol=1e-5)


def test_samples_and_biases_by_tents_are_those_of_the_neighbours() -> None:
    maps, points = normal(2, 3, 5, 4, 6), 0.8 * normal(2, 7, 3, seed=1)
    tents, gather = (
        jax.jit(f)(maps, points)
        for f in (sampling.sample_bilinear, sampling.sample_bilinear_gather)
    )
    np.testing.assert_allclose(tents, gather, atol=1e-5)
    table, keys, grid = normal(4, 5, 7, 3, seed=2), 0.8 * normal(2, 2, 6, 3, seed=3), (3, 4, 2)
    tents, gather = (
        jax.jit(functools.partial(f, grid=grid))(table, keys)
        for f in (sampling.sample_position_bias, sampling.sample_position_bias_gather)
    )
    np.testing.assert_allclose(tents, gather, atol=1e-5)


def test_depthwise_convolution_of_clips() -> None:
    x, kernel = normal(2, 3, 5, 4, 6), normal(2, 3, 2, 1, 6, seed=1)
    case = ((1, 2, 1), ((0, 1), (1, 1), (1, 0)))

    def run(convolve: Any) -> Any:
        def loss(x: Any, kernel: Any) -> Any:
            numbers = layout(x)
            y = convolve(x, kernel, *case, feature_group_count=6, dimension_numbers=numbers)
            return jnp.sum(jnp.sin(y))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, kernel)

    ours, plain = run(depthwise_conv_general_dilated), run(jax.lax.conv_general_dilated)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, plain)


SIDES, HEADS = (4, 6, 6), (2, 4)
P, C, R = math.prod(SIDES), math.prod(HEADS), 2 * 3 * 3
M = R  # an agent in each region


@pytest.mark.parametrize(
    ("function", "more", "expected"),
    [
        (window_attention, dict(window_size=(2, 3, 2)), 2 * P * 12 * C),
        (bilevel_routing_attention, dict(n_win=(2, 3, 3), topk=4),
         R * R * C + 2 * P * (4 * P // R) * C),
        (deformable_bilevel_routing_attention,
         dict(n_win=(2, 3, 3), topk=4, refine=lambda x: (flat(x), flat(x))),
         R * R * C + 2 * M * (4 * P // R) * C + 2 * P * M * C),
    ],
)  # fmt: skip
def test_cost_is_what_the_docstring_says(function: Any, more: Any, expected: int) -> None:
    maps = [jax.ShapeDtypeStruct((1, *SIDES, *HEADS), jnp.float32)] * 3
    if function is deformable_bilevel_routing_attention:
        maps.append(jax.ShapeDtypeStruct((1, 2, 3, 3, *HEADS), jnp.float32))
    closed = jax.make_jaxpr(lambda *arrays: function(*arrays, **more))(*maps)
    assert multiply_adds(closed.jaxpr) == expected


def test_what_does_not_fit_is_said() -> None:
    clip = normal(1, 3, 5, 5, WIDTH)
    for text, message in (
        ("window3d(shift='third')", "a shift is 'half' of it"),
        ("dbra3d(n_win=2, offset_channels=2)", r"offset_channels=2 for 3 axes: give 1, .* or 3"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(build(text).init, jax.random.key(0), clip)
    for text in ("bra3d", "dbra3d"):
        with pytest.raises(ValueError, match=r"A clip \[B, T, H, W, C\] is needed here"):
            jax.eval_shape(build(text).init, jax.random.key(0), clip[:, 0])
    with pytest.raises(ValueError, match=r"A map \[B, H, W, C\] is needed here"):
        jax.eval_shape(build("bra(n_win=2)", MIXERS).init, jax.random.key(0), clip)
