"""Bilinear resizing of maps, with and without aligned corners."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from vitjax.kernels.scopes import lookup


def resize(
    x: Float[Array, "B H W C"], size: tuple[int, int], align_corners: bool = False
) -> Float[Array, "B h w C"]:
    """Resize maps bilinearly, one axis after the other, without antialiasing.

    Enlarging to a multiple of a side mixes each pixel with its neighbours; any other size uses a
    matrix product.

    Args:
      size: height and width of the result.
      align_corners: the centres of the corner pixels stay in place; else their outer corners do,
        and pixels beyond the border repeat it.
    """
    if x.shape[1:3] == tuple(size):
        return x
    for axis, m in ((2, size[1]), (1, size[0])):
        n = x.shape[axis]
        if m % n == 0 and not align_corners:
            x = _enlarge(x, axis, m // n)
        elif m != n:
            weights = jnp.asarray(bilinear_weights(n, m, align_corners), x.dtype)
            with lookup():  # two pixels each, however it is computed
                x = jnp.moveaxis(
                    jnp.tensordot(weights, x, (1, axis), precision=lax.Precision.HIGHEST), 0, axis
                )
    return x


def _enlarge(x: Float[Array, "B _ _ C"], axis: int, factor: int) -> Float[Array, "B _ _ C"]:
    """Resize one axis to a multiple: pixels between two centres are mixtures of the two."""
    n, parts = x.shape[axis], []
    first, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, n - 1))
    before = lax.concatenate([first, lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    after = lax.concatenate([lax.slice_in_dim(x, 1, n, axis=axis), last], axis)
    for i in range(factor):
        offset = (i + 0.5) / factor - 0.5
        other = before if offset < 0 else after
        parts.append((1 - abs(offset)) * x + abs(offset) * other)
    shape = (*x.shape[:axis], factor * n, *x.shape[axis + 1 :])
    return jnp.stack(parts, axis=axis + 1).reshape(shape)


def bilinear_weights(n: int, m: int, align_corners: bool = False) -> Float[np.ndarray, "m n"]:
    """Compute the `[m, n]` weights of n input positions for m output positions of an axis."""
    if align_corners:
        at = np.arange(m) * ((n - 1) / max(m - 1, 1))
    else:
        at = np.clip((np.arange(m) + 0.5) * (n / m) - 0.5, 0, n - 1)
    low = np.clip(np.floor(at).astype(int), 0, max(n - 2, 0))
    weights = np.zeros((m, n))
    weights[np.arange(m), low] = 1 - (at - low)
    weights[np.arange(m), np.minimum(low + 1, n - 1)] += at - low
    return weights
