"""Attention pooling: learned queries read the whole sequence (MAP head, arXiv:2106.04560; Set
Transformer).
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.layers.init import Init, glorot_uniform
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm


class AttentionPool(nn.Module):
    """One learned probe attends to all tokens; a residual MLP follows. Not a mixer: tokens to one
    vector.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    param_init: Init = Init(dense=glorot_uniform)
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"], train: bool = False) -> Float[Array, "B C"]:
        heads, width = self.num_heads, x.shape[-1]
        init = self.param_init.dense(width, width)

        def project(y: Array, name: str) -> Array:
            shape = (heads, width // heads)
            return nn.DenseGeneral(shape, **init, dtype=self.dtype, name=name)(y)

        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width)).astype(x.dtype)
        q = project(probe.repeat(x.shape[0], 0), "query")
        attend = DotProductAttention(train=train, name="attend")
        y = attend(q, project(x, "key"), project(x, "value")).reshape(x.shape[0], 1, width)
        y = nn.Dense(width, **init, dtype=self.dtype, name="proj")(y)
        mlp = Mlp(self.mlp_ratio, param_init=self.param_init, dtype=self.dtype, name="mlp")
        return (y + mlp(layer_norm().build(dtype=self.dtype, name="norm")(y), train))[:, 0]
