"""RANet: Resolution Adaptive Networks for Efficient Inference (Yang et al., arXiv:2003.07326).

New there: sub-networks of densely connected blocks, each reading the image at a resolution of its
own, coarsest first. A finer sub-network fuses the features of the coarser one, and each of its last
blocks ends in a classifier, an exit: what is sure of an image early need not look closer.

The official code halves maps at every block that ends a coarser sub-network if `scales` is 1 for a
sub-network after the first; here it then halves none. Exits there read 2×2 pixels, here the mean
over any map.
"""

import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init, fan_out_normal, torch_default
from vitjax.layers.norm import batch_norm
from vitjax.layers.resize import resize
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import DecayRules
from vitjax.names import check_choice

_THREE = dict(scales=(1, 2, 3), growth_factors=(4, 2, 1), bottleneck_factors=(4, 2, 1))
_FOUR = dict(scales=(1, 2, 3, 3), growth_factors=(4, 2, 1, 1), bottleneck_factors=(4, 2, 1, 1))
_CIFAR = dict(stem="cifar", num_classes=10, image_size=32)
VARIANTS = {
    "cifar_3scale": dict(_THREE, **_CIFAR),
    "cifar_4scale": dict(_FOUR, **_CIFAR),
    "imagenet_4scale": dict(_FOUR, scales=(1, 2, 3, 4), growth=16, layers=8),
}
"""Of the authors' scripts and README (yangle15/RANet-pytorch): train_cifar.sh has the four scales,
args.py the three, train_imagenet.sh the last."""


def _uniform_without_bias(fan_in: int, fan_out: int) -> dict[str, Any]:
    return {**torch_default(fan_in, fan_out), "bias_init": nn.initializers.zeros}


INIT = Init(conv=fan_out_normal, head=_uniform_without_bias)
STEM_INIT = Init(conv=torch_default)
"""As the authors' code draws them (yangle15/RANet-pytorch, models/RANet.py)."""
DECAY = ((".*", 1.0),)
"""All parameters, as their main.py hands all to SGD."""

Features = tuple[Float[Array, "B _ _ _"], ...]
"""The maps of a block's layers: a layer appends channels, so that its map begins with those of the
layer before. Where the last layer halves the map, the one before is kept besides."""


def conv(width: int, kernel_size: int, name: str, stride: int = 1, **options: Any) -> ConvNorm:
    """Build a convolution without bias, BatchNorm and ReLU."""
    options = dict(use_bias=False, param_init=INIT) | options
    return ConvNorm(
        width, kernel_size, stride, kernel_size // 2, norm=batch_norm(), act=nn.relu, name=name,
        **options,
    )  # fmt: skip


class Bottleneck(nn.Module):
    """1×1 convolution to at most `factor` · width channels, 3×3 convolution to `width`."""

    width: int
    factor: int
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        inner = min(x.shape[-1], self.factor * self.width)
        x = conv(inner, 1, "reduce", dtype=self.dtype)(x, train)
        return conv(self.width, 3, "conv", self.stride, dtype=self.dtype)(x, train)


class DenseBlock(nn.Module):
    """Layers that each append `growth` channels to the map (paper, figures 4a and 4b).

    With the features of a coarser block a layer computes a part of its channels from them (`lower`
    beside `own`), and the block appends another part of the last of them (`fuse`).

    Attributes:
      layers: how many.
      growth, factor: channels of a layer, and of its bottleneck; `lower_growth`, `lower_factor`:
        those of the coarser block.
      compress: share of the channels that come from the coarser block.
      halve: the last layer halves the map.
      reduction: share of the channels that a 1×1 convolution leaves at the end; None for none.
    """

    layers: int
    growth: int
    factor: int
    lower_growth: int = 0
    lower_factor: int = 1
    compress: float = 0.25
    halve: bool = False
    reduction: float | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W c"], lower: Features = (), train: bool = False
    ) -> tuple[Float[Array, "B h w C"], Features]:
        """Compute the block's map, and the features that a finer block fuses.

        Args:
          lower: features of the coarser block; none in a sub-network's own blocks.
        """
        maps, below = [x], [self._at(lower, i) for i in range(self.layers + 1)] if lower else []
        for i in range(self.layers):
            stride = 2 if self.halve and i == self.layers - 1 else 1
            maps.append(self._layer(i, maps[-1], below[i] if lower else None, stride, train))
        x = maps[-1]
        if lower:
            width = math.floor(x.shape[-1] * self.compress)
            fused = conv(width, 1, "fuse", dtype=self.dtype)(below[-1], train)
            x = _joined(x, fused)
        if self.reduction is not None:
            width = math.floor(x.shape[-1] * self.reduction)
            x = conv(width, 1, "transition", dtype=self.dtype)(x, train)
        return x, tuple(maps[-2:] if self.halve else maps[-1:])

    def _layer(self, i: int, x: Array, lower: Array | None, stride: int, train: bool) -> Array:
        """Append the channels of layer i."""
        shared = 0 if lower is None else math.floor(self.growth * self.compress)
        own = Bottleneck(
            self.growth - shared, self.factor, stride, self.dtype, name=f"layer_{i}_own"
        )
        new = own(x, train)
        if lower is None:
            return _joined(x, new)
        coarse = Bottleneck(shared, self.lower_factor, dtype=self.dtype, name=f"layer_{i}_lower")
        return _joined(resize(x, _size(new), True), coarse(lower, train), new)

    def _at(self, lower: Features, i: int) -> Array:
        """Return the coarser block's map before layer i."""
        width = lower[-1].shape[-1] - (self.layers - i) * self.lower_growth
        return next(x for x in lower if x.shape[-1] >= width)[..., :width]


def _size(x: Array) -> tuple[int, int]:
    return x.shape[1], x.shape[2]


def _joined(x: Array, *others: Array) -> Array:
    """Concatenate the channels of maps, resized to the first one's size."""
    return jnp.concatenate([x, *(resize(y, _size(x), True) for y in others)], axis=-1)


class Exit(nn.Module):
    """Classifier: two convolutions of stride 2, mean over positions, linear layer.

    Attributes:
      width: of the convolutions; None for that of the map.
    """

    num_classes: int
    width: int | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        width = self.width or x.shape[-1]
        for i in range(2):
            x = conv(width, 3, f"conv_{i}", 2, dtype=self.dtype)(x, train)
        x = jnp.mean(x, axis=(1, 2))
        init = INIT.of_head(width, self.num_classes)
        return nn.Dense(self.num_classes, **init, dtype=self.dtype, name="linear")(x)


class RANet(nn.Module):
    """Sub-networks from the coarsest to the finest, with an exit after each of their own blocks.

    Sub-network i has `blocks + block_step · i` blocks: as many as the one before, which fuse its
    features, and then its own. Per-scale values stand in the order of the sub-networks.

    Attributes:
      scales: for each sub-network, 1 + how often it halves its map; a sub-network of the same value
        as the one before reads the same resolution.
      growth_factors: channels of the input map, and of each layer, per `stem_width` and `growth`.
      bottleneck_factors: channels inside a layer per channel that it appends.
      stem_width, growth: of a factor of 1.
      layers: of each block.
      layer_mode: "even", or "growing": block b has (b + 1) · `layers`.
      reduction: share of channels that is left where a sub-network has gone through a 1/scale of
        its blocks.
      compress: see `DenseBlock`.
      stem: "cifar" (3×3 convolution) or "imagenet" (7×7 of stride 2, max pooling of stride 2; exits
        are then as wide as their map, and not 128).
      num_classes: at least 1: an exit is a classifier.
      image_size: side of the images that parameters are initialised with; others work as well.
      remat: recompute blocks in the backward pass.
    """

    scales: tuple[int, ...]
    growth_factors: tuple[int, ...]
    bottleneck_factors: tuple[int, ...]
    blocks: int = 2
    block_step: int = 2
    stem_width: int = 16
    growth: int = 6
    layers: int = 4
    layer_mode: str = "even"
    reduction: float = 0.5
    compress: float = 0.25
    stem: str = "imagenet"
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    remat: bool = False
    decay_rules: DecayRules = DECAY
    dtype: Any = None

    def __post_init__(self) -> None:
        check_choice("stem", self.stem, ("cifar", "imagenet"))
        check_choice("layer_mode", self.layer_mode, ("even", "growing"))
        lengths = {len(self.scales), len(self.growth_factors), len(self.bottleneck_factors)}
        if len(lengths) > 1 or list(self.scales) != sorted(self.scales) or self.scales[:1] != (1,):
            raise ValueError(
                f"scales={self.scales}, growth_factors={self.growth_factors}, "
                f"bottleneck_factors={self.bottleneck_factors}: each sub-network needs one of "
                f"each, and scales begin at 1 and do not fall, as (1, 2, 3)."
            )
        if self.num_classes < 1:
            raise ValueError(
                f"num_classes={self.num_classes}: the exits of a RANet are classifiers, and it has "
                f"no features without them; give the number of classes."
            )
        super().__post_init__()

    def setup(self) -> None:
        last = len(self.scales) - 1
        strides = [1 + (fine > coarse) for coarse, fine in zip(self.scales, self.scales[1:])]
        first, stem = self.stem == "cifar", []
        for i, stride in enumerate((None, *reversed(strides))):  # finest first
            width = self.stem_width * self.growth_factors[last - i]
            options: dict[str, Any] = dict(param_init=STEM_INIT, dtype=self.dtype, name=f"stem_{i}")
            if stride is None and not first:
                stem.append(conv(width, 7, stride=2, use_bias=True, **options))
            else:
                stem.append(conv(width, 3, stride=stride or 1, **options))
        self.convs = stem
        factory = nn.remat(DenseBlock, static_argnums=(3,)) if self.remat else DenseBlock
        self.block = [
            [self._block(factory, i, j) for j in range(self.depth(i))] for i in range(last + 1)
        ]
        width = 128 if first else None
        self.head = [Exit(self.num_classes, width, self.dtype) for _ in range(self.num_exits)]

    def depth(self, i: int) -> int:
        """Compute the number of blocks of sub-network i; 0 before the first."""
        return self.blocks + self.block_step * i if i >= 0 else 0

    def _block(self, factory: Any, i: int, j: int) -> DenseBlock:
        """Build block j of sub-network i."""
        scale, depth, factors = self.scales[i], self.depth(i), self.growth_factors
        coarser = [self.depth(k) for k in range(i)]
        halve = scale > 1 and j + 1 in coarser[-(scale - 1) :]
        transition = j + 1 in [k * depth // scale for k in range(1, scale)]
        fuses = j < self.depth(i - 1)
        lower = (
            dict(
                lower_growth=self.growth * factors[i - 1],
                lower_factor=self.bottleneck_factors[i - 1],
            )
            if fuses
            else {}
        )
        return factory(
            layers=self.layers * (j + 1 if self.layer_mode == "growing" else 1),
            growth=self.growth * factors[i],
            factor=self.bottleneck_factors[i],
            compress=self.compress,
            halve=halve and fuses,
            reduction=self.reduction if transition else None,
            dtype=self.dtype,
            **lower,
        )

    @property
    def num_exits(self) -> int:
        """Exits, one after each block of a sub-network's own."""
        return self.depth(len(self.scales) - 1)

    def read(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B _ _ _"], ...]:
        """Compute the map that each sub-network begins with, coarsest first."""
        x, maps = images.astype(self.dtype or images.dtype), []
        for i, layer in enumerate(self.convs):
            x = layer(x, train)
            if not i and self.stem == "imagenet":
                x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # of values that ReLU left
                x = nn.max_pool(x, (3, 3), (2, 2), "VALID")
            maps.append(x)
        return tuple(reversed(maps))

    def run_part(self, k: int, state: Any, train: bool = False) -> tuple[Float[Array, "B K"], Any]:
        """Run the blocks from exit k - 1 to exit k; see `GivesExits`.

        Between exits stand the map, the maps with which finer sub-networks begin, and the features
        of this sub-network's blocks, which the next one fuses.
        """
        i = next(i for i in range(len(self.scales)) if k < self.depth(i))
        begins, ends = k == self.depth(i - 1), k + 1 == self.depth(i)
        if k == 0:
            (x, *finer), lower, own = self.read(state, train), (), ()
        elif begins:
            (_, (x, *finer), lower), own = state, ()
        else:
            (x, finer, own), lower = state, ()
        for j in range(0 if begins else k, k + 1):
            x, features = self.block[i][j](x, lower[j] if j < len(lower) else (), train)
            own = (*own, features) if finer else ()
        state = (None if ends else x, tuple(finer), own) if k + 1 < self.num_exits else None
        return self.head[k](x, train), state

    def exit_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B K"], ...]:
        """Compute the logits of all exits, the first to leave first."""
        return tuple(self._exits(images, train))

    def _exits(self, state: Any, train: bool) -> Iterator[Float[Array, "B K"]]:
        for k in range(self.num_exits):
            logits, state = self.run_part(k, state, train)
            yield logits

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]` of the last exit."""
        return self.exit_logits(images, train)[-1]


CIFAR = Preprocessing(
    mean=(0.4914, 0.4824, 0.4467),
    std=(0.2471, 0.2435, 0.2616),
    crop=1.0,
    interpolation="bilinear",
    source="yangle15/RANet-pytorch, dataloader.py",
)

FAMILY = Family(
    models={f"ranet_{v}": spec(RANet, **kw) for v, kw in VARIANTS.items()},
    weights={RANet: "ranet"},
    paper="[RANet](https://arxiv.org/abs/2003.07326)",
    code="yangle15/RANet-pytorch, no license stated",
    source="none: the paper has curves",
    golden="both networks for CIFAR: logits of all exits, stages, gradients",
    published={},
    preprocessing={
        "*cifar*": CIFAR,
        "*": CIFAR._replace(**IMAGENET, crop=0.875, source="yangle15/RANet-pytorch, dataloader.py"),
    },
)
