"""R+ViT: the hybrids of the ViT paper (Dosovitskiy et al., arXiv:2010.11929, section 3.1) in the
sizes of How to Train Your ViT? (Steiner et al., arXiv:2106.10270).

New there: the patches are cut from the feature map of a ResNet instead of from the image.

A name's number is pixels per token, except that of `r_vit_ti16`, whose published weights have 32:
the root's stride 4 times patches of 8×8 of its map. The authors' weight standardisation divides by
the standard deviation + 1e-5; the PyTorch conversions, and this file, by √(variance + 1e-8).
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.init import Init
from vitjax.layers.maps import pad_to_multiple
from vitjax.layers.spec import spec
from vitjax.models import vit
from vitjax.models.encoder import VIT_INIT
from vitjax.models.family import Family
from vitjax.models.preprocessing import HALF, Preprocessing
from vitjax.models.resnet import ResNet, ResNetRoot
from vitjax.models.vit import ViT


class ResNetEmbed(nn.Module):
    """Tokens from the last map of a ResNet; the `stem` of a ViT.

    Any image fits: the ResNet's maps round up, and its last is zero-padded at the right and bottom
    to a multiple of the patches.

    Attributes:
      patch_size: pixels per token; the ResNet's stride or a multiple.
      depths: bottlenecks of each stage; none leaves the root alone.
      width_factor: multiplies the ResNet's widths.
    """

    width: int
    patch_size: int
    depths: tuple[int, ...]
    width_factor: int = 1
    param_init: Init = VIT_INIT
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "B H W c"]) -> Float[Array, "B h w C"]:
        stride = 4 * 2 ** max(len(self.depths) - 1, 0)
        patch, rest = divmod(self.patch_size, stride)
        if rest or not patch:
            raise ValueError(
                f"patch_size={self.patch_size}: the ResNet with stages {self.depths} has stride "
                f"{stride}, and a token covers a whole number of its pixels; choose a multiple of "
                f"{stride}."
            )
        if self.depths:
            factor = self.width_factor
            x = ResNet(self.depths, factor, dtype=self.dtype, name="backbone")(images)[-1]
        else:
            x = ResNetRoot(64 * self.width_factor, dtype=self.dtype, name="backbone")(images)
        x = pad_to_multiple(x, patch)
        strides, init = (patch, patch), self.param_init.conv(patch**2 * x.shape[-1], self.width)
        proj = nn.Conv(self.width, strides, strides, "VALID", **init, dtype=self.dtype, name="proj")
        return proj(x)


VARIANTS = {
    "r_vit_ti16": dict(stem=spec(ResNetEmbed, depths=()), patch_size=32, **vit.VARIANTS["ti"]),
    "r26_vit_s32": dict(
        stem=spec(ResNetEmbed, depths=(2, 2, 2, 2)), patch_size=32, **vit.VARIANTS["s"]
    ),
    "r50_vit_b16": dict(
        stem=spec(ResNetEmbed, depths=(3, 4, 9)), patch_size=16, **vit.VARIANTS["b"]
    ),
    "r50_vit_l32": dict(
        stem=spec(ResNetEmbed, depths=(3, 4, 6, 3)), patch_size=32, **vit.VARIANTS["l"]
    ),
}
"""Hyperparameters of a `ViT` each."""


PREPROCESSING = Preprocessing(
    **HALF,
    crop=0.9,
    interpolation="bicubic",
    large_crop=1.0,
    source="timm's configurations of the published hybrids",
)

FAMILY = Family(
    models={name: spec(ViT, **kw) for name, kw in VARIANTS.items()},
    weights={ViT: "vit"},
    paper=(
        "[ViT](https://arxiv.org/abs/2010.11929), section 4.1, and "
        "[AugReg](https://arxiv.org/abs/2106.10270)"
    ),
    code="google-research/vision_transformer, Apache-2.0",
    source="AugReg, table 2",
    golden="`r_vit_ti16`, `r50_vit_b16`: logits, stages, gradients",
    published={
        "r_vit_ti16": (6.4, None, None, ""),
        "r26_vit_s32": (36.6, None, None, ""),
        "r50_vit_l32": (330.0, None, None, ""),
    },
    preprocessing={"*": PREPROCESSING},
)
