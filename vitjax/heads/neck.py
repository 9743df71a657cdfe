"""A pyramid made of the maps of a plain transformer, for heads that read pyramids.

It follows mmsegmentation's MultiLevelNeck, for which no paper is known: project, resize, convolve.
It has no norm and no activation.
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init, glorot_uniform
from vitjax.layers.resize import resize

PYRAMID = (4, 8, 16, 32)
"""Strides of the maps that heads expect."""
NECK_INIT = Init(conv=glorot_uniform)
"""As mmsegmentation draws the convolutions of its necks."""


def lacks_pyramid(strides: tuple[int, ...]) -> bool:
    """Return whether maps of these strides are no pyramid: one map, or two of one stride."""
    return len(strides) == 1 or len(set(strides)) < len(strides)


class MultiLevelNeck(nn.Module):
    """Make maps of strides 4, 8, 16 and 32.

    Each passes a 1×1 convolution (`lateral_{i}`), bilinear resizing and a 3×3 convolution
    (`conv_{i}`).

    Attributes:
      strides: of the maps that it is given: four, or one, of which all four are made.
      width: of the maps that it gives; None for that of the last map given.

    Raises:
      ValueError: two, three or more than four maps.
    """

    strides: tuple[int, ...]
    width: int | None = None
    param_init: Init = NECK_INIT
    dtype: Any = None

    def __post_init__(self) -> None:
        if len(self.strides) not in (1, len(PYRAMID)):
            raise ValueError(
                f"The backbone gives {len(self.strides)} maps, of strides {self.strides}, and a "
                f"pyramid is made of one map or of {len(PYRAMID)}; name as many blocks, say "
                f"backbone='vit_b16(layers_of_features=(3, 5, 7, 11))'."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "B _ _ _"], ...], train: bool = False
    ) -> tuple[Float[Array, "B _ _ C"], ...]:
        width = self.width or maps[-1].shape[-1]
        how: Any = dict(param_init=self.param_init, dtype=self.dtype)
        flat = [
            ConvNorm(width, 1, 1, **how, name=f"lateral_{i}")(x, train) for i, x in enumerate(maps)
        ]
        have = self.strides
        if len(flat) == 1:
            flat, have = flat * len(PYRAMID), have * len(PYRAMID)
        made = []
        for i, (x, stride, wanted) in enumerate(zip(flat, have, PYRAMID, strict=True)):
            height, breadth = (max(1, side * stride // wanted) for side in x.shape[1:3])
            x = resize(x, (height, breadth))
            made.append(ConvNorm(width, 3, 1, 1, **how, name=f"conv_{i}")(x, train))
        return tuple(made)
