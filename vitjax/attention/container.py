"""CONTAINER's mixer (Gao et al., arXiv:2106.01401): dynamic and static affinities, and a learned
balance between them.

Equation 4 there: Y = (α A(X) + β A) V. A(X) is attention's softmax, A a matrix that does not depend
on the input and is shared along the map, which makes it a convolution. The released code, which is
the default here, has one number a for both: α = σ(a), β = 1 - σ(a).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.rows import Place, Rows, rows_of_cells, sown_weights
from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import require_map


def balance(
    dynamic: Float[Array, "*S"], static: Float[Array, "*S"], gate: Float[Array, "..."]
) -> Float[Array, "*S"]:
    """Compute the gated sum σ(a) · first + (1 - σ(a)) · second; a is `gate`."""
    share = nn.sigmoid(gate).astype(dynamic.dtype)
    return share * dynamic + (1 - share) * static


class ContainerMixer(nn.Module):
    """Full attention and a depthwise convolution of the same values, balanced by a learned gate.

    Attributes:
      kernel_size: K of the static affinity, odd.
      gate_init: first value of a; 0 takes half of each, ∞ is full attention and -∞ `dwconv`.
      attn_drop_rate: dropout of the attention weights; `drop_rate`: of the output.
    """

    num_heads: int
    kernel_size: int = 5
    gate_init: float = 0.0
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        require_map(x)
        q, k, v = project_heads(self, x.reshape(x.shape[0], -1, x.shape[-1]), 3, "qkv")
        attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
        dynamic = attend(q, k, v).reshape(x.shape)
        static = depthwise_conv(self.kernel_size, "dwconv", self.param_init, self.dtype)(
            v.reshape(x.shape)
        )
        gate = self.param("gate", nn.initializers.constant(self.gate_init), ())
        mixed = balance(dynamic, static, jnp.asarray(gate))
        self.sow("intermediates", "share", nn.sigmoid(jnp.asarray(gate)))
        return merge_heads(self, mixed.reshape(*x.shape[:3], *v.shape[-2:]), train)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the dynamic affinity; the static one does not depend on the image."""
        return rows_of_cells(sown_weights(sown), place, place)
