"""Semantic FPN (Kirillov et al., arXiv:1901.02446, section 3.1, figure 3): a feature pyramid
(arXiv:1612.03144) whose levels are upsampled step by step and summed.

The paper normalises with GroupNorm; the code of mmsegmentation, with which the transformers' papers
compare their backbones, with BatchNorm, and so does this file.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.heads.blocks import PixelClassifier, conv_norm_relu
from vitjax.heads.neck import NECK_INIT, PYRAMID, MultiLevelNeck, lacks_pyramid
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.fusion import AttentionalFusion
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.resize import resize


def nearest(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Resize maps to `size` (height, width): pixel i of m takes pixel ⌊i·n/m⌋ of n."""
    for axis, m in ((1, size[0]), (2, size[1])):
        n = x.shape[axis]
        if m % n == 0:  # whole blocks, with a sum for a gradient
            x = jnp.repeat(x, m // n, axis=axis)
        else:
            x = jnp.take(x, np.arange(m) * n // m, axis=axis)
    return x


FUSIONS = {"sum": 0, "aff": 1, "iaff": 2}
"""How maps of an FPN are fused → how often attention weighs them."""


class FPN(nn.Module):
    """Sum each map with the coarser ones, top down.

    Each passes a 1×1 convolution (`lateral_{i}`), nearest resizing and a 3×3 convolution
    (`fpn_{i}`). There is no norm and no activation.

    Attributes:
      width: of the maps.
      fusion: how a map and the coarser ones become one: their "sum", or weighted by attention over
        channels, "aff" or, twice, "iaff" (arXiv:2009.14082; `fusion_{i}`).
    """

    width: int = 256
    fusion: str = "sum"
    param_init: Init = NECK_INIT
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "B _ _ _"], ...], train: bool = False
    ) -> tuple[Float[Array, "B _ _ C"], ...]:
        """Compute maps of the given sizes, `width` wide."""
        conv = partial(ConvNorm, self.width, param_init=self.param_init, dtype=self.dtype)
        levels: list[Array] = []
        for i, fine in reversed(list(enumerate(maps))):
            x = conv(1, 1, name=f"lateral_{i}")(fine, train)
            if levels:
                x = self._fuse(x, nearest(levels[0], (x.shape[1], x.shape[2])), i, train)
            levels.insert(0, x)
        return tuple(conv(3, 1, 1, name=f"fpn_{i}")(x, train) for i, x in enumerate(levels))

    def _fuse(self, fine: Array, coarse: Array, i: int, train: bool) -> Array:
        """Fuse a map with the coarser ones."""
        if self.fusion == "sum":
            return fine + coarse
        fuse = AttentionalFusion(
            FUSIONS[self.fusion],
            2.0 if self.fusion == "aff" else 1.0,
            param_init=self.param_init,
            dtype=self.dtype,
            name=f"fusion_{i}",
        )
        return fuse(fine, coarse, train)


class SemanticFPNHead(nn.Module):
    """Resize each level of an FPN to the finest resolution, sum them, classify.

    A level that is 2ⁿ times as coarse passes n times through a 3×3 convolution (`scale_{i}_{j}`)
    and bilinear doubling; the finest passes one convolution. An FPN, `neck`, comes first, after
    `resample` where the maps are no pyramid.

    Attributes:
      width: of the convolutions; `neck_width`: of the FPN.
      fusion: of the FPN's maps.
      drop_rate: share of channels that training drops before the classifier.
      strides: of the maps. Of one map alone, and of maps that share a stride, a pyramid is made
        first; see `MultiLevelNeck`.
    """

    num_classes: int
    width: int = 128
    neck_width: int = 256
    fusion: str = "sum"
    drop_rate: float = 0.1
    strides: tuple[int, ...] = (4, 8, 16, 32)
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "B _ _ _"], ...], train: bool = False
    ) -> Float[Array, "B h w K"]:
        """Compute logits at the resolution of the finest map."""
        strides = self.strides
        if lacks_pyramid(strides):
            maps = MultiLevelNeck(strides, dtype=self.dtype, name="resample")(maps, train)
            strides = PYRAMID
        levels = FPN(self.neck_width, self.fusion, dtype=self.dtype, name="neck")(maps, train)
        conv = partial(conv_norm_relu, self.width, 3, param_init=self.param_init, dtype=self.dtype)
        size = (levels[0].shape[1], levels[0].shape[2])
        scaled = []
        for i, x in enumerate(levels):
            doublings = round(math.log2(strides[i] / strides[0]))
            for j in range(max(1, doublings)):
                x = conv(f"scale_{i}_{j}")(x, train)
                if doublings:
                    x = resize(x, (2 * x.shape[1], 2 * x.shape[2]))
            scaled.append(resize(x, size))  # at odd sizes a doubled map is a pixel larger
        classify = PixelClassifier(
            self.num_classes, self.drop_rate, self.param_init, self.dtype, name="classifier"
        )
        return classify(sum(scaled[1:], scaled[0]), train)
