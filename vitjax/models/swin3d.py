"""Video Swin Transformer (Liu et al., arXiv:2106.13230).

New there: Swin's windows extend in time, and its weights, inflated along time, begin the training
on videos.

A clip `[B, T, H, W, 3]` is cut into patches of 2×4×4; patch merging halves rows and columns, never
frames. The paper does not say that the code shrinks windows on small clips in a way that changes
their position bias; see `window3d`. torchvision's code is the same but for its names.
"""

from typing import Any

from vitjax.attention import VIDEO_MIXERS, fill_mixers, parse_mixers
from vitjax.layers.downsample import PatchMerging
from vitjax.layers.init import NORMAL
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid
from vitjax.models.swin import SIZES, SwinStem

VARIANTS = {
    "tiny": dict(SIZES["tiny"], drop_path_rate=0.1),
    "small": dict(SIZES["small"], drop_path_rate=0.2),
    "base": dict(SIZES["base"], drop_path_rate=0.3),
}
INIT = NORMAL
"""As the authors' code draws them, without weights of images to begin with."""


def swin3d(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    window_size: int | tuple[int, ...] = 7,
    window_size_t: int | tuple[int, ...] = 8,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    scale: float | None = None,
    patch_size: int = 4,
    patch_frames: int = 2,
    patch_norm: bool = True,
    mixer: str = "window3d | window3d(shift='half')",
    num_classes: int = 400,
    num_frames: int = 32,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.1,
    remat: bool = False,
    scan: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a Video Swin: pre-norm blocks of 3-D window attention, merging of patches in space.

    Args:
      window_size, window_size_t: rows and columns, and frames, of a window after the patches.
      scale: of the attention logits; 1/√head_dim if None.
      patch_size, patch_frames: pixels of a patch's side, and its frames.
      patch_norm: a norm after the patch embedding.
      mixer: of VIDEO_MIXERS.
      num_frames: of its clips; others work too, as no parameter depends on it.
      drop_rate: dropout of the patches, and of what mixers and MLPs give.
    """
    options = dict(window_size=window_size, window_size_t=window_size_t, qkv_bias=qkv_bias,
                   scale=scale, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate)  # fmt: skip
    norm = layer_norm(1e-5)
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads,
        mixers=fill_mixers(parse_mixers(mixer, len(depths), VIDEO_MIXERS), **options),
        stem=spec(
            SwinStem, patch_size=patch_size, patch_frames=patch_frames, drop_rate=drop_rate,
            norm=norm if patch_norm else None,
        ),
        stem_stride=patch_size, downsample=spec(PatchMerging), norm=norm,
        block=spec(Block, norm=norm, mlp=spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate)),
        num_classes=num_classes, num_frames=num_frames, image_size=image_size,
        drop_path_rate=drop_path_rate, remat=remat, scan=scan, param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=1.0,
    interpolation="bilinear",
    source="arXiv:2106.13230, section 4.1: the short side at the size of the crops, 4×3 views",
)

FAMILY = Family(
    models={f"swin3d_{v}": spec(swin3d, **kw) for v, kw in VARIANTS.items()},
    weights={swin3d: "swin3d"},
    paper="[Video Swin](https://arxiv.org/abs/2106.13230)",
    code="SwinTransformer/Video-Swin-Transformer, Apache-2.0",
    source="the paper, table 1: top-1 on Kinetics-400, 4×3 views; multiply-adds of one view",
    golden="tiny, as torchvision has it: logits, stages, gradients",
    published={
        "swin3d_tiny": (28.2, 88, 78.8, "ImageNet-1k first"),
        "swin3d_small": (49.8, 166, 80.6, "ImageNet-1k first"),
        "swin3d_base": (88.1, 282, 80.6, "ImageNet-1k first"),
    },
    preprocessing={"*": PREPROCESSING},
    takes="clips",
)
