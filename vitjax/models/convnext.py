"""ConvNeXt: A ConvNet for the 2020s (Liu et al., arXiv:2201.03545).

New there: a ResNet changed step by step towards a Swin Transformer. The result is a pyramid with
one kind of block: a large depthwise convolution, LayerNorm and an MLP on one branch
(`ConvNeXtMixer`).

In the authors' code the classifier reads the norm of the last map's mean, and not the mean of its
norm; rows and columns of a map beyond its last whole patch are dropped. Sizes below tiny are those
of timm.
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init, normal_02
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm, normalize
from vitjax.layers.spec import Spec, spec
from vitjax.models.family import I21K, Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid

VARIANTS: dict[str, dict[str, Any]] = {
    "atto": dict(dims=(40, 80, 160, 320), depths=(2, 2, 6, 2)),
    "femto": dict(dims=(48, 96, 192, 384), depths=(2, 2, 6, 2)),
    "pico": dict(dims=(64, 128, 256, 512), depths=(2, 2, 6, 2)),
    "nano": dict(dims=(80, 160, 320, 640), depths=(2, 2, 8, 2)),
    "tiny": dict(dims=(96, 192, 384, 768), depths=(3, 3, 9, 3), drop_path_rate=0.1),
    "small": dict(dims=(96, 192, 384, 768), depths=(3, 3, 27, 3), drop_path_rate=0.4),
    "base": dict(dims=(128, 256, 512, 1024), depths=(3, 3, 27, 3), drop_path_rate=0.5),
    "large": dict(dims=(192, 384, 768, 1536), depths=(3, 3, 27, 3), drop_path_rate=0.5),
    "xlarge": dict(dims=(256, 512, 1024, 2048), depths=(3, 3, 27, 3), drop_path_rate=0.2),
}
"""Section 3, with the stochastic depth of the authors' training from scratch (TRAINING.md of their
repository), on ImageNet-1k, XL on ImageNet-22k."""
INIT = Init(dense=normal_02, conv=normal_02)
"""As the authors' code draws them (facebookresearch/ConvNeXt, models/convnext.py)."""


class NormConv(nn.Module):
    """Downsampling by a norm (`norm`) and a convolution of 2×2 patches (`merge`), section 2.6."""

    width: int
    norm: Spec = layer_norm()
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        x = normalize(self.norm.default(dtype=self.dtype).build(name="norm"), x, train)
        merge = ConvNorm(
            self.width, 2, 2, keep_partial=False, param_init=self.param_init, dtype=self.dtype,
            name="merge",
        )  # fmt: skip
        return merge(x, train)


def convnext(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...] | None = None,
    window_size: int | tuple[int, ...] = 7,
    mlp_ratio: float = 4.0,
    mixer: str = "convnext",
    layer_scale_init: float | None = 1e-6,
    norm_pooled: bool = True,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    remat: bool = False,
    scan: bool = False,
    dense: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a ConvNeXt.

    Another mixer gets a block with norms and an MLP, as in a transformer.

    Args:
      num_heads: heads of mixers that have heads; None for heads of about 32 channels.
      window_size: kernel of the depthwise convolution, odd, or the window of window attention.
      norm_pooled: the classifier reads the norm of the last map's mean; False for the mean of its
        norm, as in timm's `convnext_tiny_hnf`.
      drop_rate: dropout of the outputs of mixers and MLPs.
      dense: for dense heads: a separate norm of each map that a head reads, but not of the next
        stage's input, as in the authors' segmentation code.
    """
    mlp, norm = spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate), layer_norm()
    options = dict(window_size=window_size, mlp=mlp, layer_scale_init=layer_scale_init,
                   drop_rate=drop_rate, attn_drop_rate=attn_drop_rate)  # fmt: skip
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads or tuple(max(1, d // 32) for d in dims),
        mixers=fill_mixers(parse_mixers(mixer, len(dims)), **options),
        stem=spec(ConvNorm, kernel_size=4, stride=4, keep_partial=False, norm=norm),
        downsample=spec(NormConv, norm=norm),
        block=spec(Block, mlp=mlp, norm=norm, layer_scale_init=layer_scale_init),
        norm=norm, norm_pooled=norm_pooled, feature_norm=norm if dense else None,
        num_classes=num_classes, image_size=image_size, drop_path_rate=drop_path_rate,
        remat=remat, scan=scan, param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    large_crop=0.0,
    source="facebookresearch/ConvNeXt, datasets.py",
)
_TIMM = Preprocessing(
    **IMAGENET, crop=0.875, interpolation="bicubic", source="timm's configurations of ConvNeXt"
)

FAMILY = Family(
    models={f"convnext_{v}": spec(convnext, **kw) for v, kw in VARIANTS.items()},
    weights={convnext: "convnext"},
    paper="[ConvNeXt](https://arxiv.org/abs/2201.03545)",
    code="facebookresearch/ConvNeXt, MIT; below tiny huggingface/pytorch-image-models, Apache-2.0",
    source="the repository's README",
    golden="timm's atto, and a small one of torchvision's: logits, stages, gradients",
    published={
        "convnext_tiny": (28, 4.5, 82.1, ""),
        "convnext_small": (50, 8.7, 83.1, ""),
        "convnext_base": (89, 15.4, 83.8, ""),
        "convnext_large": (198, 34.4, 84.3, ""),
        "convnext_xlarge": (350, 60.9, 87.0, I21K),
    },
    preprocessing={
        "convnext_nano": _TIMM._replace(crop=0.95),
        **{f"convnext_{v}": _TIMM for v in ("atto", "femto", "pico")},
        "*": PREPROCESSING,
    },
)
