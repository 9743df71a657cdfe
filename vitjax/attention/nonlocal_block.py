"""Non-local operation: a position's response is a weighted mean of the features at all positions of
an image or a video (Wang et al., arXiv:1711.07971).

Equation 1 there: yᵢ = 1/C(x) Σⱼ f(xᵢ, xⱼ) g(xⱼ). The paper has four functions f (section 3.2), of
which the embedded Gaussian is self-attention with one head and no factor of the logits.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import DotProductAttention, expose, weighted_sum
from vitjax.attention.rows import Place, Rows, cell_boxes, rows_of_cells, shared_boxes, sown_weights
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.norm import batch_norm, normalize
from vitjax.names import check_choice

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def dot_product_weights(
    theta: Float[Array, "B N C"], phi: Float[Array, "B M C"]
) -> Float[Array, "B N M"]:
    """Compute θᵢ·φⱼ over the number of keys (eq. 4)."""
    return jnp.einsum("bnc,bmc->bnm", theta, phi) / phi.shape[1]


def concatenation_weights(
    of_query: Float[Array, "B N"], of_key: Float[Array, "B M"]
) -> Float[Array, "B N M"]:
    """Compute ReLU(wᵀ[θᵢ, φⱼ]) over the number of keys (eq. 5).

    Args:
      of_query, of_key: the terms of the product, of w's first and second half.
    """
    return nn.relu(of_query[:, :, None] + of_key[:, None]) / of_key.shape[1]


class NonLocal(nn.Module):
    """Non-local block z = x + W y (eq. 6) without the residual x, for any `[B, *S, C]`.

    Parameters are `g`, `theta` and `phi` (1×1 convolutions), `concat` (w) and `proj` (W), followed
    by `norm`.

    Attributes:
      pairwise: "gaussian" (eq. 2; θ and φ are x itself), "embedded_gaussian" (eq. 3), "dot_product"
        or "concatenation".
      sub_sample: keys and values are the maxima of 2×2 pixels (section 3.3), in videos of each
        frame, so that a quarter remains; an odd last row or column has no key. Needs a map
        `[B, H, W, C]` or a video `[B, T, H, W, C]`.
      inner_ratio: channels of θ, φ and g over those of x.
      normalized: BatchNorm after W (section 4.1).
      zero_init: the scale of that norm, or W, starts at zero, so that an inserted block does not
        change the network at first (section 4.1).
      attn_drop_rate: dropout of the weights f / C; `drop_rate`: of the output.
    """

    pairwise: str = "embedded_gaussian"
    sub_sample: bool = True
    inner_ratio: float = 0.5
    normalized: bool = False
    zero_init: bool = False
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    def __post_init__(self) -> None:
        check_choice("pairwise", self.pairwise, PAIRWISE)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        """Compute the update W y of x, of the same shape.

        Raises:
          ValueError: x is a sequence, and `sub_sample` is set.
        """
        channels = x.shape[-1]
        inner = max(1, int(channels * self.inner_ratio))
        g = self.keys(self.linear(x, inner, "g"))
        if self.pairwise == "gaussian":
            theta, phi = _flat(x), self.keys(x)
        else:
            theta = _flat(self.linear(x, inner, "theta"))
            phi = self.keys(self.linear(x, inner, "phi"))
        y = self.respond(theta.astype(g.dtype), phi.astype(g.dtype), g, train)
        zero = {"kernel_init": nn.initializers.zeros, "bias_init": nn.initializers.zeros}
        own = zero if self.zero_init and not self.normalized else {}
        y = self.linear(y.reshape(*x.shape[:-1], inner), channels, "proj", **own)
        if self.normalized:
            scale = nn.initializers.zeros if self.zero_init else nn.initializers.ones
            norm = batch_norm().replace(scale_init=scale)
            y = normalize(norm.build(dtype=self.dtype, name="norm"), y, train)
        return nn.Dropout(self.drop_rate, deterministic=not train)(y)

    def linear(self, x: Array, width: int, name: str, **init: Any) -> Array:
        """Apply a 1×1 convolution."""
        init = self.param_init.dense(x.shape[-1], width) | init
        return nn.Dense(width, **init, dtype=self.dtype, name=name)(x)

    def keys(self, x: Float[Array, "B *S C"]) -> Float[Array, "B M C"]:
        """Select the positions that are attended to: all, or the maxima of 2×2 pixels."""
        if self.sub_sample:
            if x.ndim not in (4, 5):
                raise ValueError(
                    f"NonLocal: sub_sample=True pools a map [B, H, W, C] or a video "
                    f"[B, T, H, W, C], and this is of shape {x.shape}; give one of these, or set "
                    f"sub_sample=False."
                )
            sides = tuple(min(2, side) for side in x.shape[-3:-1])
            window = (1,) * (x.ndim - 4) + sides
            x = nn.max_pool(x, window, window)
        return _flat(x)

    def respond(self, theta: Array, phi: Array, g: Array, train: bool) -> Float[Array, "B N c"]:
        """Compute the mean of g with the weights f (eq. 1)."""
        if "gaussian" in self.pairwise:
            attend = DotProductAttention(self.attn_drop_rate, train, name="attend")
            heads = (a[:, :, None] for a in (theta, phi, g))
            return attend(*heads, scale=1.0)[:, :, 0]
        if self.pairwise == "dot_product":
            weights = dot_product_weights(theta, phi)
        else:
            init = self.param_init.dense(2 * theta.shape[-1], 1)
            w = nn.Dense(
                1, use_bias=False, kernel_init=init["kernel_init"], dtype=self.dtype, name="concat"
            )
            of_query = w(jnp.concatenate([theta, jnp.zeros_like(theta)], axis=-1))
            of_key = w(jnp.concatenate([jnp.zeros_like(phi), phi], axis=-1))
            weights = concatenation_weights(of_query[..., 0], of_key[..., 0])
        weights = expose(self, weights[:, None])
        weights = nn.Dropout(self.attn_drop_rate, deterministic=not train)(weights)
        return weighted_sum(weights, g[:, :, None])[:, :, 0]

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights: a key is of one pixel, or of 2×2 whose maximum it is."""
        weights = sown["weights"][0] if "weights" in sown else sown_weights(sown)
        if not self.sub_sample:
            return rows_of_cells(weights, place, place)
        return Rows(weights, shared_boxes(cell_boxes(*place[1:], 2)), place, place)

    @staticmethod
    def takes_sequences(sub_sample: bool = True, **others: Any) -> bool:
        """Return whether sequences are accepted: without pooling, which needs a map."""
        return not sub_sample


def _flat(x: Float[Array, "B *S C"]) -> Float[Array, "B N C"]:
    return x.reshape(x.shape[0], -1, x.shape[-1])
