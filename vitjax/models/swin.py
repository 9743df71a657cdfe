"""Swin Transformer (Liu et al., arXiv:2103.14030).

New there: attention inside windows, whose cost is linear in the image's size, with a grid of
windows that moves by half a window in every other block so that windows exchange information; and
a pyramid of maps of strides 4 to 32 from a transformer.

The paper does not say that its classification code shrinks a window to a map that is smaller, and
then does not shift it. `image_size` decides on both here. An image of another size is padded to
whole windows, and always shifted, as in the authors' segmentation code. Their mask subtracts 100
from a logit; here what is masked has no weight. Positions are none but the relative bias, unless
`absolute_position`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm, PatchMerging
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.position import resize_positions
from vitjax.layers.spec import Spec, spec
from vitjax.models.family import I21K, Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid

_SIZES = {
    "tiny": dict(dims=(96, 192, 384, 768), depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "small": dict(dims=(96, 192, 384, 768), depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(dims=(128, 256, 512, 1024), depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    "large": dict(dims=(192, 384, 768, 1536), depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}
_DROP_PATH = {"tiny": 0.2, "small": 0.3, "base": 0.5, "large": 0.2}
SIZES = {size: {**kw, "drop_path_rate": _DROP_PATH[size]} for size, kw in _SIZES.items()}
"""Those of both versions."""
VARIANTS = {
    **SIZES,
    "base_384": dict(SIZES["base"], window_size=12, image_size=384),
    "large_384": dict(SIZES["large"], window_size=12, image_size=384),
}
INIT = NORMAL
"""As the authors' code draws them (microsoft/Swin-Transformer, models/swin_transformer.py)."""


class SwinStem(nn.Module):
    """Patches (`embed`), optionally their absolute positions, dropout.

    Attributes:
      patch_frames: frames of a patch of clips; 0 for images.
      map_size: rows and columns of the position table, which other maps interpolate; None for no
        positions.
    """

    width: int
    patch_size: int = 4
    norm: Spec | None = layer_norm(1e-5)
    map_size: tuple[int, int] | None = None
    drop_rate: float = 0.0
    patch_frames: int = 0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S c"], train: bool = False) -> Float[Array, "B *s C"]:
        p = self.patch_size
        patch = (self.patch_frames, p, p) if self.patch_frames else p
        embed = ConvNorm(
            self.width,
            patch,
            patch,
            norm=self.norm,
            param_init=self.param_init,
            dtype=self.dtype,
            name="embed",
        )
        x = embed(x, train)
        if self.map_size:
            rows, columns = self.map_size
            shape = (1, rows * columns, self.width)
            table = jnp.asarray(self.param("absolute_position", self.param_init.table, shape))
            table = resize_positions(
                table, (x.shape[1], x.shape[2]), num_prefix=0, source_grid=(rows, columns)
            )
            x += table.reshape(1, *x.shape[1:]).astype(x.dtype)
        return nn.Dropout(self.drop_rate, deterministic=not train)(x)


def swin(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    window_size: int | tuple[int, ...] = 7,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    scale: float | None = None,
    patch_size: int = 4,
    patch_norm: bool = True,
    absolute_position: bool = False,
    mixer: str = "window | window(shift='half')",
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.1,
    remat: bool = False,
    scan: bool = False,
    dense: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a Swin Transformer: pre-norm blocks of window attention, patch merging between stages.

    Args:
      window_size: pixels of each stage's map, where `image_size` leaves as many.
      scale: of the attention logits; 1/√head_dim if None.
      patch_norm: a norm after the patch embedding.
      absolute_position: a learned embedding is added to the patches.
      drop_rate: dropout of the patches, and of what mixers and MLPs give.
      dense: for dense heads: each map has a norm of its own, and windows neither shrink nor stop
        moving on small maps, as in the authors' segmentation code.
    """
    geometry = window_geometry(image_size, patch_size, window_size, len(depths))
    options = dict(
        qkv_bias=qkv_bias, scale=scale, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate
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
    return Pyramid(
        dims=dims, depths=depths, num_heads=num_heads,
        mixers=fill_mixers(parse_mixers(mixer, len(depths)), **geometry, **options),
        stem=stem, stem_stride=patch_size, downsample=spec(PatchMerging), norm=norm,
        block=spec(Block, norm=norm, mlp=spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate)),
        feature_norm=norm if dense else None,
        num_classes=num_classes, image_size=image_size, drop_path_rate=drop_path_rate,
        remat=remat, scan=scan, param_init=INIT, dtype=dtype,
    )  # fmt: skip


def window_geometry(
    image_size: int | tuple[int, int], patch_size: int, window_size: int | tuple[int, ...], num: int
) -> dict[str, tuple[Any, ...]]:
    """Compute `map_size` and `window_size` of each of `num` stages.

    A window is no longer than its map.

    Raises:
      ValueError: another number of windows than stages.
    """
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    windows = (window_size,) * num if isinstance(window_size, int) else window_size
    if len(windows) != num:
        raise ValueError(
            f"window_size={window_size} gives {len(windows)} windows, and the model has {num} "
            f"stages; give one for all, or one for each."
        )
    strides = [patch_size * 2**i for i in range(num)]
    maps = tuple((-(-height // s), -(-width // s)) for s in strides)
    return dict(
        map_size=maps, window_size=tuple(min(w, *m) for w, m in zip(windows, maps, strict=True))
    )


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    large_crop=0.0,
    source="microsoft/Swin-Transformer, data/build.py and configs/swin",
)

FAMILY = Family(
    models={f"swin_{v}": spec(swin, **kw) for v, kw in VARIANTS.items()},
    weights={swin: "swin"},
    paper="[Swin](https://arxiv.org/abs/2103.14030)",
    code="microsoft/Swin-Transformer, MIT",
    source="the repository's README",
    golden="tiny: logits, stages, gradients",
    published={
        "swin_tiny": (28, 4.5, 81.2, ""),
        "swin_small": (50, 8.7, 83.2, ""),
        "swin_base": (88, 15.4, 83.5, ""),
        "swin_base_384": (88, 47.1, 84.5, ""),
        "swin_large": (197, 34.5, 86.3, I21K),
        "swin_large_384": (197, 103.9, 87.3, I21K),
    },
    preprocessing={"*": PREPROCESSING},
)
