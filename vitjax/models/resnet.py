"""Residual networks of Big Transfer (BiT, arXiv:1912.11370) and the ViT paper's hybrids.

The hybrids are arXiv:2010.11929, section 3.1. Both are bottleneck ResNets whose kernels are
standardised and whose norm is GroupNorm. BiT's units normalise first (ResNet-v2) and pad
symmetrically; the hybrids' normalise last (v1) and pad as TensorFlow's SAME does, which depends on
the size of the map.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float


def standardize(kernel: Float[Array, "h w i o"], epsilon: float = 1e-8) -> Float[Array, "h w i o"]:
    """Standardise a kernel (arXiv:1903.10520, eq. 5-7): mean 0 and variance 1 per output channel.

    It is computed in float32 at least. The epsilon is that of the published PyTorch conversions.
    """
    w = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    axes = (0, 1, 2)
    w = w - w.mean(axes)
    return w * jax.lax.rsqrt(jnp.square(w).mean(axes) + epsilon)


class StdConv(nn.Module):
    """A convolution without bias whose kernel is standardised.

    Attributes:
      padding: zeros on each side, or "SAME": as many as make the output ⌈side / stride⌉, an odd one
        at the right or bottom.
    """

    width: int
    kernel_size: int = 1
    stride: int = 1
    padding: int | str = 0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w C"]:
        k, p = self.kernel_size, self.padding
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (k, k, x.shape[-1], self.width)
        )
        dtype = self.dtype or jnp.promote_types(x.dtype, kernel.dtype)
        x, kernel = promote_dtype(x, standardize(kernel), dtype=dtype)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride,) * 2,
            p if isinstance(p, str) else ((p, p), (p, p)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def group_norm(name: str, dtype: Any = None) -> nn.GroupNorm:
    """Build a GroupNorm of 32 groups."""
    return nn.GroupNorm(32, epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class ResNetRoot(nn.Module):
    """7×7 convolution of stride 2 and 3×3 max pooling of stride 2; between them, unless `pre_act`,
    norm and ReLU.
    """

    width: int
    pre_act: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w C"]:
        x = StdConv(self.width, 7, 2, 3 if self.pre_act else "SAME", self.dtype, name="conv")(x)
        if self.pre_act:
            # BiT pads with zeros, not with -inf: they count where all values are negative.
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            return nn.max_pool(x, (3, 3), (2, 2), "VALID")
        x = nn.relu(group_norm("norm", self.dtype)(x))
        return nn.max_pool(x, (3, 3), (2, 2), "SAME")


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution with a shortcut (arXiv:1512.03385, figure 5), a quarter of the
    width between them.

    Where shape changes, the shortcut is a convolution: of the input, and normalised, or with
    `pre_act` of the normalised input (arXiv:1603.05027, figure 1b).
    """

    width: int
    stride: int = 1
    pre_act: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w C"]:
        def conv(x: Array, number: int) -> Array:
            width, k, stride = (
                (self.width // 4, 1, 1),
                (self.width // 4, 3, self.stride),
                (self.width, 1, 1),
            )[number - 1]
            padding = k // 2 if self.pre_act else "SAME"
            return StdConv(width, k, stride, padding, self.dtype, name=f"conv{number}")(x)

        def norm(x: Array, number: int) -> Array:
            return group_norm(f"norm{number}", self.dtype)(x)

        def project(x: Array) -> Array:
            return StdConv(self.width, 1, self.stride, 0, self.dtype, name="shortcut_conv")(x)

        changes = self.stride > 1 or x.shape[-1] != self.width
        if self.pre_act:
            y = nn.relu(norm(x, 1))
            shortcut = project(y) if changes else x
            y = conv(nn.relu(norm(conv(y, 1), 2)), 2)
            return shortcut + conv(nn.relu(norm(y, 3)), 3)
        shortcut = group_norm("shortcut_norm", self.dtype)(project(x)) if changes else x
        y = nn.relu(norm(conv(x, 1), 1))
        y = nn.relu(norm(conv(y, 2), 2))
        return nn.relu(shortcut + norm(conv(y, 3), 3))


class ResNetStage(nn.Module):
    """`depth` bottlenecks, of which the first has the stride; `remat` recomputes them in the
    backward pass.
    """

    depth: int
    width: int
    stride: int
    pre_act: bool = False
    remat: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w C"]:
        factory = nn.remat(Bottleneck) if self.remat else Bottleneck
        for i in range(self.depth):
            stride = 1 if i else self.stride
            x = factory(self.width, stride, self.pre_act, self.dtype, name=f"block_{i}")(x)
        return x


class ResNet(nn.Module):
    """Root and stages: the maps of strides 4, 8, 16 …, finest first.

    Parameters are `stem`, `stage_{i}/block_{j}`.

    Attributes:
      depths: bottlenecks of each stage.
      width_factor: multiplies all widths; at 1 the root has 64 channels and the stages 256, 512 ….
    """

    depths: tuple[int, ...]
    width_factor: int = 1
    pre_act: bool = False
    remat: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> tuple[Float[Array, "B _ _ _"], ...]:
        width, maps = 64 * self.width_factor, []
        x = ResNetRoot(width, self.pre_act, self.dtype, name="stem")(x)
        for i, depth in enumerate(self.depths):
            x = ResNetStage(
                depth, 4 * width * 2**i, 2 if i else 1, self.pre_act, self.remat, self.dtype,
                name=f"stage_{i}",
            )(x)  # fmt: skip
            maps.append(x)
        return tuple(maps)
