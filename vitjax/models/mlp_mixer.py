"""MLP-Mixer: An all-MLP Architecture for Vision (Tolstikhin et al., arXiv:2105.01601).

New there: no attention and no positions; one MLP mixes the patches of each channel, the next the
channels of each patch. The token-mixing MLP has weights for each patch: a model works at the image
size that it was made for alone, unless another mixer stands in (`mixer="full"`).

The authors' JAX code uses the tanh form of GELU; the published PyTorch conversions use the exact
one, and so does this file. It has neither dropout nor stochastic depth, with which the paper
pretrains (section 3).
"""

from typing import Any

from vitjax.layers.init import Init, all_zeros, lecun_normal
from vitjax.layers.spec import spec
from vitjax.models.family import I21K, JFT, Family
from vitjax.models.preprocessing import HALF, Preprocessing
from vitjax.models.vit import ViT

_S = dict(width=512, depth=8, num_heads=8)
_B = dict(width=768, depth=12, num_heads=12)
_L = dict(width=1024, depth=24, num_heads=16)
VARIANTS = {  # table 1; D_S is half the width, D_C four times it
    "s32": dict(_S, patch_size=32),
    "s16": dict(_S, patch_size=16),
    "b32": dict(_B, patch_size=32),
    "b16": dict(_B, patch_size=16),
    "l32": dict(_L, patch_size=32),
    "l16": dict(_L, patch_size=16),
    "h14": dict(width=1280, depth=32, num_heads=20, patch_size=14),
}
INIT = Init(dense=lecun_normal, conv=lecun_normal, head=all_zeros)
"""As the authors' code draws them (google-research/vision_transformer, models_mixer.py)."""


def mlp_mixer(
    *,
    width: int,
    depth: int,
    patch_size: int,
    num_heads: int = 8,
    mlp_ratio: float = 4.0,
    mixer: str = "token_mlp",
    qkv_bias: bool = True,
    qk_norm: bool = False,
    layers_of_features: tuple[int, ...] = (),
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    remat: bool = False,
    scan: bool = False,
    dtype: Any = None,
) -> ViT:
    """Build an MLP-Mixer: a ViT without class token and positions, with MLPs as token mixers.

    Args:
      mlp_ratio: hidden width of the channel-mixing MLP over width; that of the other is the
        mixer's: `mixer="token_mlp(token_ratio=0.25)"`.
      num_heads, qkv_bias, qk_norm, attn_drop_rate: of attention in the place of the token-mixing
        MLP.
      image_size: that of all images, with "token_mlp".

    The rest are `ViT`'s.
    """
    return ViT(
        width=width, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio, patch_size=patch_size,
        mixer=mixer, qkv_bias=qkv_bias, qk_norm=qk_norm, pool="gap", position="none",
        layers_of_features=layers_of_features, num_classes=num_classes, image_size=image_size,
        drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate,
        remat=remat, scan=scan, param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **HALF,
    crop=0.875,
    interpolation="bicubic",
    source="timm's configurations of the published Mixers",
)

FAMILY = Family(
    models={f"mixer_{v}": spec(mlp_mixer, **kw) for v, kw in VARIANTS.items()},
    weights={mlp_mixer: "mlp_mixer"},
    paper="[MLP-Mixer](https://arxiv.org/abs/2105.01601)",
    code="google-research/vision_transformer, Apache-2.0",
    source="the paper, tables 1 and 2 (parameters without a head; top-1 fine-tuned at 448 pixels)",
    golden="S/32 and B/16: logits, stages, gradients",
    published={
        "mixer_s32": (19, None, None, ""),
        "mixer_s16": (18, None, None, ""),
        "mixer_b32": (60, None, None, ""),
        "mixer_b16": (59, None, None, ""),
        "mixer_l32": (206, None, None, ""),
        "mixer_l16": (207, None, 84.15, I21K),
        "mixer_h14": (431, None, 87.94, JFT),
    },
    preprocessing={"*": PREPROCESSING},
)
