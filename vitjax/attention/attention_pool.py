"""Attention pooling: learned queries attend to the whole sequence (MAP head, arXiv:2106.04560; Set
Transformer).
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.rows import Place, Rows, rows_of_cells, sown_weights
from vitjax.layers.activations import gelu
from vitjax.layers.init import Init, glorot_uniform
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm


class AttentionPool(nn.Module):
    """Pool tokens to one vector by a learned probe and a residual MLP.

    The probe attends to all tokens. This is not a token mixer.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    act: Callable[[Array], Array] = gelu
    norm_epsilon: float = 1e-6
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
        q = project(jnp.broadcast_to(probe, (x.shape[0], *probe.shape[1:])), "query")
        attend = DotProductAttention(train=train, name="attend")
        y = attend(q, project(x, "key"), project(x, "value")).reshape(x.shape[0], 1, width)
        y = nn.Dense(width, **init, dtype=self.dtype, name="proj")(y)
        context: Any = dict(param_init=self.param_init, dtype=self.dtype)
        mlp = Mlp(self.mlp_ratio, self.act, **context, name="mlp")
        norm = layer_norm(self.norm_epsilon).build(dtype=self.dtype, name="norm")
        return (y + mlp(norm(y), train))[:, 0]

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights: the probe is the query, and all positions are keys."""
        return rows_of_cells(sown_weights(sown), Place(1), place)
