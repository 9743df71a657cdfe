"""Decoders of SETR (Zheng et al., arXiv:2012.15840, section 3.3).

They are naive upsampling, progressive upsampling (PUP) and multi-level feature aggregation (MLA).
They read maps of a ViT, all of stride 16, which come from its blocks without its last norm; so each
decoder begins with its own norms. All resizing is bilinear.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.heads.blocks import conv_norm_relu
from vitjax.layers.init import NORMAL, Fans, Init
from vitjax.layers.norm import layer_norm
from vitjax.layers.resize import resize

Maps = tuple[Float[Array, "B H W _"], ...]


def enlarge(
    x: Float[Array, "B H W C"], factor: int, align_corners: bool = False
) -> Float[Array, "B h w C"]:
    """Resize a map to `factor` times its sides."""
    return resize(x, (factor * x.shape[1], factor * x.shape[2]), align_corners)


def _classifier_init(init: Init) -> Fans:
    """Return a classifier's initialisation: that of a convolution if it has none."""
    return init.head or init.conv


class UpHead(nn.Module):
    """Decode one map by upsampling stages, then classify (SETR, section 3.3, 1 and 2).

    A norm comes first; each stage is convolution, batch norm, ReLU and upsampling; a 1×1
    convolution classifies. The naive decoder is `kernel_size=1, factors=(1,)`. PUP is `factors=(2,
    2, 2, 1)`; its fourth doubling comes after the classifier, where logits are resized to the
    image.

    Attributes:
      num_classes: of the logits.
      index: of the map that is read.
      factors: by how much the map grows after each convolution.
      kernel_size: of those convolutions.
      width: of those convolutions.
      use_bias: whether they have one.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    num_classes: int
    index: int = -1
    factors: tuple[int, ...] = (2, 2, 2, 1)
    kernel_size: int = 3
    width: int = 256
    use_bias: bool = True
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, maps: Maps, train: bool = False) -> Float[Array, "B h w K"]:
        """Compute logits whose sides are those of the map times all `factors`."""
        common: dict[str, Any] = dict(param_init=self.param_init, dtype=self.dtype)
        x = layer_norm().build(dtype=self.dtype, name="norm")(maps[self.index])
        for i, factor in enumerate(self.factors):
            conv = conv_norm_relu(
                self.width, self.kernel_size, f"conv_{i}", use_bias=self.use_bias, **common
            )
            x = enlarge(conv(x, train), factor)
        init = _classifier_init(self.param_init)(self.width, self.num_classes)
        return nn.Dense(self.num_classes, **init, dtype=self.dtype, name="logits")(x)


class MultiLevelNeck(nn.Module):
    """Aggregate maps of several blocks, from the last to the first (SETR, section 3.3, 3).

    Each map is normalised and projected; the sum of it and all deeper ones passes a 3×3
    convolution.

    Attributes:
      width: of the maps that are given.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    width: int = 256
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, maps: Maps, train: bool = False) -> Maps:
        """Aggregate the maps; each result is `[B, H, W, width]`."""
        common: dict[str, Any] = dict(use_bias=False, param_init=self.param_init, dtype=self.dtype)
        given, total = [], 0
        for i, x in reversed(list(enumerate(maps))):
            x = layer_norm().build(dtype=self.dtype, name=f"norm_{i}")(x)
            total = total + conv_norm_relu(self.width, 1, f"lateral_{i}", **common)(x, train)
            given.append(conv_norm_relu(self.width, 3, f"output_{i}", **common)(total, train))
        return tuple(reversed(given))


class MultiLevelHead(nn.Module):
    """Decode the maps of `MultiLevelNeck` and classify (SETR, section 3.3, 3).

    Each map passes two 3×3 convolutions and is upsampled 4 times; all are concatenated.

    Attributes:
      num_classes: of the logits.
      width: of each stream's convolutions.
      kernel_size: of the classifier.
      align_corners: the upsampling keeps the centres of the corner pixels in place. So has the
        authors' code, which does without in their other decoders.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    num_classes: int
    width: int = 128
    kernel_size: int = 3
    align_corners: bool = True
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, maps: Maps, train: bool = False) -> Float[Array, "B h w K"]:
        """Compute logits of 4 times the maps' sides."""
        common: dict[str, Any] = dict(param_init=self.param_init, dtype=self.dtype)
        streams = []
        for i, x in enumerate(maps):
            for j in range(2):
                name = f"stream_{i}_conv_{j}"
                x = conv_norm_relu(self.width, 3, name, use_bias=False, **common)(x, train)
            streams.append(enlarge(x, 4, self.align_corners))
        x, k = jnp.concatenate(streams, axis=-1), self.kernel_size
        init = _classifier_init(self.param_init)(k * k * x.shape[-1], k * k * self.num_classes)
        return nn.Conv(self.num_classes, (k, k), **init, dtype=self.dtype, name="logits")(x)


class LinearHead(nn.Module):
    """Decode one map by a 1×1 convolution: the auxiliary heads of SETR-MLA.

    Attributes:
      num_classes: of the logits.
      index: of the map that is read.
      use_bias: whether it has one; the authors' has none.
      param_init: distributions of first weights.
      dtype: of the computation.
    """

    num_classes: int
    index: int = -1
    use_bias: bool = False
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, maps: Maps, train: bool = False) -> Float[Array, "B H W K"]:
        """Compute logits of the map's sides."""
        x = maps[self.index]
        init = _classifier_init(self.param_init)(x.shape[-1], self.num_classes)
        dense = nn.Dense(
            self.num_classes, use_bias=self.use_bias, **init, dtype=self.dtype, name="logits"
        )
        return dense(x)
