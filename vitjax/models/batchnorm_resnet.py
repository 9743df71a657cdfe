"""ResNet: Deep Residual Learning for Image Recognition (He et al., arXiv:1512.03385).

New there: blocks that learn what to add to their input, so that a hundred layers train.

Bottlenecks are in the form that PyTorch's libraries publish, called v1.5: their 3×3 convolution
has a block's stride, the paper's first 1×1 convolution had it.
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
    "18": dict(depths=(2, 2, 2, 2), bottleneck=False),
    "34": dict(depths=(3, 4, 6, 3), bottleneck=False),
    "50": dict(depths=(3, 4, 6, 3)),
    "101": dict(depths=(3, 4, 23, 3)),
    "152": dict(depths=(3, 8, 36, 3)),
}
INIT = Init(conv=fan_out_normal, head=torch_default)
"""Section 3.4, which cites arXiv:1502.01852; the classifier's as torchvision draws it."""


class ResidualBlock(nn.Module):
    """Convolutions (`conv_{k}`) with a shortcut, BatchNorm after each (figure 5).

    They are 1×1, 3×3 and 1×1 with a quarter of the width between them, a bottleneck, or two of 3×3.
    Where shape changes, the shortcut is a normalised convolution (`shortcut`; section 3.3, B).

    Attributes:
      mixer: what this token mixer gives is added to the map before all (arXiv:1711.07971); None for
        none.
      epsilon: of BatchNorm.
    """

    width: int
    stride: int = 1
    bottleneck: bool = True
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
        convs = ((self.width, 3, self.stride), (self.width, 3, 1))
        if self.bottleneck:
            convs = ((inner, 1, 1), (inner, 3, self.stride), (self.width, 1, 1))
        y = x
        for k, (width, size, stride) in enumerate(convs):
            act = nn.relu if k < len(convs) - 1 else None
            y = ConvNorm(width, size, stride, size // 2, act=act, name=f"conv_{k}", **how)(y, train)
        if self.stride > 1 or x.shape[-1] != self.width:
            x = ConvNorm(self.width, 1, self.stride, name="shortcut", **how)(x, train)
        return nn.relu(x + y)


class ResidualStage(nn.Module):
    """`depth` blocks (`block_{i}`), of which the first has the stride.

    Attributes:
      mixers: (i, token mixer of block i).
    """

    depth: int
    width: int
    stride: int
    bottleneck: bool = True
    remat: bool = False
    mixers: tuple[tuple[int, Spec], ...] = ()
    epsilon: float = 1e-5
    param_init: Init = INIT
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        factory = nn.remat(ResidualBlock, static_argnums=(2,)) if self.remat else ResidualBlock
        for i in range(self.depth):
            block = factory(
                self.width, 1 if i else self.stride, self.bottleneck, dict(self.mixers).get(i),
                self.epsilon, self.param_init, self.dtype, name=f"block_{i}",
            )  # fmt: skip
            x = block(x, train)
        return x


class BatchNormResNet(nn.Module):
    """Convolution and pooling (`stem`), stages of blocks (`stage_{i}`), mean, `head`.

    Attributes:
      depths: blocks of each stage.
      width: of the stem and of the first stage, four times that with bottlenecks; each later stage
        is twice as wide.
      bottleneck: of blocks, see `ResidualBlock`.
      pool: max pooling of stride 2 follows the stem; without it the stem has the stride of both,
        which costs small networks of small images half as much.
      frozen_statistics: BatchNorm takes its running statistics in training too, and does not change
        them: for fine-tuning with few images per step, as dense tasks are. Scales and biases train.
      epsilon: of BatchNorm.
      image_size: side of the images that parameters are initialised with; others work as well.
      remat: recompute blocks in the backward pass.
      param_init: distributions of first weights.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    bottleneck: bool = True
    pool: bool = True
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
        self.stem = ConvNorm(
            self.width, 7, 2 if self.pool else 4, 3, use_bias=False, norm=norm, act=nn.relu, **how
        )
        self.stages = [
            ResidualStage(
                depth, self.width_of(i), 2 if i else 1, self.bottleneck, self.remat,
                self.mixers_of(i), self.epsilon, **how, name=f"stage_{i}",
            )
            for i, depth in enumerate(self.depths)
        ]  # fmt: skip
        if self.num_classes:
            init = self.param_init.of_head(self.width_of(len(self.depths) - 1), self.num_classes)
            self.head = nn.Dense(self.num_classes, **init, dtype=self.dtype)

    def width_of(self, stage: int) -> int:
        """Return the number of channels of a stage's map."""
        return (4 if self.bottleneck else 1) * self.width << stage

    def mixers_of(self, stage: int) -> tuple[tuple[int, Spec], ...]:
        """Give the token mixers of a stage's blocks, see `ResidualStage`: none."""
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
        if self.pool:
            edges: Any = ((1, 1), (1, 1))  # which flax's annotation leaves out
            x = nn.max_pool(x, (3, 3), (2, 2), edges)
        maps = []
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
    golden="50 within RefineNet: stages, gradients; a small one: logits; 18, 34: by hand",
    published={
        "resnet18": (11.690, 1.81, 69.758, ""),
        "resnet34": (21.798, 3.66, 73.314, ""),
        "resnet50": (25.557, 4.09, 76.13, ""),
        "resnet101": (44.549, 7.80, 77.374, ""),
        "resnet152": (60.193, 11.51, 78.312, ""),
    },
)
