"""Convolution and norm: the stems and the downsampling of the pyramids."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.activations import gelu
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import pad_to_multiple
from vitjax.layers.norm import batch_norm, layer_norm, normalize
from vitjax.layers.spec import Spec


class ConvNorm(nn.Module):
    """A convolution (`conv`), then optionally a norm (`norm`) and an activation.

    Attributes:
      padding: zeros on each side. Without padding, and where patches do not overlap, a map that is
        no multiple of the stride is zero-padded at its right and bottom.
      keep_partial: False drops what is left over there instead of padding it, as a plain
        convolution does; only a map smaller than a patch is padded.
    """

    width: int
    kernel_size: int
    stride: int
    padding: int = 0
    keep_partial: bool = True
    use_bias: bool = True
    norm: Spec | None = None
    act: Callable[[Array], Array] | None = None
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        k, s, p = self.kernel_size, self.stride, self.padding
        if k == s and not p and (self.keep_partial or min(x.shape[1:3]) < k):
            x = pad_to_multiple(x, s)
        init = self.param_init.conv(k * k * x.shape[-1], k * k * self.width)
        conv = nn.Conv(
            self.width, (k, k), (s, s), ((p, p), (p, p)), use_bias=self.use_bias, **init,
            dtype=self.dtype, name="conv",
        )  # fmt: skip
        x = conv(x)
        if self.norm is not None:
            x = normalize(self.norm.default(dtype=self.dtype).build(name="norm"), x, train)
        return self.act(x) if self.act is not None else x


class ConvStem(nn.Module):
    """Two 3×3 convolutions of one stride, `conv_0` to half the width and `conv_1` to all of it.

    Patches of 4×4 pixels that overlap; both are normalised, the first is activated too.
    """

    width: int
    stride: int = 2
    norm: Spec = batch_norm()
    act: Callable[[Array], Array] = gelu
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        for i, (width, act) in enumerate(((self.width // 2, self.act), (self.width, None))):
            conv = ConvNorm(
                width,
                3,
                self.stride,
                1,
                norm=self.norm,
                act=act,
                param_init=self.param_init,
                dtype=self.dtype,
                name=f"conv_{i}",
            )
            x = conv(x, train)
        return x


class PatchMerging(nn.Module):
    """Four neighbours become one pixel: concatenated, normalised and projected to `width` (Swin,
    arXiv:2103.14030, section 3.1).

    Swin V2 normalises last (`post_norm`). Concatenated are columns of two rows: top left,
    bottom left, top right, bottom right. An odd map is zero-padded.
    """

    width: int
    norm: Spec = layer_norm(1e-5)
    post_norm: bool = False
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        batch, height, width, channels = (x := pad_to_multiple(x, 2)).shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(batch, height // 2, width // 2, 4 * channels)
        norm = self.norm.build(dtype=self.dtype, name="norm")
        init = self.param_init.dense(4 * channels, self.width)
        reduce = nn.Dense(self.width, use_bias=False, **init, dtype=self.dtype, name="reduction")
        return norm(reduce(x)) if self.post_norm else reduce(norm(x))
