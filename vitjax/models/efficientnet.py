"""EfficientNet (Tan and Le, arXiv:1905.11946), and its size L2 of Noisy Student (Xie et al.,
arXiv:1911.04252).

New there: depth, width and resolution grow together (section 3.3, eq. 3), from a small network of
inverted bottlenecks with squeeze-and-excitation that a search found (table 1). L2 is what the ViT
paper compares with.

The paper does not say, and the authors' code has: padding as TensorFlow's SAME, which depends on
the size of the map; BatchNorm of epsilon 1e-3; a squeeze to a quarter of the channels before, not
after, the expansion; SiLU, which the paper calls Swish, everywhere. torchvision's weights, and
timm's without `tf_`, were trained with symmetric padding and epsilon 1e-5 (torchvision's B5 to B7
with 1e-3): `padding="symmetric", norm_epsilon=1e-5`.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.downsample import ConvNorm
from vitjax.layers.drop_path import drop_path
from vitjax.layers.init import Init, fan_out_normal, uniform, zeros
from vitjax.layers.norm import batch_norm
from vitjax.layers.spec import Spec, spec
from vitjax.layers.squeeze_excite import SqueezeExcite
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import DecayRules
from vitjax.names import check_choice

STAGES = (  # table 1: width, depth, kernel, stride, expansion
    (16, 1, 3, 1, 1),
    (24, 2, 3, 2, 6),
    (40, 2, 5, 2, 6),
    (80, 3, 3, 2, 6),
    (112, 3, 5, 1, 6),
    (192, 4, 5, 2, 6),
    (320, 1, 3, 1, 6),
)
LAST_OF_STRIDE = (1, 2, 4, 6)
"""The stages whose maps are the last of strides 4, 8, 16 and 32."""
_FACTORS = {  # width, depth, pixels, dropout: the authors' efficientnet_builder.py
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
    "l2": (4.3, 5.3, 475, 0.5),  # the pixels that it was trained with; published at 800
}
VARIANTS = {
    name: dict(width_factor=width, depth_factor=depth, image_size=size, drop_rate=drop)
    for name, (width, depth, size, drop) in _FACTORS.items()
}


def _of_classifier(fan_in: int, fan_out: int) -> dict[str, Any]:
    return dict(kernel_init=uniform(fan_out**-0.5), bias_init=zeros)


INIT = Init(conv=fan_out_normal, head=_of_classifier)
"""As the authors' code draws them (tensorflow/tpu, models/official/efficientnet)."""
DECAY: DecayRules = ((r"(.*/)?norm/(scale|bias)", 0.0), (".*", 1.0))
"""All but BatchNorm decays, biases too (main.py there)."""


def scale_width(width: int, factor: float) -> int:
    """Multiply a width and round it to a multiple of 8, at most 10 % smaller."""
    scaled = width * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class MBConv(nn.Module):
    """Inverted bottleneck: a wide depthwise convolution between two 1×1 ones (MobileNet v2,
    arXiv:1801.04381, figure 4), and squeeze-and-excitation.

    Parameters are `expand`, `depthwise`, `se`, `project`. Where the shape stays, x is added.

    Attributes:
      width: channels of the result.
      kernel_size, stride: of the depthwise convolution.
      expansion: width between the convolutions over that of x; 1 leaves the first out.
      padding: "same" or "symmetric", see `EfficientNet`.
      norm: follows each convolution.
      drop_path_rate: stochastic depth.
    """

    width: int
    kernel_size: int
    stride: int
    expansion: int
    padding: str
    norm: Spec
    drop_path_rate: float = 0.0
    param_init: Init = INIT
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        """Apply the bottleneck; the stride reduces the map."""
        channels, k = x.shape[-1], self.kernel_size
        context: Any = dict(param_init=self.param_init, dtype=self.dtype)
        conv = partial(ConvNorm, use_bias=False, norm=self.norm, **context)
        wide, y = channels * self.expansion, x
        if self.expansion > 1:
            y = conv(wide, 1, 1, act=nn.silu, name="expand")(y, train)
        y = conv(
            wide, k, self.stride, _padding(self.padding, k), depthwise=True, act=nn.silu,
            name="depthwise",
        )(y, train)  # fmt: skip
        y = SqueezeExcite(max(1, channels // 4), nn.silu, **context, name="se")(y)
        y = conv(self.width, 1, 1, name="project")(y, train)
        if self.stride > 1 or channels != self.width:
            return y
        if train and self.drop_path_rate:
            y = drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
        return x + y


def _padding(name: str, kernel_size: int) -> int | str:
    return "SAME" if name == "same" else kernel_size // 2


class MBConvStage(nn.Module):
    """Inverted bottlenecks of one width, of which the first has the stride.

    Attributes:
      block: everything of `MBConv` but stride and drop path rate.
      drop_path_rate: one rate per block.
      remat: recompute blocks in the backward pass.
    """

    block: Spec
    stride: int
    drop_path_rate: tuple[float, ...]
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        """Apply the bottlenecks in order."""
        factory = nn.remat(MBConv, static_argnums=(2,)) if self.remat else MBConv
        for i, rate in enumerate(self.drop_path_rate):
            options: Any = dict(self.block.kwargs)
            stride = 1 if i else self.stride
            block = factory(stride=stride, drop_path_rate=rate, **options, name=f"block_{i}")
            x = block(x, train)
        return x


class EfficientNet(nn.Module):
    """Stem, seven stages, a 1×1 convolution, mean over positions, dropout, head.

    Parameters are `stem`, `stage_{i}/block_{j}`, `top`, `head`.

    Attributes:
      width_factor: multiplies the widths of table 1, see `scale_width`.
      depth_factor: multiplies the depths, which are rounded up.
      padding: "same" as TensorFlow does, an odd zero at the right or bottom; or "symmetric".
      norm_epsilon: of BatchNorm.
      image_size: side of the images that the size is for; others work as well.
      drop_rate: dropout before the classifier.
      drop_path_rate: stochastic depth of block i of N is this · i / N.
      remat: recompute blocks in the backward pass.
    """

    width_factor: float = 1.0
    depth_factor: float = 1.0
    padding: str = "same"
    norm_epsilon: float = 1e-3
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    drop_rate: float = 0.2
    drop_path_rate: float = 0.2
    remat: bool = False
    param_init: Init = INIT
    decay_rules: DecayRules = DECAY
    dtype: Any = None

    def __post_init__(self) -> None:
        check_choice("padding", self.padding, ("same", "symmetric"))
        super().__post_init__()

    def setup(self) -> None:
        context: Any = dict(param_init=self.param_init, dtype=self.dtype)
        norm = batch_norm(self.norm_epsilon, momentum=0.99)
        conv = partial(ConvNorm, use_bias=False, norm=norm, act=nn.silu, **context)
        self.stem = conv(scale_width(32, self.width_factor), 3, 2, _padding(self.padding, 3))
        depths = [math.ceil(depth * self.depth_factor) for _, depth, *_ in STAGES]
        rates = [self.drop_path_rate * i / sum(depths) for i in range(sum(depths))]
        stages = []
        for i, (width, _, kernel_size, stride, expansion) in enumerate(STAGES):
            block = spec(
                MBConv, width=scale_width(width, self.width_factor), kernel_size=kernel_size,
                expansion=expansion, padding=self.padding, norm=norm, **context,
            )  # fmt: skip
            begin = sum(depths[:i])
            own = tuple(rates[begin : begin + depths[i]])
            stages.append(MBConvStage(block, stride, own, self.remat, name=f"stage_{i}"))
        self.stages = stages
        self.top = conv(scale_width(1280, self.width_factor), 1, 1)
        self.drop = nn.Dropout(self.drop_rate)
        if self.num_classes:
            init = self.param_init.of_head(self.top.width, self.num_classes)
            self.head = nn.Dense(self.num_classes, **init, dtype=self.dtype)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        return 4, 8, 16, 32

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B _ _ _"], ...]:
        """Compute the last map of each of the strides 4, 8, 16 and 32."""
        x, maps = self.stem(images.astype(self.dtype or images.dtype), train), []
        for stage in self.stages:
            x = stage(x, train)
            maps.append(x)
        return tuple(maps[i] for i in LAST_OF_STRIDE)

    def head_features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> Float[Array, "B h w C"]:
        """Compute the last map, which the head reads averaged over positions."""
        return self.top(self.features(images, train)[-1], train)

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or pooled features if `num_classes` is 0."""
        x = jnp.mean(self.head_features(images, train), axis=(1, 2))
        return self.head(self.drop(x, deterministic=not train)) if self.num_classes else x


def _preprocessing(size: int) -> Preprocessing:
    return Preprocessing(
        **IMAGENET,
        crop=size / (size + 32),
        interpolation="bicubic",
        source="tensorflow/tpu, models/official/efficientnet/preprocessing.py",
    )


FAMILY = Family(
    models={f"efficientnet_{v}": spec(EfficientNet, **kw) for v, kw in VARIANTS.items()},
    weights={EfficientNet: "efficientnet"},
    paper=("[EfficientNet](https://arxiv.org/abs/1905.11946), L2: "
        "[Noisy Student](https://arxiv.org/abs/1911.04252)"),
    code="tensorflow/tpu, Apache-2.0",
    source=("EfficientNet paper, table 2 of its last version (the first gives 76.3 to 84.4 %); "
        "L2: Noisy Student paper, table 2"),
    golden="b0 with either padding: logits, stages, gradients; parameters of all",
    published={
        "efficientnet_b0": (5.3, 0.39, 77.1, ""), "efficientnet_b1": (7.8, 0.7, 79.1, ""),
        "efficientnet_b2": (9.2, 1.0, 80.1, ""), "efficientnet_b3": (12, 1.8, 81.6, ""),
        "efficientnet_b4": (19, 4.2, 82.9, ""), "efficientnet_b5": (30, 9.9, 83.6, ""),
        "efficientnet_b6": (43, 19, 84.0, ""), "efficientnet_b7": (66, 37, 84.3, ""),
        "efficientnet_l2": (480, None, 88.4, "JFT-300M's images unlabelled; at 800 pixels"),
    },
    preprocessing={
        **{f"efficientnet_{v}": _preprocessing(size) for v, (_, _, size, _) in _FACTORS.items()},
        "*": _preprocessing(224),
    },
)  # fmt: skip
