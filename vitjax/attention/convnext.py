"""Block of ConvNeXt (Liu et al., arXiv:2201.03545, section 2.6) as a token mixer."""

from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm, layer_scale, normalize
from vitjax.layers.spec import Spec, spec


class Identity(nn.Module):
    """No norm."""

    def __call__(self, x: Float[Array, "*S"]) -> Float[Array, "*S"]:
        return x


class ConvNeXtMixer(nn.Module):
    """Depthwise convolution, norm and MLP: the only branch of its block.

    Attributes:
      window_size: kernel of the convolution, odd.
      layer_scale_init: first value of a learned factor per channel at the end; None for none.
    """

    block_parts: ClassVar[dict[str, Any]] = dict(
        norm=spec(Identity), mlp=None, layer_scale_init=None
    )

    window_size: int = 7
    mlp: Spec = spec(Mlp)
    norm: Spec = layer_norm()
    layer_scale_init: float | None = None
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        x = depthwise_conv(self.window_size, "conv", self.param_init, self.dtype)(x)
        x = normalize(self.norm.default(dtype=self.dtype).build(name="norm"), x, train)
        mlp = self.mlp.default(param_init=self.param_init, dtype=self.dtype)
        x = mlp.build(name="mlp")(x, train)
        return layer_scale(self, x, "layer_scale", self.layer_scale_init)
