"""Inverted bottleneck as a token mixer (CoAtNet, arXiv:2106.04803, appendix A.1)."""

from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.activations import ACTIVATIONS
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.norm import batch_norm
from vitjax.layers.spec import Spec
from vitjax.layers.squeeze_excite import SqueezeExcite
from vitjax.names import check_choice


class MBConvMixer(nn.Module):
    """1×1, depthwise and 1×1 convolution with squeeze-and-excitation.

    It is the only branch of its block, whose norm is BatchNorm.

    Attributes:
      expansion: channels between the 1×1 convolutions, per channel of the result.
      kernel_size: of the depthwise convolution, odd.
      act: of both wide maps, see `vitjax.layers.activations`; that inside of squeeze-and-excitation
        is SiLU.
      squeeze: channels inside of squeeze-and-excitation, per channel of the result.
      of_input: those two are per channel of x and of the wide map instead.
      width: channels of the result; None for those of x.
    """

    block_parts: ClassVar[dict[str, Any]] = dict(norm=batch_norm(), mlp=None, layer_scale_init=None)

    expansion: int = 4
    kernel_size: int = 3
    act: str = "gelu"
    squeeze: float = 0.25
    of_input: bool = False
    width: int | None = None
    norm: Spec = batch_norm()
    param_init: Init = NORMAL
    dtype: Any = None

    def __post_init__(self) -> None:
        check_choice("act", self.act, ACTIVATIONS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W D"]:
        """Apply the convolutions; the map keeps its height and width."""
        context: Any = dict(param_init=self.param_init, dtype=self.dtype)
        width, k = self.width or x.shape[-1], self.kernel_size
        wide = self.expansion * (x.shape[-1] if self.of_input else width)
        squeezed = max(1, int(self.squeeze * (wide if self.of_input else width)))
        inner: Any = dict(context, use_bias=False, norm=self.norm, act=ACTIVATIONS[self.act])
        y = ConvNorm(wide, 1, 1, **inner, name="expand")(x, train)
        y = ConvNorm(wide, k, 1, k // 2, depthwise=True, **inner, name="depthwise")(y, train)
        y = SqueezeExcite(squeezed, nn.silu, **context, name="se")(y)
        return ConvNorm(width, 1, 1, **context, name="project")(y, train)
