"""Normalisation of 8-bit pixels."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def normalize_pixels(
    images: UInt8[Array | np.ndarray, "B *S c"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "B *S c"]:
    """Convert 8-bit pixels to floats of about unit variance: (pixel / 255 - mean) / std."""
    scale, shift = 1 / (255 * jnp.array(std)), jnp.array(mean) / jnp.array(std)
    return jnp.asarray(images, jnp.float32) * scale - shift
