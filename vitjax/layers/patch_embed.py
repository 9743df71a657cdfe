"""Patch embedding (ViT, arXiv:2010.11929, eq. 1): one token per non-overlapping patch."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL, Init


class PatchEmbed(nn.Module):
    """A convolution of kernel = stride = patch size.

    Raises:
      ValueError: a side of the image is not a multiple of the patch size.
    """

    width: int
    patch_size: int
    use_bias: bool = True
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "B H W c"]) -> Float[Array, "B h w C"]:
        height, width = images.shape[1:3]
        p = self.patch_size
        if height % p or width % p:
            near = sorted(
                {max(p, side // p * p) for side in (height, width)}
                | {-(-s // p) * p for s in (height, width)}
            )
            raise ValueError(
                f"An image of {height}×{width} pixels cannot be cut into patches of {p}×{p}: each "
                f"side must be a "
                f"multiple of {p}. Resize the images (near: {', '.join(map(str, near))}) or choose "
                f"another patch_size."
            )
        conv = nn.Conv(
            self.width, (p, p), (p, p), "VALID", use_bias=self.use_bias,
            **self.param_init.conv(p * p * images.shape[-1], self.width), dtype=self.dtype,
            name="proj",
        )  # fmt: skip
        return conv(images)


def patch_grid(image_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Compute the rows and columns of patches of an image of this size (height, width)."""
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    return -(-height // patch_size), -(-width // patch_size)
