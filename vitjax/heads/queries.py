"""Layers of transformers that find objects by queries, which DETR and Deformable DETR share."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.attention.cross import CrossAttention
from vitjax.heads.blocks import at_least_float32
from vitjax.layers.init import Fans, Init, glorot_uniform, torch_default
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm


def glorot_kernel(fan_in: int, fan_out: int) -> dict[str, Any]:
    """Initialise the kernel by `glorot_uniform`, the bias as PyTorch does by default."""
    return glorot_uniform(fan_in, fan_out) | dict(
        bias_init=torch_default(fan_in, fan_out)["bias_init"]
    )


TRANSFORMER = Init(dense=glorot_uniform, conv=torch_default, head=torch_default, mlp=glorot_kernel)
"""As the authors draw matrices; what finds classes and boxes as PyTorch does by default."""


def norm(layer: Any, name: str) -> nn.Module:
    """Build a LayerNorm of a layer (epsilon 1e-5)."""
    return layer_norm(1e-5).build(dtype=layer.dtype, name=name)


Attend = Callable[[Array], Array]
"""Attention to the image from a layer's tokens. It builds its module in the layer that calls it."""


class EncoderLayer(nn.Module):
    """Attention within the image and an MLP: each added, then normalised.

    Attributes:
      mlp_ratio: hidden width over width.
      drop_rate: dropout of the MLP.
    """

    mlp_ratio: float
    drop_rate: float = 0.0
    param_init: Init = TRANSFORMER
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N C"], attend: Attend, train: bool = False
    ) -> Float[Array, "B N C"]:
        x = norm(self, "norm1")(x + attend(x))
        mlp = Mlp(self.mlp_ratio, nn.relu, self.drop_rate, self.param_init, self.dtype, name="mlp")
        return norm(self, "norm2")(x + mlp(x, train))


class DecoderLayer(nn.Module):
    """Attention among queries, attention to the image, MLP: each added, then normalised.

    Attributes:
      num_heads: of the attention among queries.
      mlp_ratio: hidden width over width.
      drop_rate: dropout of that attention, its weights, and the MLP.
    """

    num_heads: int
    mlp_ratio: float
    drop_rate: float = 0.0
    param_init: Init = TRANSFORMER
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q C"],
        positions: Float[Array, "B Q C"],
        attend: Attend,
        train: bool = False,
    ) -> Float[Array, "B Q C"]:
        """Compute the queries after this layer.

        Args:
          positions: of the queries: a part of queries and keys, not of values.
          attend: is given the queries with their positions.
        """
        drop = self.drop_rate
        context: Any = dict(param_init=self.param_init, dtype=self.dtype)
        own = CrossAttention(self.num_heads, True, drop, drop, **context, name="attn")
        placed = x + positions
        x = norm(self, "norm1")(x + own(placed, placed, x, train=train))
        x = norm(self, "norm2")(x + attend(x + positions))
        mlp = Mlp(self.mlp_ratio, nn.relu, drop, **context, name="mlp")
        return norm(self, "norm3")(x + mlp(x, train))


class BoxMlp(nn.Module):
    """Three linear layers (`fc_{i}`) with ReLU between them: a query's four box coordinates.

    Attributes:
      last: initialisers of the last layer; None for those of a head.
    """

    last: Fans | None = None
    param_init: Init = TRANSFORMER
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B 4"]:
        width = x.shape[-1]
        inner = self.param_init.of_head
        for i, (init, out) in enumerate(((inner, width), (inner, width), (self.last or inner, 4))):
            x = nn.Dense(out, **init(width, out), dtype=self.dtype, name=f"fc_{i}")(x)
            x = nn.relu(x) if i < 2 else x
        return at_least_float32(x)
