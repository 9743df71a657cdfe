"""The block of ConvNeXt (Liu et al., arXiv:2201.03545, section 2.6) in the place of a mixer."""

from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm, normalize
from vitjax.layers.spec import Spec, spec


class Identity(nn.Module):
    """No norm."""

    def __call__(self, x: Float[Array, "*S"]) -> Float[Array, "*S"]:
        return x


class ConvNeXtMixer(nn.Module):
    """Depthwise convolution, norm, MLP: the one branch of a block, which then has no second.

    Attributes:
      window_size: kernel of the convolution, odd.
    """

    BLOCK_PARTS: ClassVar[dict[str, Any]] = dict(
        norm=spec(Identity), mlp=None, layer_scale_init=None
    )

    window_size: int = 7
    mlp: Spec = spec(Mlp)
    norm: Spec = layer_norm()
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        x = depthwise_conv(self.window_size, "conv", self.param_init, self.dtype)(x)
        x = normalize(self.norm.default(dtype=self.dtype).build(name="norm"), x, train)
        mlp = self.mlp.default(param_init=self.param_init, dtype=self.dtype)
        return mlp.build(name="mlp")(x, train)
