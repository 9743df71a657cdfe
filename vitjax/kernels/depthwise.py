"""Depthwise convolution on CPUs, where XLA's form is slow.

The plain form is `jax.lax.conv_general_dilated`, which every other platform keeps; a test compares
values and gradients. On CPUs the output is a sum of k² shifted products, of clips of k³, the
input's gradient likewise, and the kernel's gradient one sum for each shift, image by image.
Training PVT v2-B2 spent nine tenths of its time in the plain form's gradients
(`benchmarks/cpu.py`).
"""

import itertools
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.kernels.platform import on_cpu

Strides = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]
LAYOUT = ("NHWC", "HWIO", "NHWC")
OF_CLIPS = ("NDHWC", "DHWIO", "NDHWC")


def layout(x: Array) -> tuple[str, str, str]:
    """Return the layout of the convolution of a map or a clip."""
    return LAYOUT if x.ndim == 4 else OF_CLIPS


def depthwise_conv_general_dilated(
    x: Float[Array, "B *S C"],
    kernel: Float[Array, "*K 1 C"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    feature_group_count: int,
    dimension_numbers: Any = None,
    precision: Any = None,
) -> Float[Array, "B *s C"]:
    """Convolve each channel with its own kernel, for `nn.Conv(conv_general_dilated=…)`.

    Differentiable in reverse, any number of times.

    Raises:
      ValueError: dilations, several outputs for a channel, another layout than NHWC (NDHWC), or a
        precision; the plain form has them.
    """
    dims, here = jax.lax.conv_dimension_numbers, layout(x)
    given = here if dimension_numbers is None else dimension_numbers
    if dims(x.shape, kernel.shape, given) != dims(x.shape, kernel.shape, here):
        raise ValueError(f"The layout {dimension_numbers} is not {here}, the only one here.")
    if precision is not None:
        raise ValueError(f"precision={precision} cannot be set here; leave it None.")
    if {*lhs_dilation, *rhs_dilation} != {1} or not (
        feature_group_count == x.shape[-1] == kernel.shape[-1]
    ):
        raise ValueError(
            f"A depthwise convolution has one output for each channel and no dilation; got "
            f"{feature_group_count} groups for {x.shape[-1]} channels, a kernel of shape "
            f"{kernel.shape}, and dilations {lhs_dilation} and {rhs_dilation}. Use "
            f"jax.lax.conv_general_dilated."
        )
    return _depthwise(x, kernel, tuple(strides), tuple(padding))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, strides: Strides, padding: Padding) -> Array:
    return _output(x, kernel, strides=strides, padding=padding)[0]


def _forward(x: Array, kernel: Array, strides: Strides, padding: Padding) -> Any:
    return _depthwise(x, kernel, strides, padding), (x, kernel)


def _backward(strides: Strides, padding: Padding, kept: Any, grad: Array) -> Any:
    return _gradients(*kept, grad, strides=strides, padding=padding)


_depthwise.defvjp(_forward, _backward)


def _plain(x: Array, kernel: Array, strides: Strides, padding: Padding) -> tuple[Array]:
    groups = x.shape[-1]
    y = jax.lax.conv_general_dilated(
        x, kernel, strides, padding, feature_group_count=groups, dimension_numbers=layout(x)
    )
    return (y,)


def _plain_gradients(
    x: Array, kernel: Array, grad: Array, strides: Strides, padding: Padding
) -> tuple[Array, Array]:
    return jax.vjp(partial(_plain, strides=strides, padding=padding), x, kernel)[1]((grad,))


def _shifts(x: Array, kernel: Array, strides: Strides, padding: Padding) -> tuple[Array]:
    """Sum the shifted maps, each times its row of the kernel."""
    kernel = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    views = _views(x, kernel.shape[:-2], strides, padding)
    terms = (view * kernel[(*at, 0)] for at, view in views)
    return (reduce(jnp.add, terms).astype(x.dtype),)


def _shifts_gradients(
    x: Array, kernel: Array, grad: Array, strides: Strides, padding: Padding
) -> tuple[Array, Array]:
    """Compute the gradients of the input and of the kernel.

    The input's is a convolution of the gradient with the flipped kernel, with zeros inserted for
    strides. The kernel's are sums over positions, accumulated image by image, so that a map and its
    gradient stay in the cache.
    """
    size = kernel.shape[:-2]
    spread = [(0, 0, 0), *((0, 0, s - 1) for s in strides), (0, 0, 0)]
    spread = jax.lax.pad(grad, jnp.zeros((), grad.dtype), spread)
    before = [k - 1 - low for k, (low, _) in zip(size, padding, strict=True)]
    sides = zip(x.shape[1:-1], spread.shape[1:-1], size, before, strict=True)
    around = [(b, n - (m + b - k + 1)) for n, m, k, b in sides]
    (dx,) = _shifts(
        spread, kernel[(slice(None, None, -1),) * len(size)], (1,) * len(size), tuple(around)
    )

    def add(total: Array, image: tuple[Array, Array]) -> tuple[Array, None]:
        one, g = (a[None].astype(total.dtype) for a in image)
        views = _views(one, size, strides, padding)
        sums = [jnp.sum(view * g, axis=tuple(range(g.ndim - 1))) for _, view in views]
        return total + jnp.stack(sums).reshape(kernel.shape), None

    dtype = jnp.promote_types(kernel.dtype, jnp.float32)
    dk, _ = jax.lax.scan(add, jnp.zeros(kernel.shape, dtype), (x, grad))
    return dx, dk.astype(kernel.dtype)


def _views(x: Array, size: Sequence[int], strides: Strides, padding: Padding) -> Any:
    """Yield the map shifted by each element of the kernel: ((i, j), `[B, h, w, C]`)."""
    margins = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), margins)  # negative margins crop
    batch, *sides, channels = x.shape
    lengths = [(n - k) // s * s + 1 for n, k, s in zip(sides, size, strides, strict=True)]
    for at in itertools.product(*map(range, size)):
        end = (i + length for i, length in zip(at, lengths))
        yield at, jax.lax.slice(x, (0, *at, 0), (batch, *end, channels), (1, *strides, 1))


_output = on_cpu(_plain, _shifts)
_gradients = on_cpu(_plain_gradients, _shifts_gradients)
