"""The all-MLP decoder of SegFormer (Xie et al., arXiv:2105.15203, section 3.2, eq. 4)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.heads.blocks import conv_norm_relu
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.resize import resize


class SegFormerHead(nn.Module):
    """Embed each map, resize all to the finest, fuse them by one layer, classify.

    The paper's layers are linear, one position at a time: the embeddings (`embed_{i}`, in the order
    of the maps), the fusion (`fuse`) and the classifier (`logits`). As in the authors' code the
    fusion has a batch norm in the place of a bias and a ReLU, resizing is bilinear, the deepest map
    comes first in the concatenation, and dropout before the classifier drops whole channels.

    Attributes:
      num_classes: of the logits.
      width: of embeddings and fusion: 256 for B0 and B1, 768 for the others.
      norm_embeddings: each embedding has batch norm and ReLU, and the finest map comes first in the
        concatenation, as mmsegmentation has it.
      drop_rate: dropout of the fused map.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    num_classes: int
    width: int = 256
    norm_embeddings: bool = False
    drop_rate: float = 0.1
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "B _ _ _"], ...], train: bool = False
    ) -> Float[Array, "B h w K"]:
        """Compute logits of the size of the first map, which is the finest."""
        height, width = maps[0].shape[1:3]
        how: dict[str, Any] = dict(param_init=self.param_init, dtype=self.dtype)
        embedded = []
        for i, x in enumerate(maps):
            if self.norm_embeddings:
                x = conv_norm_relu(self.width, 1, f"embed_{i}", **how)(x, train)
            else:
                init = self.param_init.dense(x.shape[-1], self.width)
                x = nn.Dense(self.width, **init, dtype=self.dtype, name=f"embed_{i}")(x)
            embedded.append(resize(x, (height, width)))
        order = 1 if self.norm_embeddings else -1
        x = jnp.concatenate(embedded[::order], axis=-1)
        x = conv_norm_relu(self.width, 1, "fuse", **how)(x, train)
        x = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2), deterministic=not train)(x)
        init = self.param_init.of_head(self.width, self.num_classes)
        return nn.Dense(self.num_classes, **init, dtype=self.dtype, name="logits")(x)
