"""Normalisations as specs. Their variance is two-pass, as E[x²] - E[x]² loses digits."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.kernels import cpu
from vitjax.layers.spec import Spec, spec


def layer_norm(epsilon: float = 1e-6) -> Spec:
    """Return the spec of a LayerNorm over channels (epsilon 1e-6 in ViT, 1e-5 in Swin)."""
    return spec(_layer_norm, epsilon=epsilon)


class LayerNorm(nn.LayerNorm):
    """Flax's LayerNorm between kept values (`vitjax.kernels.cpu.keep`).

    Its gradient is three sums, for each of which XLA's CPU backend would recompute the input.
    """

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:  # type: ignore[override]
        return cpu.keep(super().__call__(cpu.keep(x)))


def _layer_norm(epsilon: float, dtype: Any = None, **options: Any) -> nn.LayerNorm:
    """Build a LayerNorm.

    For 16-bit inputs the one-pass variance, computed in float32, loses no digits that they have.
    """
    one_pass = dtype is not None and jnp.dtype(dtype).itemsize == 2
    return LayerNorm(epsilon, dtype=dtype, use_fast_variance=one_pass, **options)


def batch_norm(epsilon: float = 1e-5, momentum: float = 0.9, frozen: bool = False) -> Spec:
    """Return the spec of a BatchNorm over all axes but channels.

    `momentum` is the share of the running statistics that a step keeps. Under `jit` the batch is
    the global one, however it is sharded. With `frozen` training reads the running statistics too,
    and does not change them.
    """
    return spec(
        nn.BatchNorm,
        epsilon=epsilon,
        momentum=momentum,
        use_fast_variance=False,
        use_running_average=frozen or None,
    )


def group_norm(groups: int, epsilon: float = 1e-5) -> Spec:
    """Return the spec of a GroupNorm (arXiv:1803.08494)."""
    return spec(nn.GroupNorm, num_groups=groups, epsilon=epsilon, use_fast_variance=False)


def map_norm(epsilon: float = 1e-5) -> Spec:
    """Return the spec of a GroupNorm of one group: of each image, over channels and positions."""
    return group_norm(1, epsilon)


def normalize(norm: Any, x: Array, train: bool) -> Array:
    """Apply a norm module.

    A BatchNorm uses the statistics of the batch in training, unless they are frozen, otherwise the
    running ones.
    """
    if not isinstance(norm, nn.BatchNorm) or norm.use_running_average:
        return norm(x)
    return norm(x, use_running_average=not train)


def layer_scale(
    module: nn.Module, y: Float[Array, "*B C"], name: str, init: float | None
) -> Float[Array, "*B C"]:
    """Multiply each channel by a parameter of the module (CaiT, arXiv:2103.17239, eq. 4).

    Args:
      init: its first value; None for no such parameter.
    """
    if init is None:
        return y
    scale = module.param(name, nn.initializers.constant(init), (y.shape[-1],))
    return y * scale.astype(y.dtype)
