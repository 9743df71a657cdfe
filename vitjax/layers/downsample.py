"""Convolution and norm: the stems and the downsampling of the pyramids."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.norm import normalize
from vitjax.layers.spec import Spec


class ConvNorm(nn.Module):
    """A convolution (`conv`), then optionally a norm (`norm`) and an activation.

    Attributes:
      padding: zeros on each side. Without padding, and where patches do not overlap, a map that is
        no multiple of the stride is zero-padded at its right and bottom.
    """

    width: int
    kernel_size: int
    stride: int
    padding: int = 0
    use_bias: bool = True
    norm: Spec | None = None
    act: Callable[[Array], Array] | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        k, s, p = self.kernel_size, self.stride, self.padding
        if k == s and not p:
            x = pad_to_multiple(x, s)
        conv = nn.Conv(
            self.width, (k, k), (s, s), ((p, p), (p, p)), use_bias=self.use_bias, dtype=self.dtype,
            name="conv"
        )  # fmt: skip
        x = conv(x)
        if self.norm is not None:
            x = normalize(self.norm.default(dtype=self.dtype).build(name="norm"), x, train)
        return self.act(x) if self.act is not None else x


def pad_to_multiple(x: Float[Array, "B H W C"], multiple: int) -> Float[Array, "B h w C"]:
    """Zeros at the right and bottom until both sides are multiples; the same array if they are."""
    bottom, right = (-side % multiple for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0))) if bottom or right else x
