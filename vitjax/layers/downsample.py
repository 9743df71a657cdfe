"""Convolution and norm: the stems and the downsampling of the pyramids."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vitjax.kernels.depthwise import depthwise_conv_general_dilated
from vitjax.layers.activations import gelu
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import PerAxis, pad_to_multiple, per_axis
from vitjax.layers.norm import batch_norm, layer_norm, normalize
from vitjax.layers.spec import Spec


class ConvNorm(nn.Module):
    """A convolution (`conv`), then optionally a norm (`norm`) and an activation.

    Attributes:
      kernel_size, stride: of maps; of clips `[B, T, H, W, c]` those along (t, y, x).
      padding: zeros on each side, or "SAME": as many as make the output ⌈side / stride⌉, an odd one
        at the right or bottom. Without padding, and where patches do not overlap, a map that is no
        multiple of the stride is zero-padded at its right and bottom.
      keep_partial: False drops what is left over there instead of padding it, as a plain
        convolution does; only a map smaller than a patch is padded.
      depthwise: each channel has its own kernel; the width is that of x.
    """

    width: int
    kernel_size: PerAxis
    stride: PerAxis
    padding: int | str = 0
    keep_partial: bool = True
    depthwise: bool = False
    use_bias: bool = True
    norm: Spec | None = None
    act: Callable[[Array], Array] | None = None
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S c"], train: bool = False) -> Float[Array, "B *s C"]:
        kernel, strides, p = per_axis(self.kernel_size), per_axis(self.stride), self.padding
        small = any(side < k for side, k in zip(x.shape[1:-1], kernel))
        if kernel == strides and not p and (self.keep_partial or small):
            x = pad_to_multiple(x, strides)
        pads: Any = ((p, p),) * len(kernel)
        if isinstance(p, str):
            pads = tuple(jax.lax.padtype_to_pads(x.shape[1:-1], kernel, strides, p))
        options: dict[str, Any] = {}
        groups = x.shape[-1] if self.depthwise else 1
        if self.depthwise:
            options = dict(conv_general_dilated=depthwise_conv_general_dilated)
        taps = math.prod(kernel)
        init = self.param_init.conv(taps * x.shape[-1] // groups, taps * self.width // groups)
        conv = nn.Conv(
            self.width, kernel, strides, pads, feature_group_count=groups, use_bias=self.use_bias,
            **init, **options, dtype=self.dtype, name="conv",
        )  # fmt: skip
        x = conv(x)
        if self.norm is not None:
            x = normalize(self.norm.default(dtype=self.dtype).build(name="norm"), x, train)
        return self.act(x) if self.act is not None else x


class ConvStem(nn.Module):
    """Two 3×3 convolutions of one stride, `conv_0` to half the width and `conv_1` to all of it.

    Patches of 4×4 pixels that overlap; both are normalised, the first is activated too.

    Attributes:
      last_act: the second is activated as well (EfficientFormer).
    """

    width: int
    stride: int = 2
    norm: Spec = batch_norm()
    act: Callable[[Array], Array] = gelu
    last_act: bool = False
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        last = self.act if self.last_act else None
        for i, (width, act) in enumerate(((self.width // 2, self.act), (self.width, last))):
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
    """Merge 2×2 neighbours: concatenate, normalise, project to `width` (Swin, section 3.1).

    See arXiv:2103.14030. Swin V2 normalises last (`post_norm`). The order of concatenation is
    by columns of two rows: top left, bottom left, top right, bottom right. An odd map is
    zero-padded. Frames of clips are merged each for itself.
    """

    width: int
    norm: Spec = layer_norm(1e-5)
    post_norm: bool = False
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S c"], train: bool = False) -> Float[Array, "B *s C"]:
        lead = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-3:])
        batch, height, width, channels = (x := pad_to_multiple(x, 2)).shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(batch, height // 2, width // 2, 4 * channels)
        norm = self.norm.build(dtype=self.dtype, name="norm")
        init = self.param_init.dense(4 * channels, self.width)
        reduce = nn.Dense(self.width, use_bias=False, **init, dtype=self.dtype, name="reduction")
        x = norm(reduce(x)) if self.post_norm else reduce(norm(x))
        return x.reshape(*lead, *x.shape[1:])
