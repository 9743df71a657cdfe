"""Patch embedding (ViT, arXiv:2010.11929, eq. 1): one token per non-overlapping patch."""

import math
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import require_map


class PatchEmbed(nn.Module):
    """A convolution of kernel = stride = patch size.

    Attributes:
      patch_frames: frames of a patch of clips `[B, T, H, W, c]`, a tubelet; 0 for images.

    Raises:
      ValueError: a side of the image is not a multiple of the patch size.
    """

    width: int
    patch_size: int
    use_bias: bool = True
    patch_frames: int = 0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "B *S c"]) -> Float[Array, "B *s C"]:
        height, width = images.shape[-3:-1]
        p = self.patch_size
        kernel = (self.patch_frames, p, p) if self.patch_frames else (p, p)
        require_map(images, len(kernel))
        if self.patch_frames and images.shape[1] % self.patch_frames:
            raise ValueError(
                f"A clip of {images.shape[1]} frames cannot be cut into tubelets of "
                f"{self.patch_frames}: give a multiple, or choose another patch_frames."
            )
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
            self.width,
            kernel,
            kernel,
            "VALID",
            use_bias=self.use_bias,
            **self.param_init.conv(math.prod(kernel) * images.shape[-1], self.width),
            dtype=self.dtype,
            name="proj",
        )
        return conv(images)


def patch_grid(image_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Compute the rows and columns of patches of an image of this size (height, width)."""
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    return -(-height // patch_size), -(-width // patch_size)
