"""Projections of tokens to the heads' q, k and v, and of the merged heads to the output."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from vitjax.kernels import cpu
from vitjax.layers.init import Init


def project_heads(
    mixer: Any,
    x: Float[Array, "*B N C"],
    count: int,
    name: str,
    use_bias: bool | None = None,
    width: int | None = None,
    unbiased: tuple[int, ...] = (),
) -> tuple[Array, ...]:
    """Project x to `count` arrays (q, k, v: 3) `[*B, N, h, d]` in one matrix product.

    Call it from the compact method of a mixer, which gives `num_heads`, `qkv_bias`, `param_init`
    and `dtype`. The kernel is `[C, count, h, d]`, so that tensor parallelism can split it by heads.

    Args:
      width: channels of all heads together; None for those of x.
      unbiased: which of them have no bias though the others have one.

    Raises:
      ValueError: the width is no multiple of the number of heads.
    """
    width, heads = width or x.shape[-1], mixer.num_heads
    bias: bool = mixer.qkv_bias if use_bias is None else use_bias
    if width % heads:
        fits = [h for h in range(1, min(width, 4 * heads) + 1) if width % h == 0]
        raise ValueError(
            f"{type(mixer).__name__}: a width of {width} cannot be split into {heads} heads; "
            f"num_heads must divide "
            f"it (near: {min(fits, key=lambda h: abs(h - heads))})."
        )
    sizes = (count, heads, width // heads)
    return Projections(sizes, bias, mixer.param_init, unbiased, mixer.dtype, name=name)(x)


class Projections(nn.Module):
    """Several linear maps of x as one product, `nn.DenseGeneral(sizes)` cut along its first axis.

    The biases are added after the cut: each one's gradient is then summed where that of its part is
    computed, and not from memory. Each map is initialised as a layer of its own.

    Attributes:
      sizes: (number of maps, heads, head width).
      unbiased: maps without a bias though `use_bias` is set.
    """

    sizes: tuple[int, int, int]
    use_bias: bool
    param_init: Init
    unbiased: tuple[int, ...] = ()
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*B N C"]) -> tuple[Float[Array, "*B N h d"], ...]:
        width, (count, heads, head_width) = x.shape[-1], self.sizes
        init = self.param_init.dense(width, heads * head_width)
        kernel = self.param("kernel", init["kernel_init"], (width, *self.sizes), jnp.float32)
        biased = [i for i in range(count) if i not in self.unbiased]
        bias = None
        if self.use_bias:
            shape = (len(biased), heads, head_width)
            bias = self.param("bias", init["bias_init"], shape, jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = cpu.keep(jnp.einsum("...nc,cthd->...nthd", cpu.keep(x), kernel))
        return tuple(
            part if bias is None or i not in biased else part + bias[biased.index(i)]
            for i, part in enumerate(cpu.cut(y))
        )


def merge_heads(
    mixer: Any, x: Float[Array, "*B h d"], train: bool, name: str = "proj", width: int | None = None
) -> Float[Array, "*B C"]:
    """Concatenate the heads and project them, with the mixer's `drop_rate`.

    Args:
      width: channels of the result; None for those of the heads together.
    """
    x = x.reshape(*x.shape[:-2], -1)
    width = x.shape[-1] if width is None else width
    init = mixer.param_init.dense(x.shape[-1], width)
    options = dict(dtype=mixer.dtype, dot_general=cpu.dot_general)
    x = nn.Dense(width, **init, **options, name=name)(x)
    return nn.Dropout(mixer.drop_rate, deterministic=not train)(x)
