"""Attention of whole models on the image: the same logits, rows that sum to 1, queries by pixel."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.analysis.small import FAMILIES, captured, fast_first, small
from tests.drawn import variables_of
from vitjax.analysis.attention import Layer, capture, check_head, paint
from vitjax.attention.rows import Place, rows_of_cells
from vitjax.models.encoder import stack_layers

LOOSE = ("cait", "volo")  # talking heads and outlook attention are no softmax


@pytest.mark.parametrize("name", fast_first(FAMILIES))
def test_every_family_gives_its_logits_and_rows(name: str) -> None:
    model, variables, images = small(name)

    @jax.jit
    def run(variables: Any, images: jax.Array) -> Any:
        seen = capture(model, variables, images)
        return seen, model.apply(variables, images), [layer.rows.dense() for layer in seen.layers]

    seen, output, dense = run(variables, images)
    np.testing.assert_allclose(seen.output, output, atol=1e-5)
    assert len(set(seen.names)) == len(seen.layers)
    # Uformer mirrors images to a multiple of 32 pixels.
    size = images.shape[1:3] if name != "uformer_t" else (64, 64)
    for layer, weights in zip(seen.layers, map(np.asarray, dense)):
        # The map covers the image; what is left over is less than a pixel of it.
        for side, pixels in zip(size, layer.map_size, strict=True):
            assert abs(side - layer.stride * pixels) < 2 * layer.stride
        rows = layer.rows
        assert weights.shape == (2, layer.heads, rows.queries.length, rows.keys.length)
        if not name.startswith(LOOSE):
            np.testing.assert_allclose(rows.weights.sum(axis=-1), 1, atol=1e-5)
            assert weights.sum(axis=-1).max() < 1 + 1e-5
    query = (images.shape[1] // 2, images.shape[2] // 3) if rows.queries.height else 0
    heat = layer.on_map(query)
    np.testing.assert_allclose(
        heat.reshape(*heat.shape[:2], -1),
        weights[:, :, layer.index(query), rows.keys.tokens :],
        atol=1e-6,
    )
    total = heat.sum(axis=(2, 3)) + layer.on_tokens(query).sum(axis=-1) + layer.outside(query)
    np.testing.assert_allclose(
        total, rows.weights[:, :, layer.index(query)].sum(axis=-1), atol=1e-5
    )
    assert layer.on_image(query).shape == (2, layer.heads, *images.shape[1:3])


def ramp() -> Layer:
    """A layer of one head on a 2×3 map of stride 4, after one token; row q is uniform on key q."""
    rows = rows_of_cells(jnp.eye(7)[None, None], Place(1, 2, 3), Place(1, 2, 3))
    return Layer(rows, "block_0", 4, (7, 11))


def test_queries_are_pixels_of_the_image() -> None:
    layer = ramp()
    heat = layer.on_image((5, 9))[0, 0]  # second row, third column of the map
    expected = np.zeros((7, 11))
    expected[4:, 8:] = 1
    np.testing.assert_array_equal(heat, expected)
    np.testing.assert_array_equal(layer.on_tokens(0), [[[1]]])
    assert layer.on_image(0).sum() == layer.on_tokens((0, 0)).sum() == 0
    y, x, weight = layer.points((5, 9))[0, 0].T
    np.testing.assert_array_equal(weight, [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(np.stack([y, x])[:, 5], [6, 10])  # its centre
    assert layer.outside((5, 9)) == 0


def test_a_map_smaller_than_the_image_gives_its_last_pixel_to_what_is_left_over() -> None:
    np.testing.assert_array_equal(
        paint(np.arange(4.0).reshape(2, 2), 2, (5, 3)),
        [[0, 0, 1], [0, 0, 1], [2, 2, 3], [2, 2, 3], [2, 2, 3]],
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ((7, 0), "outside of the image: y runs from 0 to 6, x from 0 to 10"),
        ((0, -1), "outside of the image"),
        (1, "has 1 tokens"),
    ],
)
def test_a_query_that_is_not_there(query, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ramp().on_image(query)


def test_layers_and_heads_that_are_not_there() -> None:
    seen = captured("vit_ti16")
    assert seen.names == ["block_0", "block_1"] and seen[-1] is seen["block_1"]
    with pytest.raises(ValueError, match="did you mean 'block_1'"):
        seen["blok_1"]
    with pytest.raises(ValueError, match="2 layers that attend"):
        seen[2]
    with pytest.raises(ValueError, match="heads 0 to 1, and no head 2"):
        check_head(seen[0], 2)
    with pytest.raises(ValueError, match="tokens and have no place"):
        Layer(
            rows_of_cells(jnp.ones((1, 1, 1, 4)), Place(1), Place(0, 2, 2)), "post", 4, (8, 8)
        ).index((0, 0))


def test_a_model_without_attention_is_refused() -> None:
    model = vitjax.create_model("vit_ti16", 5, **FAMILIES["vit_ti16"], mixer="dwconv", pool="gap")
    images = jnp.zeros((1, 24, 40, 3))
    with pytest.raises(ValueError, match="No layer of this ViT attends"):
        capture(model, variables_of(model, images), images)
    with pytest.raises(ValueError, match=r"Images \[B, H, W, c\] are needed"):
        capture(model, {}, images[0])


def test_loops_over_layers_are_unrolled() -> None:
    """`scan` and `remat` change neither logits nor what is seen."""
    model, variables, images = small("vit_ti16")
    looped = vitjax.create_model("vit_ti16", 5, **FAMILIES["vit_ti16"], scan=True, remat=True)
    stacked = {"params": stack_layers(variables["params"])}
    one, two = capture(model, variables, images), capture(looped, stacked, images)
    assert one.names == two.names
    np.testing.assert_array_equal(one[1].rows.weights, two[1].rows.weights)


STEP = """
import sys, jax, numpy as np, vitjax
model = vitjax.create_model("swin_tiny", 5, dims=(8,), depths=(2,), num_heads=(2,), window_size=3)
images = np.zeros((2, 24, 24, 3), np.float32)
variables = jax.eval_shape(model.init, jax.random.key(0), images)
def text():
    loss = lambda v: model.apply(v, images, train=True, rngs={"dropout": jax.random.key(0)}).sum()
    return jax.jit(jax.grad(loss)).lower(variables).compile().as_text()
texts = []
for analyse in (False, True):
    if analyse:
        assert not any(name.startswith("vitjax.analysis") for name in sys.modules)
        import vitjax.analysis.attention, vitjax.analysis.attribution
        jax.eval_shape(lambda v: vitjax.analysis.attention.capture(model, v, images), variables)
        jax.clear_caches()
    texts.append(text())
assert texts[0] == texts[1] and len(texts[0]) > 10_000
"""


@pytest.mark.slow
def test_a_training_step_is_the_same_with_the_analysis_imported() -> None:
    """What is compiled for training has nothing of it."""
    # A program out of the cache has another text.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    subprocess.run([sys.executable, "-c", STEP], env=environment, check=True)
