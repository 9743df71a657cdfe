"""Attention rollout is the Jacobian of the model with all but its attention made the identity."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.analysis.small import PATCHES, captured, fast_first
from tests.drawn import variables_of
from vitjax.analysis.attention import Capture, Layer, capture
from vitjax.analysis.distance import attention_distances, distance
from vitjax.analysis.rollout import rollout, rollout_on_image
from vitjax.attention.core import DotProductAttention, weighted_sum
from vitjax.attention.offsets import OffsetNetwork
from vitjax.attention.projections import Projections
from vitjax.attention.routing import Router, Routing
from vitjax.attention.rows import Place, Rows, rows_of_cells

SIZE = (36, 44)  # maps of 9×11 and 5×6, or 4×5
PYRAMID: dict[str, Any] = dict(dims=(8, 8), depths=(2, 2), num_heads=(2, 2), image_size=SIZE)
MODELS: dict[str, dict[str, Any]] = {
    "vit_ti16": PATCHES,
    "swin_tiny": dict(PYRAMID, window_size=3),
    "pvt_tiny": dict(PYRAMID, sr_ratio=(2, 1)),
    "dat_tiny": dict(PYRAMID, window_size=3, offset_groups=1,
                     mixer="window | deformable ; window(shift=1) | deformable"),
    "biformer_tiny": dict(dims=(16, 16), depths=(2, 2), head_dim=8, n_win=3,
                          mixer="bra(topk=2) ; bra(topk=None)"),
    # One head: a mean over heads is no product of means, and agents attend twice.
    "debiformer_tiny": dict(
        dims=(16, 16), depths=(2, 1), head_dim=16, n_win=2, image_size=SIZE, offset_groups=(1, 1),
        mixer="bra(topk=2) | dbra(topk=2, stride=2, kernel_size=3)"
        " ; dbra(topk=None, stride=1, kernel_size=3)",
    ),
}  # fmt: skip


def frozen(sown: Any, first: jax.Array) -> Any:
    """Interceptor that leaves attention as it was, and the identity of everything else.

    A residual sum is halved, by an MLP of -x / 2 after it.

    Args:
      sown: weights, offsets of points and routes of each attention.
      first: the map that the stem gives.
    """

    def was(path: Any, name: str) -> jax.Array:
        return functools.reduce(lambda tree, key: tree[key], (*path, name), sown)[0]

    def step(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, name = context.module, context.module.name or ""
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if name in ("stem", "patch_embed"):
            return first
        if name.startswith("downsample") or name == "reduce":
            return mean_of_four(args[0], call(*args, **kwargs).shape)
        if isinstance(module, nn.LayerNorm | nn.BatchNorm) or name in (
            "proj",
            "w_o",
            "unify",
            "head",
        ):
            return args[0]
        if name == "mlp":
            return -args[0] / 2
        if name in ("cpe", "lepe", "agent_lepe"):
            return jnp.zeros_like(call(*args, **kwargs))
        if isinstance(module, Projections) and name.endswith("v"):
            *qk, v = call(*args, **kwargs)
            return (*qk, args[0].reshape(v.shape))
        if isinstance(module, OffsetNetwork):
            return was(module.path, "__call__")
        if isinstance(module, Router):
            return Routing(was(module.path, "routes"), was(module.path, "scores"))
        if isinstance(module, DotProductAttention):
            own = was(module.path, "weights")
            mean = jnp.broadcast_to(own.mean(axis=-3, keepdims=True), own.shape)
            return weighted_sum(mean, args[2])
        return call(*args, **kwargs)

    return step


def mean_of_four(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The mean of 2×2 pixels, or of those that there are; those that are left over are dropped."""
    height, width = 2 * shape[1], 2 * shape[2]
    x = x[:, :height, :width]
    pad = ((0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]), (0, 0))

    def sums(y: jax.Array) -> jax.Array:
        return jnp.pad(y, pad).reshape(x.shape[0], shape[1], 2, shape[2], 2, -1).sum(axis=(2, 4))

    return sums(x) / sums(jnp.ones_like(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", fast_first(MODELS))
def test_rollout_is_the_jacobian_of_the_frozen_model(name: str) -> None:
    options = MODELS[name]
    height, width = options.get("image_size", SIZE)
    model = vitjax.create_model(name, 5, **options)
    images = jax.random.normal(jax.random.key(0), (2, height, width, 3))
    variables = variables_of(model, images)
    seeing = functools.partial(
        model.apply,
        mutable=["intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, OffsetNetwork),
    )
    seen, (_, sown) = jax.jit(lambda v, x: (capture(model, v, x), seeing(v, x)))(variables, images)
    sown = sown["intermediates"]
    size = seen[0].map_size
    channels = options.get("width") or options["dims"][0]

    @jax.jit
    @jax.grad
    def jacobian(first: jax.Array) -> jax.Array:
        with nn.intercept_methods(frozen(sown, first)):
            logits, _ = model.apply(variables, images, mutable=["intermediates"])
            return logits[:, 3].sum()

    found = jacobian(jnp.zeros((2, *size, channels)))
    np.testing.assert_allclose(rollout(seen), found[..., 3], atol=1e-6)
    assert found[..., 3].max() > 1e-3
    assert not found[..., :3].any()


def test_rollout_of_uniform_attention_and_of_the_identity() -> None:
    """A class token and 2×3 patches: half of what a layer mixes is uniform, half stays."""
    place = Place(1, 2, 3)

    def layers(weights: jax.Array) -> Capture:
        rows = rows_of_cells(jnp.broadcast_to(weights, (1, 2, 7, 7)), place, place)
        pair = tuple(Layer(rows, name, 4, (8, 12)) for name in "ab")
        return Capture(jnp.zeros((1, 5)), pair, True)

    uniform = rollout(layers(jnp.full((7, 7), 1 / 7)))
    np.testing.assert_allclose(uniform, np.full((1, 2, 3), (0.25 + 0.25 + 0.25) / 7), rtol=1e-6)
    assert not rollout(layers(jnp.eye(7))).any()  # the class token stays with itself
    one = np.zeros((1, 2, 3))
    one[0, 1, 2] = 1
    np.testing.assert_allclose(rollout(layers(jnp.eye(7)), (5, 11)), one)
    assert rollout_on_image(layers(jnp.eye(7)), (5, 11))[0, 4:, 8:].sum() == 16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cait_xxs24", "vit_ti16_reg4", "volo_d1"])
def test_what_tokens_read_is_rolled_out_too(name: str) -> None:
    """Class blocks and pooling by a query: what reaches the image is positive, and at most 1."""
    found = rollout(captured(name))
    total = found.sum(axis=(1, 2))
    assert found.min() >= 0 and (total > 0.05).all() and (total < 1 + 1e-5).all()


def test_models_that_are_no_chain_are_refused() -> None:
    """Tokens that read a map beside them, as Mobile-Former's, and maps that grow, as Uformer's."""

    def two(queries: tuple[Place, Place], keys: tuple[Place, Place], strides: Any) -> Capture:
        layers = tuple(
            Layer(rows_of_cells(jnp.ones((1, 1, q.length, k.length)), q, k), "a", stride, (8, 8))
            for q, k, stride in zip(queries, keys, strides)
        )
        return Capture(jnp.zeros((1, 5)), layers, False)

    coarse, fine = Place(0, 2, 2), Place(0, 4, 4)
    with pytest.raises(ValueError, match="goes on beside them"):
        rollout(two((Place(3), Place(3)), (coarse, coarse), (4, 4)), 0)
    with pytest.raises(ValueError, match="map grows"):
        rollout(two((coarse, fine), (coarse, fine), (4, 2)), (0, 0))


def layer_of(weights: jax.Array, boxes: jax.Array | None = None) -> Layer:
    place = Place(0, 2, 2)
    return Layer(Rows(weights, boxes, place, place), "a", 10, (20, 20))


def test_distances_by_hand() -> None:
    """Four pixels of stride 10: a query's own is 0 away, two are 10 away, one is 10 √2 away."""
    uniform = jnp.full((1, 1, 4, 4), 0.25)
    both = jnp.concatenate([uniform, jnp.eye(4)[None, None]], axis=1)
    np.testing.assert_allclose(distance(layer_of(both)), [(20 + 200**0.5) / 4, 0], rtol=1e-6)
    # One key for the whole map lies in its middle, 5 √2 from each; what is outside does not count.
    boxes = jnp.asarray([[0.0, 0, 2, 2], [5, 5, 6, 6]]).reshape(1, 1, 1, 2, 4)
    weights = jnp.full((1, 1, 4, 2), 0.5)
    np.testing.assert_allclose(distance(layer_of(weights, boxes)), [50**0.5], rtol=1e-6)


def test_distances_of_every_head_and_layer() -> None:
    found = attention_distances(captured("vit_ti16"))
    assert found.names == ["block_0", "block_1"]
    assert all(p.shape == (2,) and (p > 0).all() and (p < 40).all() for p in found.pixels)
