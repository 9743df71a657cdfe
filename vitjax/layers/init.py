"""Initialisation: the distributions from which the authors of each family draw their parameters.

A family's file states one `Init`, and its model passes it to every layer. A layer of fan-in m and
fan-out n (of one group, for a convolution) asks it for the initializers of its kernel and bias:
`nn.Dense(n, **init.dense(m, n))`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array

Initializer = Callable[..., Array]
Fans = Callable[[int, int], dict[str, Any]]
"""(fan-in, fan-out) → `kernel_init` and `bias_init` of a layer."""

normal, zeros = nn.initializers.normal, nn.initializers.zeros
NORMAL_02 = normal(0.02)


def uniform(bound: float) -> Initializer:
    """Make an initializer that is uniform within ±bound."""
    return functools.partial(jax.random.uniform, minval=-bound, maxval=bound)


def normal_02(fan_in: int, fan_out: int) -> dict[str, Any]:
    """Initialise the kernel by normal(0.02) and the bias by zeros.

    PyTorch code writes it as `trunc_normal_(std=.02)`, which cuts at ±2: at 100 standard
    deviations.
    """
    return dict(kernel_init=normal(0.02), bias_init=zeros)


def torch_default(fan_in: int, fan_out: int) -> dict[str, Any]:
    """Initialise kernel and bias as PyTorch does by default, uniform in ±1/√fan_in."""
    draw = uniform(fan_in**-0.5)
    return dict(kernel_init=draw, bias_init=draw)


def fan_out_normal(fan_in: int, fan_out: int) -> dict[str, Any]:
    """Initialise the kernel by normal(√(2 / fan_out)) (arXiv:1502.01852, eq. 14), the bias by 0."""
    return dict(kernel_init=normal(math.sqrt(2 / fan_out)), bias_init=zeros)


def glorot_uniform(fan_in: int, fan_out: int) -> dict[str, Any]:
    """Initialise the kernel in ±√(6 / (fan_in + fan_out)), the bias by zeros.

    This is Glorot and Bengio 2010, eq. 16.
    """
    return dict(kernel_init=uniform(math.sqrt(6 / (fan_in + fan_out))), bias_init=zeros)


def lecun_normal(fan_in: int, fan_out: int) -> dict[str, Any]:
    """Initialise the kernel by a normal of variance 1 / fan_in (flax's default), the bias by 0."""
    return dict(kernel_init=nn.initializers.lecun_normal(), bias_init=zeros)


def all_zeros(fan_in: int, fan_out: int) -> dict[str, Any]:
    """Initialise kernel and bias by zeros."""
    return dict(kernel_init=zeros, bias_init=zeros)


@dataclasses.dataclass(frozen=True)
class Init:
    """Distributions of the initial parameters of a family.

    Norms begin at scale one and bias zero. An initial value that a module's docstring names applies
    to it.

    Attributes:
      dense: of linear layers.
      conv: of convolutions.
      head: of the classifier; that of linear layers if None.
      mlp: of the two layers of MLPs; that of linear layers if None.
      table: of position embeddings, relative position biases and registers.
      token: of the class token.
    """

    dense: Fans = normal_02
    conv: Fans = torch_default
    head: Fans | None = None
    mlp: Fans | None = None
    table: Initializer = NORMAL_02
    token: Initializer = NORMAL_02

    def of_head(self, fan_in: int, fan_out: int) -> dict[str, Any]:
        """Return the initializers of the classifier's kernel and bias."""
        return (self.head or self.dense)(fan_in, fan_out)

    def of_mlp(self, fan_in: int, fan_out: int) -> dict[str, Any]:
        """Return the initializers of the kernel and bias of an MLP's layer."""
        return (self.mlp or self.dense)(fan_in, fan_out)


NORMAL = Init()
"""Linear layers, tables and tokens normal(0.02), convolutions as PyTorch has them by default: DeiT,
Swin and what follows them."""
