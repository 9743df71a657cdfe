"""A head of convolutions on one map (FCN; Long et al., arXiv:1411.4038), as auxiliary heads are."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.heads.blocks import PixelClassifier, conv_norm_relu
from vitjax.layers.init import NORMAL, Init


class FCNHead(nn.Module):
    """Classify the pixels of the map before the last, after 3×3 convolutions (`conv_{i}`).

    Attributes:
      width: of the convolutions; `num_convs`: their number.
      drop_rate: share of channels that training drops before the classifier.

    A backbone's only map is taken where it has no other.
    """

    num_classes: int
    width: int = 256
    num_convs: int = 1
    drop_rate: float = 0.1
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "B _ _ _"], ...], train: bool = False
    ) -> Float[Array, "B h w K"]:
        """Compute logits at the resolution of the map that is read."""
        x = maps[-2:][0]  # of one map, that one
        how: Any = dict(param_init=self.param_init, dtype=self.dtype)
        for i in range(self.num_convs):
            x = conv_norm_relu(self.width, 3, f"conv_{i}", **how)(x, train)
        classify = PixelClassifier(
            self.num_classes, self.drop_rate, self.param_init, self.dtype, name="classifier"
        )
        return classify(x, train)
