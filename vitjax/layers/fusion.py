"""Attentional feature fusion (Dai et al., arXiv:2009.14082).

Maps are added with weights from channel attention at two scales: one pixel and the whole map.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.norm import batch_norm


class ChannelWeights(nn.Module):
    """Compute a weight from 0 to 1 per pixel and channel: M(X) of equations 1 and 2.

    Two bottlenecks of 1×1 convolutions compute it, one of the pixel (`local_{0,1}`) and one of the
    map's mean (`global_{0,1}`).

    Attributes:
      reduction: channels per channel of a bottleneck.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    reduction: int = 4
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        """Compute a weight for each value of x.

        Raises:
          ValueError: x has fewer channels than `reduction`.
        """
        channels = x.shape[-1]
        if channels < self.reduction:
            raise ValueError(
                f"reduction={self.reduction} leaves nothing of {channels} channels; choose "
                f"{channels} or less."
            )
        total = 0
        for name, y in (("local", x), ("global", jnp.mean(x, axis=(1, 2), keepdims=True))):
            for i, (width, act) in enumerate(
                ((channels // self.reduction, nn.relu), (channels, None))
            ):
                y = ConvNorm(
                    width, 1, 1, norm=batch_norm(), act=act, param_init=self.param_init,
                    dtype=self.dtype, name=f"{name}_{i}",
                )(y, train)  # fmt: skip
            total = total + y
        return nn.sigmoid(total)


class MultiScaleChannelAttention(nn.Module):
    """Multiply a map by its own channel weights (MS-CAM, equation 2; parameters `weights`).

    Attributes: those of `ChannelWeights`.
    """

    reduction: int = 4
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        """Multiply x by its channel weights; the shape is kept."""
        weigh = ChannelWeights(self.reduction, self.param_init, self.dtype, name="weights")
        return x * weigh(x, train)


class AttentionalFusion(nn.Module):
    """Fuse two maps by the channel weights of their sum (AFF, equations 3 and 4).

    With `steps=2` the fused map gives weights in its turn, by which the two are fused again (iAFF,
    equation 5). Parameters are `weights_{i}`.

    Attributes:
      steps: how often the maps are fused.
      factor: multiplies the result. The authors' code has 2 where `steps` is 1, so that equal
        weights add the maps, and 1 in iAFF; the equations have 1 in both.

    The rest are those of `ChannelWeights`.
    """

    steps: int = 1
    factor: float = 1.0
    reduction: int = 4
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], y: Float[Array, "B H W C"], train: bool = False
    ) -> Float[Array, "B H W C"]:
        """Fuse two maps of one shape: weight 1 selects x, weight 0 selects y."""
        fused = x + y
        for i in range(self.steps):
            weigh = ChannelWeights(self.reduction, self.param_init, self.dtype, name=f"weights_{i}")
            weights = weigh(fused, train)
            fused = x * weights + y * (1 - weights)
        return self.factor * fused
