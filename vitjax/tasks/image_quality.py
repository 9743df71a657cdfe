"""PSNR and SSIM of images in canvases, in the conventions of the restoration papers.

Images are in 0 to 255. `y` is the luma of ITU-R BT.601 in its limited range, 16 to 235, as in
MATLAB's `rgb2ycbcr`, on which deraining and super-resolution are measured.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

SIGMA, RADIUS = 1.5, 5
K1, K2, RANGE = 0.01, 0.03, 255.0


def luma(x: Float[Array, "B H W 3"]) -> Float[Array, "B H W 1"]:
    """Compute Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255."""
    weights = jnp.asarray([65.481, 128.553, 24.966], x.dtype) / 255
    return 16 + (x * weights).sum(axis=-1, keepdims=True)


def psnr(
    a: Float[Array, "B H W C"], b: Float[Array, "B H W C"], extent: Int[Array, "B 2"]
) -> Float[Array, "B"]:
    """Compute 10 log₁₀(255² / MSE), one mean over all pixels and channels of each image.

    Args:
      extent: rows and columns of each image; the rest of its canvas does not count.
    """
    inside = _inside(extent, a.shape[1], a.shape[2], 0)
    error = (jnp.square(a - b) * inside).sum(axis=(1, 2, 3))
    mse = error / (inside.sum(axis=(1, 2, 3)) * a.shape[-1])
    return 10 * jnp.log10(RANGE**2 / jnp.maximum(mse, 1e-10))


def ssim(
    a: Float[Array, "B H W C"], b: Float[Array, "B H W C"], extent: Int[Array, "B 2"]
) -> Float[Array, "B"]:
    """Compute the mean structural similarity (Wang et al. 2004, eq. 13).

    Windows are Gaussian, 11×11, σ 1.5, and lie inside of the image; covariances are not corrected
    for the sample; channels are averaged. An image below 11 pixels has none, and gets 0.
    """
    # Differences from the middle grey keep float32's digits: variances are differences of squares.
    a, b = a - RANGE / 2, b - RANGE / 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    both = _blur(a * b) - mean_a * mean_b
    mean_a, mean_b = mean_a + RANGE / 2, mean_b + RANGE / 2
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    map_ = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    map_ /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    inside = _inside(extent, map_.shape[1], map_.shape[2], 2 * RADIUS)
    count = inside.sum(axis=(1, 2, 3)) * map_.shape[-1]
    return (map_ * inside).sum(axis=(1, 2, 3)) / jnp.maximum(count, 1)


def _inside(extent: Array, height: int, width: int, margin: int) -> Float[Array, "B H W 1"]:
    """Build a mask: 1 for the pixels of each image inside a margin, 0 elsewhere in its canvas."""
    rows = jnp.arange(height) < extent[:, :1] - margin
    columns = jnp.arange(width) < extent[:, 1:] - margin
    return (rows[:, :, None] & columns[:, None, :])[..., None].astype(jnp.float32)


def _blur(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Average with the Gaussian window, at the positions where it lies inside of the image."""
    window = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    window = jnp.asarray(window / window.sum(), x.dtype)
    size = 2 * RADIUS + 1
    if min(x.shape[1:3]) < size:
        return jnp.zeros((x.shape[0], 0, 0, x.shape[-1]), x.dtype)
    for axis in (1, 2):
        n = x.shape[axis] - size + 1
        parts = (jax.lax.slice_in_dim(x, i, i + n, axis=axis) for i in range(size))
        x = sum(w * part for w, part in zip(window, parts))  # type: ignore[assignment]
    return x
