"""UPerNet's head (Xiao et al., arXiv:1807.10221, section 3.1): pyramid pooling (PSPNet,
arXiv:1612.01105) on the last map, a feature pyramid (arXiv:1612.03144), and all its levels fused.

The paper has more heads, for parts, materials and scenes; this is its object head, which is what
backbones are compared with. As the code of mmsegmentation has it, and the papers do not say: every
convolution but the classifier has BatchNorm and ReLU, the pooled map joins the pyramid without a
lateral convolution, and sums and resizing are bilinear.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.heads.blocks import PixelClassifier, conv_norm_relu
from vitjax.heads.neck import MultiLevelNeck, lacks_pyramid
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.pool import adaptive_average_pool
from vitjax.layers.resize import resize


class UPerNetHead(nn.Module):
    """Pool, fuse top down, fuse all levels at the finest resolution, classify.

    Parameters are `pool_{i}` (of each pooled map), `bottleneck`, `lateral_{i}` and `fpn_{i}` (of
    the maps but the last), `fpn_bottleneck`, `classifier`; `resample` where maps are no pyramid.

    Attributes:
      width: of all convolutions.
      pool_sizes: cells per side of the pooled maps.
      drop_rate: share of channels that training drops before the classifier.
      strides: of the maps. Of one map alone, and of maps that share a stride, a pyramid is made
        first; see `MultiLevelNeck`.
    """

    num_classes: int
    width: int = 512
    pool_sizes: tuple[int, ...] = (1, 2, 3, 6)
    drop_rate: float = 0.1
    strides: tuple[int, ...] = (4, 8, 16, 32)
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "B _ _ _"], ...], train: bool = False
    ) -> Float[Array, "B h w K"]:
        """Compute logits at the resolution of the finest map."""
        if lacks_pyramid(self.strides):
            maps = MultiLevelNeck(self.strides, dtype=self.dtype, name="resample")(maps, train)
        conv = partial(conv_norm_relu, self.width, param_init=self.param_init, dtype=self.dtype)

        *fine, x = maps
        pooled = [x]
        for i, side in enumerate(self.pool_sizes):
            cells = conv(1, f"pool_{i}")(adaptive_average_pool(x, side), train)
            pooled.append(resize(cells, (x.shape[1], x.shape[2])))
        x = conv(3, "bottleneck")(jnp.concatenate(pooled, axis=-1), train)

        levels = [x]
        for i, finer in reversed(list(enumerate(fine))):
            lateral = conv(1, f"lateral_{i}")(finer, train)
            x = lateral + resize(x, (lateral.shape[1], lateral.shape[2]))
            levels.insert(0, conv(3, f"fpn_{i}")(x, train))

        size = (levels[0].shape[1], levels[0].shape[2])
        x = jnp.concatenate([resize(level, size) for level in levels], axis=-1)
        x = conv(3, "fpn_bottleneck")(x, train)
        classify = PixelClassifier(
            self.num_classes, self.drop_rate, self.param_init, self.dtype, name="classifier"
        )
        return classify(x, train)
