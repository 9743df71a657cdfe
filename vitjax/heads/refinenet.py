"""Decoder of RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic Segmentation
(Lin et al., arXiv:1611.06612, section 3).

From the coarsest map to the finest, each is adapted, added to the result of the coarser ones, and
given context by a chain of poolings. There is no norm. Bilinear resizing keeps the centres of the
corner pixels in place (`align_corners`).
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL, Init
from vitjax.layers.resize import resize


def _conv(width: int, fan: int, name: str, bias: bool, init: Init, dtype: Any) -> nn.Conv:
    """Build a 3×3 convolution of `fan` channels that keeps the map's size."""
    first = init.conv(9 * fan, 9 * width)
    return nn.Conv(width, (3, 3), use_bias=bias, **first, dtype=dtype, name=name)


class ResidualConvUnit(nn.Module):
    """Add two 3×3 convolutions, each after a ReLU, to their input (figure 3b).

    Only the first has a bias.

    Attributes:
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Apply the unit; the shape is kept."""
        y, width = x, x.shape[-1]
        for i in range(2):
            conv = _conv(width, width, f"conv_{i}", i == 0, self.param_init, self.dtype)
            y = conv(nn.relu(y))
        return x + y


class ChainedPooling(nn.Module):
    """Add a chain of 5×5 max poolings and 3×3 convolutions to its ReLU input (figure 3d).

    The result of each pooling and convolution is added.

    Attributes:
      length: poolings of the chain.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    length: int = 4
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Apply the chain; the shape is kept."""
        total = x = nn.relu(x)
        width = x.shape[-1]
        for i in range(self.length):
            x = nn.max_pool(x, (5, 5), padding="SAME")
            x = _conv(width, width, f"conv_{i}", False, self.param_init, self.dtype)(x)
            total = total + x
        return total


class RefineBlock(nn.Module):
    """Refine one map of the encoder with the coarser ones (figure 3a).

    Two residual units adapt the map. It is added to the coarser map, each after a convolution.
    Chained pooling and three residual units follow.

    Attributes:
      width: of the result.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    width: int = 256
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W c"], coarser: Float[Array, "B h w d"] | None = None
    ) -> Float[Array, "B H W C"]:
        """Refine x, with the result `coarser` of the block before, if any; sides are those of x."""
        common: dict[str, Any] = dict(param_init=self.param_init, dtype=self.dtype)

        def conv(x: Array, name: str) -> Array:
            return _conv(self.width, x.shape[-1], name, False, self.param_init, self.dtype)(x)

        x = conv(x, "reduce")
        for i in range(2):
            x = ResidualConvUnit(**common, name=f"adapt_{i}")(x)
        if coarser is not None:
            size = x.shape[1], x.shape[2]
            x = conv(x, "fuse") + resize(conv(coarser, "fuse_coarser"), size, align_corners=True)
        x = ChainedPooling(**common, name="pool")(x)
        for i in range(3):
            x = ResidualConvUnit(**common, name=f"output_{i}")(x)
        return x


class RefineNetHead(nn.Module):
    """Refine from the coarsest map (`block_0`) to the finest, then classify by a 3×3 convolution.

    Attributes:
      num_classes: of the logits.
      width: of every block but the first.
      coarse_width: of the first, which reads the coarsest map alone.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    num_classes: int
    width: int = 256
    coarse_width: int = 512
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "B _ _ _"], ...], train: bool = False
    ) -> Float[Array, "B h w K"]:
        """Compute logits of the height and width of the first, finest, map."""
        del train  # there is neither norm nor dropout
        x = None
        for i, finer in enumerate(reversed(maps)):
            width = self.width if i else self.coarse_width
            x = RefineBlock(width, self.param_init, self.dtype, name=f"block_{i}")(finer, x)
        if x is None:
            raise ValueError("RefineNet refines maps, and was given none.")
        fan, init = x.shape[-1], self.param_init
        return _conv(self.num_classes, fan, "logits", True, init, self.dtype)(x)
