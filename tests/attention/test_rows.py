"""Rows of attention: what each mixer says of its keys is what its function computes with."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.drawn import variables_of
from vitjax.attention import MIXERS, parse_mixers
from vitjax.attention.bi_level_routing import BiLevelRoutingAttention, bilevel_routing_attention
from vitjax.attention.core import weighted_sum
from vitjax.attention.deformable import DeformableAttention
from vitjax.attention.deformable_bi_level_routing import DeformableBiLevelRoutingAttention
from vitjax.attention.full import FullAttention
from vitjax.attention.neighborhood import NeighborhoodAttention, neighborhood_attention
from vitjax.attention.nonlocal_block import NonLocal
from vitjax.attention.outlook import OutlookAttention, outlook_attention
from vitjax.attention.projections import Projections
from vitjax.attention.routing import sown_routing
from vitjax.attention.rows import GivesRows, Place, Rows, sown_weights
from vitjax.attention.sampling import sample_groups
from vitjax.attention.spatial_reduction import SpatialReductionAttention
from vitjax.attention.window import WindowAttention, window_attention, window_shift
from vitjax.attention.window_cosine import WindowCosineAttention
from vitjax.attention.window_modulated import ModulatedWindowAttention
from vitjax.attention.windows import unshift_map, window_merge
from vitjax.layers.maps import pad_to_multiple
from vitjax.layers.pool import adaptive_average_pool

WIDTH, HEADS = 8, 2
NO_ATTENTION = {"dwconv", "pooling", "convnext", "token_mlp"}
LOOSE = {"outlook", "talking_heads"}  # whose weights are no softmax's


def see(mixer: Any, height: int, width: int) -> tuple[Rows, Any]:
    """Rows of a mixer on a random map, and what it has sown."""
    x = jax.random.normal(jax.random.key(0), (2, height, width, WIDTH))

    @jax.jit
    def run(variables: Any, x: jax.Array) -> tuple[Rows, Any]:
        _, sown = mixer.apply(variables, x, mutable=["intermediates"])
        sown = sown["intermediates"]
        return mixer.attention_rows(sown, Place(0, height, width)), sown

    return run(variables_of(mixer, x), x)


dense = jax.jit(Rows.dense)


def replay(weights: jax.Array) -> Callable[..., jax.Array]:
    """An attention function with given weights."""
    return lambda q, k, v, *, bias=None, mask=None, scale=None: weighted_sum(weights, v)


def positions(height: int, width: int, padded: tuple[int, int]) -> jax.Array:
    """Values `[2, H, W, h, HW]` that say of what pixel they are; padding has none."""
    one = np.eye(height * width, dtype=np.float32).reshape(height, width, -1)
    one = np.pad(one, ((0, padded[0] - height), (0, padded[1] - width), (0, 0)))
    return jnp.broadcast_to(one[None, :, :, None], (2, *padded, HEADS, height * width))


def as_rows(out: jax.Array, height: int, width: int) -> np.ndarray:
    """Rows `[B, h, Q, HW]` of a function's output for the values of `positions`."""
    out = np.asarray(out)[:, :height, :width]
    return out.reshape(2, height * width, HEADS, -1).transpose(0, 2, 1, 3)


def zeros(padded: tuple[int, int]) -> jax.Array:
    return jnp.zeros((2, *padded, HEADS, WIDTH // HEADS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "shift"), [(6, 9, 0), (5, 7, 1), (7, 4, "half"), (2, 9, 2)]
)
def test_windows_are_unrolled_and_unshifted(height: int, width: int, shift: int | str) -> None:
    mixer = WindowAttention(num_heads=HEADS, window_size=3, shift=shift)
    rows, sown = see(mixer, height, width)
    padded = (-(-height // 3) * 3, -(-width // 3) * 3)
    moved = window_shift(shift, 3, (height, width), None)
    out = window_attention(
        zeros(padded),
        zeros(padded),
        positions(height, width, padded),
        window_size=3,
        shift=moved,
        attend=replay(sown_weights(sown)),
    )
    np.testing.assert_allclose(dense(rows), as_rows(out, height, width), atol=1e-6)
    np.testing.assert_allclose(rows.weights.sum(axis=-1), 1, atol=1e-5)


def test_a_window_as_large_as_the_map_is_full_attention() -> None:
    rows, sown = see(WindowAttention(num_heads=HEADS, window_size=4, shift=2), 4, 4)
    np.testing.assert_allclose(dense(rows), sown_weights(sown)[:, 0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    dict(topk=2), dict(topk=None), dict(topk=3, mul_weight="soft"),
    dict(topk=2, kv_downsample="avgpool", kv_size=2), dict(topk=None, kv_downsample="ada_avgpool",
                                                           kv_size=1),
])  # fmt: skip
def test_routed_regions_lie_where_they_were_taken_from(options: dict[str, Any]) -> None:
    height, width = 7, 4
    mixer = BiLevelRoutingAttention(num_heads=HEADS, n_win=2, **options)
    if options.get("kv_size") == 2:
        height, width = 8, 9  # regions of at least 2×2
    rows, sown = see(mixer, height, width)
    padded = (-(-height // 2) * 2, -(-width // 2) * 2)
    routing = sown_routing(sown)
    out = bilevel_routing_attention(
        zeros(padded), zeros(padded), positions(height, width, padded), n_win=2,
        form="gather", route=lambda *_, **__: routing, attend=replay(sown_weights(sown)), **options,
    )  # fmt: skip
    np.testing.assert_allclose(dense(rows), as_rows(out, height, width), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "dilation"), [(5, 8, 1), (3, 7, 1), (2, 4, 1), (7, 10, 2), (4, 8, 2)]
)
def test_neighbours_are_found_at_borders_too(height: int, width: int, dilation: int) -> None:
    mixer = NeighborhoodAttention(num_heads=HEADS, neighborhood_size=3, dilation=dilation)
    rows, sown = see(mixer, height, width)
    padded = (max(height, 3 * dilation), max(width, 3 * dilation))
    out = neighborhood_attention(
        zeros(padded),
        zeros(padded),
        positions(height, width, padded),
        size=3,
        dilation=dilation,
        attend=replay(sown_weights(sown)),
    )
    np.testing.assert_allclose(dense(rows), as_rows(out, height, width), atol=1e-6)
    np.testing.assert_allclose(rows.weights.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, None), (3, 1, None), (2, 2, 0), (5, 3, 1)]
)
def test_outlook_sums_the_windows_over_a_query(kernel: int, stride: int, padding: Any) -> None:
    height, width = 5, 6
    mixer = OutlookAttention(HEADS, kernel, stride, padding)
    rows, sown = see(mixer, height, width)
    out = outlook_attention(
        sown["weights"][0], positions(height, width, (height, width)), **mixer.window()
    )
    np.testing.assert_allclose(dense(rows), as_rows(out, height, width), atol=1e-6)
    if kernel == stride and not padding:  # windows that tile the map
        np.testing.assert_allclose(rows.weights.sum(axis=-1), 1, atol=1e-5)
    if stride == 1:  # one window for each of the K² positions of the query in it, fewer at borders
        total = np.asarray(rows.weights.sum(axis=-1)).reshape(2, HEADS, height, width)
        np.testing.assert_allclose(total[:, :, 1:-1, 1:-1], 9, rtol=1e-5)
        np.testing.assert_allclose(total[:, :, 0, 0], 4, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(5, 7), (2, 5)])
@pytest.mark.parametrize("kind", ["strided", "pooled", "maxima", "means"])
def test_reduced_keys_are_spread_over_their_pixels(kind: str, height: int, width: int) -> None:
    """Keys that are means of pixels: weights times these are the rows times the pixels."""
    x = jax.random.normal(jax.random.key(3), (2, height, width, 1))
    size = (min(2, height), min(2, width))
    means = jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, *size, 1), (1, *size, 1), "VALID"
    ) / np.prod(size)
    mixer: Any = SpatialReductionAttention(HEADS, sr_ratio=2)
    if kind == "pooled":
        mixer, means = SpatialReductionAttention(HEADS, pooled_size=3), adaptive_average_pool(x, 3)
    elif kind == "maxima":
        mixer = NonLocal()
    elif kind == "means":
        mixer = DeformableAttention(HEADS, stride=2, offsets=False)
    rows, _ = see(mixer, height, width)
    found = rows.weights @ means.reshape(2, 1, -1, 1)
    np.testing.assert_allclose(dense(rows) @ x.reshape(2, 1, -1, 1), found, atol=1e-5)
    np.testing.assert_allclose(dense(rows).sum(axis=-1), 1, atol=1e-5)


def test_points_between_pixels_are_bilinear_samples() -> None:
    x = jax.random.normal(jax.random.key(3), (2, 7, 5, 4))
    # Points of this range lie outside of the map too, where there is nothing.
    mixer = DeformableAttention(4, offset_groups=2, offset_range_factor=3.0, inset=0)
    rows, sown = see(mixer, 7, 5)
    points = sown["points"][0].reshape(2, 2, -1, 2)
    assert jnp.abs(points).max() > 1
    sampled = sample_groups(x, points).reshape(2, -1, 4, 1)  # a channel for each head
    found = jnp.einsum("bhqk,bkhe->bhqe", rows.weights, sampled)
    pixels = jnp.moveaxis(x.reshape(2, -1, 4), 2, 1)[..., None]
    np.testing.assert_allclose(dense(rows) @ pixels, found, atol=1e-5)


def test_zero_offsets_put_the_points_on_the_grid() -> None:
    mixer = DeformableAttention(HEADS, offset_groups=1, inset=0, kernel_size=1)
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, WIDTH))
    variables = variables_of(mixer, x)
    offset = variables["params"]["offset"]
    zero = jax.tree.map(jnp.zeros_like, offset["offset"])
    variables["params"]["offset"] = {**offset, "offset": zero}
    _, sown = jax.jit(lambda v, x: mixer.apply(v, x, mutable=["intermediates"]))(variables, x)
    boxes = np.asarray(mixer.attention_rows(sown["intermediates"], Place(0, 4, 4)).boxes)
    # Cell centres of a 4-grid over [-1, 1], where ±1 are the first and the last pixel's centre.
    grid = np.array([0.375, 1.125, 1.875, 2.625])
    np.testing.assert_allclose(
        boxes[0, 0, 0, :, 0].reshape(4, 4), grid[:, None] + 0 * grid, atol=1e-6
    )
    np.testing.assert_allclose(
        boxes[0, 0, 0, :, 1].reshape(4, 4), grid + 0 * grid[:, None], atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("topk", [2, None])
def test_agents_are_composed(topk: int | None) -> None:
    """Attention to agents times their attention to the map, which is that of the regions."""
    height, width, n_win = 5, 6, 2
    mixer = DeformableBiLevelRoutingAttention(HEADS, n_win, topk, stride=2, kernel_size=3)
    rows, sown = see(mixer, height, width)
    assert rows.agents is not None
    padded, grid = (6, 6), (4, 4)  # 3×3 agents, padded
    routing = sown_routing(sown)
    gathered = bilevel_routing_attention(
        zeros(grid), zeros(padded), positions(height, width, padded), n_win=n_win, topk=topk,
        form="gather", route=lambda *_, **__: routing,
        attend=replay(sown_weights(sown, "attend_agents")),
    )  # fmt: skip
    out = weighted_sum(sown_weights(sown), gathered.reshape(2, 16, HEADS, -1))
    expected = as_rows(out.reshape(2, *padded, HEADS, -1), height, width)
    np.testing.assert_allclose(dense(rows), expected, atol=1e-6)
    # Where agents were sampled: padded ones nowhere.
    x = jax.random.normal(jax.random.key(3), (2, height, width, 1))
    points = sown["points"][0].reshape(2, 1, -1, 2)
    agents = sample_groups(pad_to_multiple(x, n_win), points).reshape(2, 3, 3, 1)
    agents = jnp.pad(agents, ((0, 0), (0, 1), (0, 1), (0, 0))).reshape(2, 1, 16, 1)
    direct = rows.replace(agents=None)
    np.testing.assert_allclose(
        dense(direct) @ x.reshape(2, 1, -1, 1), rows.weights @ agents, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in MIXERS if n not in NO_ATTENTION])
def test_every_mixer_has_rows(name: str) -> None:
    """Rows are of all queries and pixels, sum to 1, and are read one by one and summed alike."""
    mixer = MIXERS[name].at(0).default(num_heads=HEADS).build()
    if name == "bra":
        mixer = mixer.clone(n_win=3, topk=2)
    if name == "dbra":
        mixer = mixer.clone(n_win=2, topk=2, stride=2, kernel_size=3)
    assert isinstance(mixer, GivesRows)
    rows, _ = see(mixer, 7, 5)
    full = np.asarray(dense(rows))
    assert full.shape == (2, rows.weights.shape[1], 35, 35)
    if name not in LOOSE:
        np.testing.assert_allclose(rows.weights.sum(axis=-1), 1, atol=1e-5)
        assert full.sum(axis=-1).max() < 1 + 1e-5
    np.testing.assert_allclose(dense(rows.of(17))[:, :, 0], full[:, :, 17], atol=1e-6)
    start = jax.random.uniform(jax.random.key(5), (2, 35))
    expected = np.einsum("bq,bhqm->bm", start, full) / full.shape[1]
    np.testing.assert_allclose(jax.jit(Rows.pull)(rows, start), expected, atol=1e-5)
    total = np.asarray(rows.normalized().weights)
    np.testing.assert_allclose(total.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("text", [
    "full", "talking_heads", "window(window_size=3, shift=1)", "window_cosine(window_size=3)",
    "window_modulated(window_size=3, shift=1)", "bra(n_win=3, topk=2, lepe_kernel_size=0)",
    "neighborhood(neighborhood_size=3)", "outlook", "container",
])  # fmt: skip
def test_weights_times_values_are_the_layers_own_output(text: str) -> None:
    """Before the last projection, of values on a map that needs no padding."""
    name, _, _ = text.partition("(")
    (mixer,) = parse_mixers(text, 1)[0]
    module = mixer.default(num_heads=HEADS).build()
    x = jax.random.normal(jax.random.key(0), (2, 6, 9, WIDTH))
    variables = variables_of(module, x)
    if name == "container":
        variables["params"]["gate"] = jnp.asarray(np.inf)  # the dynamic affinity alone

    @jax.jit
    def run(variables: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        kept = {}

        def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            found = call(*args, **kwargs)
            if context.method_name == "__call__" and isinstance(context.module, Projections):
                kept["values"] = found[-1]
            if context.module.name in ("proj", "w_o"):
                kept["output"] = args[0]
            return found

        with nn.intercept_methods(keep):
            _, sown = module.apply(variables, x, mutable=["intermediates"])
        rows = module.attention_rows(sown["intermediates"], Place(0, 6, 9))
        return rows.dense(), kept["values"], kept["output"]

    weights, values, output = run(variables, x)
    if isinstance(module, WindowAttention | WindowCosineAttention | ModulatedWindowAttention):
        assert isinstance(module.shift, int)
        values, output = (
            unshift_map(window_merge(array, module.window_size, 6, 9), module.shift)
            for array in (values, output)
        )  # which are of windows
    values = values.reshape(2, 54, HEADS, -1)
    if name == "window_cosine":  # its bias is added later
        values += variables["params"]["v_bias"].reshape(HEADS, -1)
    found = jnp.einsum("bhqm,bmhd->bqhd", weights, values).reshape(2, 54, -1)
    np.testing.assert_allclose(found, output.reshape(2, 54, -1), atol=1e-5)


def test_mixers_without_attention_have_no_rows() -> None:
    for name in NO_ATTENTION:
        assert not isinstance(MIXERS[name].at(0).default(num_heads=HEADS).build(), GivesRows)


def test_full_attention_keeps_tokens_before_the_map() -> None:
    mixer = FullAttention(num_heads=HEADS)
    x = jax.random.normal(jax.random.key(0), (2, 2 + 6, WIDTH))
    _, sown = mixer.apply(variables_of(mixer, x), x, mutable=["intermediates"])
    rows = mixer.attention_rows(sown["intermediates"], Place(2, 2, 3))
    assert rows.queries.length == rows.keys.length == 8
    np.testing.assert_array_equal(dense(rows), sown["intermediates"]["attend"]["weights"][0])
