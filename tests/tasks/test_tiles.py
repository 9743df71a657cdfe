"""Tiles of an image give what the whole image gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.tasks.tiles import placement, tiled

RNG = np.random.default_rng(0)


@jax.jit
def blur(images: jax.Array) -> jax.Array:
    """Convolve with noise of 5×5 pixels, which is a reach of 2."""
    kernel = jnp.asarray(np.random.default_rng(1).standard_normal((5, 5, 3, 3)), jnp.float32)
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("size", [(45, 61), (16, 39), (16, 16)])
def test_tiles_give_what_the_whole_image_gives(size: tuple[int, int]) -> None:
    image = RNG.random((*size, 3), np.float32)
    want = np.asarray(blur(image[None]))[0]
    np.testing.assert_allclose(tiled(blur, image, tile=16, overlap=8), want, atol=1e-5)


def test_too_little_overlap_shows() -> None:
    image = RNG.random((16, 45, 3), np.float32)
    want = np.asarray(blur(image[None]))[0]
    error = np.abs(tiled(blur, image, tile=16, overlap=1) - want)
    assert error.max() > 0.1
    assert error[:, :12].max() < 1e-5  # the first tile's own


def test_smaller_images_are_mirrored() -> None:
    image = RNG.random((5, 21, 3), np.float32)
    mirrored = np.pad(image, ((0, 11), (0, 0), (0, 0)), mode="reflect")
    want = np.asarray(blur(mirrored[None]))[0, :5]
    np.testing.assert_allclose(tiled(blur, image, tile=16, overlap=8), want, atol=1e-5)
    pixel = np.full((1, 1, 3), 0.5, np.float32)
    np.testing.assert_array_equal(tiled(lambda x: x, pixel, 8, 2), pixel)


def test_the_device_sees_one_shape_whatever_the_image() -> None:
    shapes = []

    def function(tiles):
        shapes.append(tiles.shape)
        return tiles

    for size in ((9, 70), (64, 16), (33, 31)):
        image = RNG.random((*size, 3), np.float32)
        out = tiled(function, image, tile=16, overlap=4, batch=3)
        np.testing.assert_allclose(out, image, atol=1e-6)
    assert set(shapes) == {(3, 16, 16, 3)}
    assert len(shapes) == -(-6 // 3) + -(-5 * 1 // 3) + -(-3 * 3 // 3)


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 1), (8, 4), (8, 7), (5, 3), (1, 0)])
def test_weights_sum_to_one(tile: int, overlap: int) -> None:
    for length in range(tile, 6 * tile):
        begins, weights = placement(length, tile, overlap)
        assert begins[0] == 0
        assert begins[-1] == length - tile
        assert (np.diff(begins) <= tile - overlap).all()
        assert len(begins) == 1 + -(-(length - tile) // (tile - overlap))
        total = np.zeros(length)
        for begin, own in zip(begins, weights, strict=True):
            total[begin : begin + tile] += own
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_weights_are_linear_between_the_dropped_quarters() -> None:
    begins, weights = placement(24, 16, 8)
    assert begins.tolist() == [0, 8]
    want = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    np.testing.assert_allclose(weights[1], [*want, *[1] * 8], atol=1e-6)
    np.testing.assert_allclose(weights[0], [*[1] * 8, *want[::-1]], atol=1e-6)


def test_overlaps_that_make_no_progress_are_refused() -> None:
    image = np.zeros((16, 16, 3), np.float32)
    for options in (dict(overlap=8), dict(overlap=-1), dict(overlap=2, batch=0)):
        with pytest.raises(ValueError, match="smaller than a tile"):
            tiled(blur, image, 8, **options)
