"""RoIAlign against torchvision's numbers, and by hand."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import load_golden
from tests.golden.compare import FOLDER
from vitjax.detection.roi_align import crop_masks, level_of, multi_level_roi_align, roi_align


@pytest.mark.golden
def test_roi_align_is_that_of_torchvision() -> None:
    data, meta, _ = load_golden.load(FOLDER / "roi_align.npz")
    x = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    image, boxes = (
        jnp.asarray(data["in::rois"][:, 0], jnp.int32),
        jnp.asarray(data["in::rois"][:, 1:]),
    )
    probes = [p.transpose(0, 2, 3, 1) for p in load_golden.probes(meta)]

    def pool(x, aligned, ratio):
        found = jax.vmap(
            lambda x: roi_align(
                x, boxes, (4, 3), scale=0.125, sampling_ratio=ratio, aligned=aligned
            )
        )(x)
        return found[image, jnp.arange(len(boxes))]

    def loss(x):
        found = [pool(x, *how) for how in itertools.product((False, True), (0, 2))]
        return sum((f * p).sum() for f, p in zip(found, probes)), found

    (_, found), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(x)
    for ours, entry in zip(found, meta["outputs"], strict=True):
        theirs = data[f"{entry['name']}_f64"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=5 * entry["f32_noise"] + 1e-6, err_msg=entry["name"]
        )
    atol = 10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"]
    np.testing.assert_allclose(grad.transpose(0, 3, 1, 2), data["grad_x"], rtol=0, atol=atol)


def test_a_bin_of_whole_pixels_is_their_mean() -> None:
    x = np.random.default_rng(0).standard_normal((7, 11, 3)).astype(np.float32)
    pool = jax.jit(functools.partial(roi_align, size=(2, 3)))
    found = pool(jnp.asarray(x), jnp.array([[2.0, 1, 8, 5]]))
    np.testing.assert_allclose(found[0, 1, 2], x[3:5, 6:8].mean((0, 1)), rtol=1e-5, atol=1e-6)


def test_levels_and_pooling_from_them() -> None:
    sides = jnp.array([10.0, 111, 113, 224, 900])
    boxes = jnp.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    np.testing.assert_array_equal(level_of(boxes, 2, 5), [0, 0, 1, 2, 3])
    rng = np.random.default_rng(0)
    maps = [jnp.asarray(rng.standard_normal((n, n, 2)), jnp.float32) for n in (29, 13)]
    small = boxes[:2] / 5 + 3
    how: Any = dict(size=(3, 5), sampling_ratio=2, aligned=False)

    @jax.jit
    def pool(boxes):
        alone = [roi_align(x, boxes, scale=s, **how) for x, s in zip(maps, (1 / 4, 1 / 8))]
        return multi_level_roi_align(maps, (4, 8), boxes, jnp.array([1, 0]), **how), alone

    found, (fine, coarse) = pool(small)
    np.testing.assert_allclose(found[0], coarse[0], atol=1e-5)
    np.testing.assert_allclose(found[1], fine[1], atol=1e-5)


def test_masks_are_cut_to_other_boxes() -> None:
    """A disc over its frame, seen from its right half, and from an empty frame."""
    y, x = np.mgrid[:28, :28]
    disc = ((x - 13.5) ** 2 + (y - 13.5) ** 2 < 170).astype(np.float32)
    frames = jnp.array([[10.0, 20, 66, 48], [5, 5, 5, 5]])
    half = jnp.array([[38.0, 20, 66, 48], [0, 0, 9, 9]])
    cut = jax.jit(functools.partial(crop_masks, size=14))
    found = cut(jnp.stack([disc, disc]), frames, half)
    np.testing.assert_allclose(found[0], disc[:, 14:].reshape(14, 2, 14).mean(1), atol=1e-6)
    assert np.isfinite(found).all()
