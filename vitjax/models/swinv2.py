"""Swin Transformer V2 (Liu et al., arXiv:2111.09883).

New there: norms after each branch instead of before it, and cosine similarity instead of dot
products, keep activations and attention small in large models; an MLP of log-spaced displacements
replaces the table of position biases, so that weights pass from one window size to another.

As in the code and not in the paper: norms of the branches start at zero, the position bias is
16 times a sigmoid, k has no bias, and the extra norm after every 6 blocks of the largest models is
absent. Windows and shifts are those of `vitjax.models.swin`; there is no segmentation code of this
version, and other image sizes are padded as in the first. The checkpoints of windows 16 and 24 that
were fine-tuned from ImageNet-22K need `pretrained_window_size=(12, 12, 12, 6)`, which the window 24
models have.
"""

from typing import Any

import flax.linen as nn

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import PatchMerging
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.spec import spec
from vitjax.models.family import I21K, Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import KERNELS, Block, Pyramid
from vitjax.models.swin import INIT, SIZES, SwinStem, window_geometry

_W24 = dict(window_size=24, image_size=384, pretrained_window_size=(12, 12, 12, 6))
VARIANTS = {
    **{f"{size}_w8": dict(kw, window_size=8) for size, kw in SIZES.items()},
    **{f"{size}_w16": dict(kw, window_size=16) for size, kw in SIZES.items()},
    **{f"{size}_w24": dict(SIZES[size], **_W24) for size in ("base", "large")},
}
DECAY = ((".*/cpb_fc[12]/kernel", 0.0), *KERNELS)
"""The MLP of the position bias does not decay (`no_weight_decay_keywords` of the authors' code)."""


def swinv2(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    window_size: int | tuple[int, ...] = 8,
    pretrained_window_size: int | tuple[int, ...] = 0,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    patch_size: int = 4,
    patch_norm: bool = True,
    absolute_position: bool = False,
    mixer: str = "window_cosine | window_cosine(shift='half')",
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 256,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.1,
    remat: bool = False,
    scan: bool = False,
    dense: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a Swin Transformer V2: post-norm blocks of cosine window attention, patch merging.

    Args:
      window_size: pixels of each stage's map, where `image_size` leaves as many.
      pretrained_window_size: windows of the model whose weights are fine-tuned; 0 for the same.
      qkv_bias: biases of q and v.
      patch_norm: a norm after the patch embedding.
      absolute_position: a learned embedding is added to the patches.
      drop_rate: dropout of the patches, and of what mixers and MLPs give.
      dense: as in `swin`.
    """
    geometry = window_geometry(image_size, patch_size, window_size, len(depths))
    options = dict(
        qkv_bias=qkv_bias,
        pretrained_window_size=pretrained_window_size,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
    )
    norm = layer_norm(1e-5)
    stem = spec(
        SwinStem,
        patch_size=patch_size,
        norm=norm if patch_norm else None,
        drop_rate=drop_rate,
        map_size=geometry["map_size"] if absolute_position else None,
    )
    if dense:
        geometry = dict(map_size=((0, 0),) * len(depths), window_size=window_size)
    block = spec(
        Block,
        norm=norm.replace(scale_init=nn.initializers.zeros),
        norm_place="after",
        mlp=spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate),
    )
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads,
        mixers=fill_mixers(parse_mixers(mixer, len(depths)), **geometry, **options),
        stem=stem, stem_stride=patch_size, downsample=spec(PatchMerging, post_norm=True),
        block=block, norm=norm, feature_norm=norm if dense else None,
        num_classes=num_classes, image_size=image_size,
        drop_path_rate=drop_path_rate, remat=remat, scan=scan, param_init=INIT, decay_rules=DECAY,
        dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    large_crop=0.0,
    source="microsoft/Swin-Transformer, data/build.py and configs/swinv2",
)

FAMILY = Family(
    models={f"swinv2_{v}": spec(swinv2, **kw) for v, kw in VARIANTS.items()},
    weights={swinv2: "swinv2"},
    paper="[Swin V2](https://arxiv.org/abs/2111.09883)",
    code="microsoft/Swin-Transformer, MIT",
    source="the paper, table 4 and appendix A",
    golden="tiny, window 8: logits, stages, gradients",
    published={
        "swinv2_tiny_w8": (28, 5.9, 81.8, ""),
        "swinv2_small_w8": (50, 11.5, 83.7, ""),
        "swinv2_base_w8": (88, 20.3, 84.2, ""),
        "swinv2_tiny_w16": (28, 6.6, 82.8, ""),
        "swinv2_small_w16": (50, 12.6, 84.1, ""),
        "swinv2_base_w16": (88, 21.8, 84.6, ""),
        "swinv2_large_w16": (197, 47.5, 86.9, I21K),
        "swinv2_base_w24": (88, 54.7, 87.1, I21K),
        "swinv2_large_w24": (197, 115.4, 87.6, I21K),
    },
    preprocessing={"*": PREPROCESSING},
)
