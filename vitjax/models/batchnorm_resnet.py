"""ResNet: Deep Residual Learning for Image Recognition (He et al., arXiv:1512.03385).

New there: blocks that learn what to add to their input, so that a hundred layers train.

These are the networks with bottlenecks in the form that PyTorch's libraries publish, called v1.5:
the 3×3 convolution has a block's stride, the paper's first 1×1 convolution had it.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init, fan_out_normal, torch_default
from vitjax.layers.norm import batch_norm
from vitjax.layers.spec import Spec, spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing

VARIANTS = {
    "50": dict(depths=(3, 4, 6, 3)),
    "101": dict(depths=(3, 4, 23, 3)),
    "152": dict(depths=(3, 8, 36, 3)),
}
INIT = Init(conv=fan_out_normal, head=torch_default)
"""Section 3.4, which cites arXiv:1502.01852; the classifier's as torchvision draws it."""


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution (`conv_{k}`) with a shortcut, a quarter of the width between
    them (figure 5); BatchNorm after each.

    Where shape changes, the shortcut is a normalised convolution (`shortcut`; section 3.3, B).

    Attributes:
      mixer: what this token mixer gives is added to the map before all (arXiv:1711.07971); None for
        none.
      epsilon: of BatchNorm.
    """

    width: int
    stride: int = 1
    mixer: Spec | None = None
    epsilon: float = 1e-5
    param_init: Init = INIT
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        how: dict[str, Any] = dict(use_bias=False, norm=batch_norm(self.epsilon))
        how |= dict(param_init=self.param_init, dtype=self.dtype)
        if self.mixer is not None:
            mixer = self.mixer.default(param_init=self.param_init, dtype=self.dtype)
            x = x + mixer.build(name="mixer")(x, train)
        inner = self.width // 4
        y = ConvNorm(inner, 1, 1, act=nn.relu, name="conv_0", **how)(x, train)
        y = ConvNorm(inner, 3, self.stride, 1, act=nn.relu, name="conv_1", **how)(y, train)
        y = ConvNorm(self.width, 1, 1, name="conv_2", **how)(y, train)
        if self.stride > 1 or x.shape[-1] != self.width:
            x = ConvNorm(self.width, 1, self.stride, name="shortcut", **how)(x, train)
        return nn.relu(x + y)


class ResidualStage(nn.Module):
    """`depth` bottlenecks (`block_{i}`), of which the first has the stride.

    Attributes:
      mixers: (i, token mixer of bottleneck i).
    """

    depth: int
    width: int
    stride: int
    remat: bool = False
    mixers: tuple[tuple[int, Spec], ...] = ()
    epsilon: float = 1e-5
    param_init: Init = INIT
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        factory = nn.remat(Bottleneck, static_argnums=(2,)) if self.remat else Bottleneck
        for i in range(self.depth):
            options = (self.width, 1 if i else self.stride, dict(self.mixers).get(i), self.epsilon)
            block = factory(*options, self.param_init, self.dtype, name=f"block_{i}")
            x = block(x, train)
        return x


class BatchNormResNet(nn.Module):
    """Convolution and pooling (`stem`), stages of bottlenecks (`stage_{i}`), mean over positions,
    `head`.

    Attributes:
      depths: bottlenecks of each stage, whose widths are 256, 512, ….
      frozen_statistics: BatchNorm takes its running statistics in training too, and does not change
        them: for fine-tuning with few images per step, as dense tasks are. Scales and biases train.
      epsilon: of BatchNorm.
      image_size: side of the images that parameters are initialised with; others work as well.
      remat: recompute bottlenecks in the backward pass.
      param_init: distributions of first weights.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    frozen_statistics: bool = False
    epsilon: float = 1e-5
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    remat: bool = False
    param_init: Init = INIT
    dtype: Any = None

    def setup(self) -> None:
        how: dict[str, Any] = dict(param_init=self.param_init, dtype=self.dtype)
        norm = batch_norm(self.epsilon)
        self.stem = ConvNorm(64, 7, 2, 3, use_bias=False, norm=norm, act=nn.relu, **how)
        self.stages = [
            ResidualStage(
                depth, 256 << i, 2 if i else 1, self.remat, self.mixers_of(i), self.epsilon, **how,
                name=f"stage_{i}",
            )
            for i, depth in enumerate(self.depths)
        ]  # fmt: skip
        if self.num_classes:
            init = self.param_init.of_head(128 << len(self.depths), self.num_classes)
            self.head = nn.Dense(self.num_classes, **init, dtype=self.dtype)

    def mixers_of(self, stage: int) -> tuple[tuple[int, Spec], ...]:
        """Give the token mixers of a stage's bottlenecks, see `ResidualStage`: none."""
        del stage
        return ()

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        return tuple(4 << i for i in range(len(self.depths)))

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B _ _ _"], ...]:
        """Compute the maps after each stage, of strides 4, 8, 16 and 32."""
        train = train and not self.frozen_statistics
        x = self.stem(images.astype(self.dtype or images.dtype), train)
        edges: Any = ((1, 1), (1, 1))  # which flax's annotation leaves out
        x, maps = nn.max_pool(x, (3, 3), (2, 2), edges), []
        for stage in self.stages:
            x = stage(x, train)
            maps.append(x)
        return tuple(maps)

    def head_features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> Float[Array, "B h w C"]:
        """Compute the last map, which the head reads averaged over positions."""
        return self.features(images, train)[-1]

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or pooled features if `num_classes` is 0."""
        x = jnp.mean(self.head_features(images, train), axis=(1, 2))
        return self.head(x) if self.num_classes else x


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="antialias",
    source="torchvision's transforms of the IMAGENET1K_V1 weights",
)

FAMILY = Family(
    models={f"resnet{v}": spec(BatchNormResNet, **kw) for v, kw in VARIANTS.items()},
    weights={BatchNormResNet: "batchnorm_resnet"},
    preprocessing={"*": PREPROCESSING},
    paper="[ResNet](https://arxiv.org/abs/1512.03385)",
    code="pytorch/vision, BSD-3-Clause",
    source="torchvision's table of IMAGENET1K_V1 weights",
    golden="50 within RefineNet: stages, gradients; a small one: logits",
    published={
        "resnet50": (25.557, 4.09, 76.13, ""),
        "resnet101": (44.549, 7.80, 77.374, ""),
        "resnet152": (60.193, 11.51, 78.312, ""),
    },
)
