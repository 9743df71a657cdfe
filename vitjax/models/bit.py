"""BiT: Big Transfer, General Visual Representation Learning (Kolesnikov et al., arXiv:1912.11370).

New there: a wide ResNet-v2 with GroupNorm and weight standardisation instead of BatchNorm, trained
at scale and fine-tuned with one simple rule. It is what the ViT paper compares with.

The authors' weight standardisation adds 1e-10 to the variance, the PyTorch conversions, and this
file, 1e-8.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.spec import spec
from vitjax.models.family import JFT, Family
from vitjax.models.preprocessing import HALF, Preprocessing
from vitjax.models.resnet import ResNet, group_norm

VARIANTS = {
    "r50x1": dict(depths=(3, 4, 6, 3), width_factor=1),
    "r50x3": dict(depths=(3, 4, 6, 3), width_factor=3),
    "r101x1": dict(depths=(3, 4, 23, 3), width_factor=1),
    "r101x3": dict(depths=(3, 4, 23, 3), width_factor=3),
    "r152x2": dict(depths=(3, 8, 36, 3), width_factor=2),
    "r152x4": dict(depths=(3, 8, 36, 3), width_factor=4),
}


class BiT(nn.Module):
    """Pre-activation ResNet, norm, mean over positions, head.

    Attributes:
      depths: bottlenecks of each stage.
      width_factor: multiplies all widths.
      image_size: side of the images that parameters are initialised with; others work as well.
      remat: recompute bottlenecks in the backward pass.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width_factor: int = 1
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    remat: bool = False
    dtype: Any = None

    def setup(self) -> None:
        self.backbone = ResNet(
            self.depths, self.width_factor, pre_act=True, remat=self.remat, dtype=self.dtype
        )
        self.norm = group_norm("norm", self.dtype)
        if self.num_classes:
            self.head = nn.Dense(
                self.num_classes, kernel_init=nn.initializers.zeros, dtype=self.dtype
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        return tuple(4 << i for i in range(len(self.depths)))

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B _ _ _"], ...]:
        """Compute the maps after each stage, of strides 4, 8, 16 and 32."""
        return self.backbone(images.astype(self.dtype or images.dtype))

    def head_features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> Float[Array, "B h w C"]:
        """Compute the last map, which the head reads averaged over positions."""
        return nn.relu(self.norm(self.features(images, train)[-1]))

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or pooled features if `num_classes` is 0."""
        x = jnp.mean(self.head_features(images, train), axis=(1, 2))
        return self.head(x) if self.num_classes else x


PREPROCESSING = Preprocessing(
    **HALF,
    crop=0.875,
    interpolation="antialias",
    large_crop=1.0,
    source="timm's configurations of BiT",
)

FAMILY = Family(
    models={f"bit_{v}": spec(BiT, **kw) for v, kw in VARIANTS.items()},
    weights={BiT: "bit"},
    paper="[BiT](https://arxiv.org/abs/1912.11370)",
    code="google-research/big_transfer, Apache-2.0",
    source="BiT paper, table 1",
    golden="none: the block is compared with its formula",
    published={"bit_r152x4": (None, None, 87.54, JFT)},
    preprocessing={"*": PREPROCESSING},
)
