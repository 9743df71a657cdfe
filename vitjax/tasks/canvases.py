"""Images in canvases of one size, of which the rest is padding."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.maps import inside
from vitjax.layers.pixels import normalize_pixels
from vitjax.task import Batch


def canvas_pixels(
    batch: Batch, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "B H W c"]:
    """Normalise images; the padding becomes 0, the mean colour."""
    images, extent = normalize_pixels(batch["image"], mean, std), batch["image_extent"]
    return jnp.where(inside(extent, images.shape[1:3])[..., None], images, 0)


def canvas_size(name: str, value: tuple[int, ...], default: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a config's field; the default if it is empty.

    Args:
      name: of the field, for the error.

    Raises:
      ValueError: it is neither empty nor two positive numbers.
    """
    if not value:
        return default
    if len(value) != 2 or not all(isinstance(n, int) and n > 0 for n in value):
        raise ValueError(f"{name}={value} must be empty, or rows and columns such as (512, 1024).")
    return value[0], value[1]
