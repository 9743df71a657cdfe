"""EfficientFormer's attention: values wider than queries and keys, and a bias for the distance
between two positions along each axis (arXiv:2206.01191, section 4.1; after LeViT,
arXiv:2104.01136).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.rows import Place, Rows, rows_of_cells, sown_weights
from vitjax.attention.windows import relative_bias_of_map
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import require_map
from vitjax.layers.position import resize_grid


def distance_bias(table: Float[Array, "h U V"], height: int, width: int) -> Float[Array, "h N N"]:
    """Compute the bias of each query and key of a map of `height` × `width`.

    Args:
      table: of each head, for distances of 0 to U-1 rows and 0 to V-1 columns; for a map of another
        size than U × V it is interpolated.
    """
    offsets = jnp.concatenate([table[:, :0:-1], table], axis=1)
    offsets = jnp.concatenate([offsets[..., :0:-1], offsets], axis=2).transpose(1, 2, 0)
    return relative_bias_of_map(resize_grid(offsets, (2 * height - 1, 2 * width - 1)))


class EfficientFormerAttention(nn.Module):
    """Attention whose head widths do not depend on the number of channels.

    Attributes:
      num_heads: heads.
      key_dim: width of each head's queries and keys; logits are divided by its root.
      value_ratio: width of each head's values over `key_dim`.
      map_size: rows and columns of the map that the table of biases is for, None or zeros
        (a model for maps of any size) for those of the first call; for another map the table is
        interpolated.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
    """

    num_heads: int = 8
    key_dim: int = 32
    value_ratio: float = 4.0
    map_size: tuple[int, int] | None = None
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        require_map(x)
        batch, height, width, channels = x.shape
        value_dim = int(self.key_dim * self.value_ratio)
        sizes = (self.num_heads, 2 * self.key_dim + value_dim)
        init = self.param_init.dense(channels, sizes[0] * sizes[1])
        qkv = nn.DenseGeneral(sizes, **init, dtype=self.dtype, name="qkv")(
            x.reshape(batch, -1, channels)
        )
        q, k, v = jnp.split(qkv, (self.key_dim, 2 * self.key_dim), axis=-1)
        map_size = self.map_size if self.map_size and all(self.map_size) else None
        if map_size is None and self.has_variable("params", "attention_biases"):
            table = self.get_variable("params", "attention_biases")
        else:
            shape = (self.num_heads, *(map_size or (height, width)))
            table = self.param("attention_biases", nn.initializers.zeros, shape)
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        out = attend(q, k, v, bias=distance_bias(jnp.asarray(table), height, width))
        out = out.reshape(batch, height, width, -1)
        init = self.param_init.dense(out.shape[-1], channels)
        out = nn.Dense(channels, **init, dtype=self.dtype, name="proj")(out)
        return nn.Dropout(self.drop_rate, deterministic=not train)(out)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights: all positions are keys."""
        return rows_of_cells(sown_weights(sown), place, place)
