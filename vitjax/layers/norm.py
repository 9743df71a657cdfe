"""The normalisations as specs; their variance is two-pass, as E[x²] - E[x]² loses digits."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array

from vitjax.layers.spec import Spec, spec


def layer_norm(epsilon: float = 1e-6) -> Spec:
    """LayerNorm over channels; epsilon is each paper's own: 1e-6 in ViT, 1e-5 in Swin."""
    return spec(nn.LayerNorm, epsilon=epsilon, use_fast_variance=False)


def batch_norm(epsilon: float = 1e-5) -> Spec:
    """BatchNorm over all axes but channels, running statistics with momentum 0.9.

    Under `jit` the batch is the global one, however it is sharded.
    """
    return spec(nn.BatchNorm, epsilon=epsilon, momentum=0.9, use_fast_variance=False)


def normalize(norm: Any, x: Array, train: bool) -> Array:
    """Applies a norm module: a BatchNorm with the batch's statistics in training, the running ones
    otherwise.
    """
    return norm(x, use_running_average=not train) if isinstance(norm, nn.BatchNorm) else norm(x)
