"""GhostNet: More Features from Cheap Operations (Han et al., arXiv:1911.11907).

New there: a convolution computes half of the features, and a depthwise convolution of these the
other half, its ghosts (eq. 3 and 4, with s = 2 and d = 3). Bottlenecks of two such modules stand
in a convolutional network of MobileNetV3's shape.

The paper does not say that the gate of squeeze-and-excitation is the hard sigmoid, nor that a
shortcut that changes shape is a depthwise and a pointwise convolution.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.conv import depthwise_conv
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init, torch_default
from vitjax.layers.norm import batch_norm, normalize
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing

Stages = tuple[tuple[tuple[int, int, int, bool, int], ...], ...]
STAGES: Stages = (  # table 1: kernel, expansion, width, squeeze-and-excitation, stride
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    ((3, 200, 80, False, 1), (3, 184, 80, False, 1), (3, 184, 80, False, 1),
     (3, 480, 112, True, 1), (3, 672, 112, True, 1)),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1),
     (5, 960, 160, True, 1)),
)  # fmt: skip
VARIANTS = {"050": 0.5, "100": 1.0, "130": 1.3}
"""What multiplies all widths but that of the head."""
INIT = Init(dense=torch_default)
"""As the authors' code draws them (huawei-noah/Efficient-AI-Backbones, ghostnet_pytorch)."""


def rounded(width: float) -> int:
    """Round a width to a multiple of 4, at least 4 and at least nine tenths of the width."""
    nearest = max(4, int(width + 2) // 4 * 4)
    return nearest if nearest >= 0.9 * width else nearest + 4


class DepthwiseNorm(nn.Module):
    """A depthwise convolution without bias, BatchNorm, activation."""

    kernel_size: int
    stride: int = 1
    act: Callable[[Array], Array] | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B h w C"]:
        k, s = self.kernel_size, self.stride
        x = depthwise_conv(k, "conv", INIT, self.dtype, stride=s, use_bias=False)(x)
        x = normalize(batch_norm().build(dtype=self.dtype, name="norm"), x, train)
        return self.act(x) if self.act is not None else x


def pointwise(
    width: int, name: str | None, act: Callable[[Array], Array] | None, dtype: Any
) -> ConvNorm:
    """Build a 1×1 convolution without bias, BatchNorm, activation."""
    return ConvNorm(
        width, 1, 1, use_bias=False, norm=batch_norm(), act=act, param_init=INIT, dtype=dtype,
        name=name,
    )  # fmt: skip


class GhostModule(nn.Module):
    """Features by a 1×1 convolution (`primary`), behind them their ghosts by a depthwise 3×3 one
    (`cheap`); of an odd width the last ghost is left out.
    """

    width: int
    act: Callable[[Array], Array] | None = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B H W C"]:
        x = pointwise(-(-self.width // 2), "primary", self.act, self.dtype)(x, train)
        ghosts = DepthwiseNorm(3, act=self.act, dtype=self.dtype, name="cheap")(x, train)
        return jnp.concatenate([x, ghosts], axis=-1)[..., : self.width]


class SqueezeExcite(nn.Module):
    """Weigh each channel by a bottleneck of the map's mean (arXiv:1709.01507), a quarter wide,
    with the hard sigmoid (arXiv:1905.02244, section 5.2).
    """

    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        channels, hidden = x.shape[-1], rounded(x.shape[-1] / 4)
        y = jnp.mean(x, axis=(1, 2), keepdims=True)
        reduce, expand = (
            nn.Dense(width, **INIT.dense(fan_in, width), dtype=self.dtype, name=name)
            for width, fan_in, name in ((hidden, channels, "reduce"), (channels, hidden, "expand"))
        )
        return x * nn.hard_sigmoid(expand(nn.relu(reduce(y))))


class GhostBottleneck(nn.Module):
    """Two ghost modules, to `expansion` and to `width` channels, with a shortcut (figure 3).

    Between them stand a depthwise convolution, where the stride is 2, and squeeze-and-excitation.
    """

    kernel_size: int
    expansion: int
    width: int
    excite: bool
    stride: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        def depthwise(name: str) -> DepthwiseNorm:
            return DepthwiseNorm(self.kernel_size, self.stride, dtype=self.dtype, name=name)

        y = GhostModule(self.expansion, dtype=self.dtype, name="ghost1")(x, train)
        if self.stride > 1:
            y = depthwise("depthwise")(y, train)
        if self.excite:
            y = SqueezeExcite(self.dtype, name="excite")(y)
        y = GhostModule(self.width, None, self.dtype, name="ghost2")(y, train)
        if self.stride > 1 or x.shape[-1] != self.width:
            x = depthwise("shortcut_depthwise")(x, train)
            x = pointwise(self.width, "shortcut_pointwise", None, self.dtype)(x, train)
        return x + y


class GhostStage(nn.Module):
    """Bottlenecks `block_{j}`; `remat` recomputes them in the backward pass.

    Attributes:
      blocks: hyperparameters of each, in their order.
    """

    blocks: tuple[tuple[int, int, int, bool, int], ...]
    remat: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        factory = nn.remat(GhostBottleneck, static_argnums=(2,)) if self.remat else GhostBottleneck
        for j, options in enumerate(self.blocks):
            x = factory(*options, self.dtype, name=f"block_{j}")(x, train)
        return x


class GhostNet(nn.Module):
    """Stem of stride 2, bottlenecks, a pointwise convolution, mean over positions, hidden layer,
    head.

    Parameters are `stem`, `stage_{i}/block_{j}`, `neck`, `representation`, `head`.

    Attributes:
      width_factor: multiplies all widths but `hidden_width`, and is rounded to multiples of 4.
      stages: kernel, expansion, width, squeeze-and-excitation and stride of each bottleneck.
      hidden_width: of the layer between the mean and the head.
      image_size: side of the images that parameters are initialised with; others work as well.
      drop_rate: dropout before the head.
      remat: recompute bottlenecks in the backward pass.
    """

    width_factor: float = 1.0
    stages: Stages = STAGES
    hidden_width: int = 1280
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    drop_rate: float = 0.2
    remat: bool = False
    dtype: Any = None

    def setup(self) -> None:
        def width(base: int) -> int:
            return rounded(base * self.width_factor)

        norm = batch_norm()
        self.stem = ConvNorm(
            width(16), 3, 2, 1, use_bias=False, norm=norm, act=nn.relu, param_init=INIT,
            dtype=self.dtype,
        )  # fmt: skip
        self.groups = [
            GhostStage(
                tuple((k, width(e), width(c), se, s) for k, e, c, se, s in stage),
                self.remat,
                self.dtype,
                name=f"stage_{i}",
            )
            for i, stage in enumerate(self.stages)
        ]
        fan_in, hidden = width(self.stages[-1][-1][1]), self.hidden_width
        self.neck = pointwise(fan_in, None, nn.relu, self.dtype)
        self.representation = nn.Dense(hidden, **INIT.dense(fan_in, hidden), dtype=self.dtype)
        self.drop = nn.Dropout(self.drop_rate)
        if self.num_classes:
            init = INIT.of_head(hidden, self.num_classes)
            self.head = nn.Dense(self.num_classes, **init, dtype=self.dtype)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        halvings = sum(stride == 2 for stage in self.stages for *_, stride in stage)
        return tuple(4 << i for i in range(halvings))

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B _ _ _"], ...]:
        """Compute the last stage's map of each stride of 4 and more, finest first."""
        x, maps = self.stem(images.astype(self.dtype or images.dtype), train), {}
        stride = 2
        for stage, blocks in zip(self.groups, self.stages, strict=True):
            x = stage(x, train)
            for *_, factor in blocks:
                stride *= factor
            maps[stride] = x
        return tuple(x for stride, x in maps.items() if stride > 2)

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or the input of the head if `num_classes` is 0."""
        x = self.neck(self.features(images, train)[-1], train)
        x = nn.relu(self.representation(jnp.mean(x, axis=(1, 2))))
        x = self.drop(x, deterministic=not train)
        return self.head(x) if self.num_classes else x


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="timm's configurations of GhostNet",
)

FAMILY = Family(
    models={f"ghostnet_{v}": spec(GhostNet, width_factor=w) for v, w in VARIANTS.items()},
    weights={GhostNet: "ghostnet"},
    paper="[GhostNet](https://arxiv.org/abs/1911.11907)",
    code="huawei-noah/Efficient-AI-Backbones, Apache-2.0",
    source="the paper, table 7",
    golden="width 1.0: logits, stages, gradients",
    published={
        "ghostnet_050": (2.6, 0.042, 66.2, ""),
        "ghostnet_100": (5.2, 0.141, 73.9, ""),
        "ghostnet_130": (7.3, 0.226, 75.7, ""),
    },
    preprocessing={"*": PREPROCESSING},
)
