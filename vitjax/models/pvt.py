"""Pyramid Vision Transformer (PVT; Wang et al., arXiv:2102.12122).

New there: a transformer as a pyramid of four stages, and attention whose keys and values come from
a spatially reduced map, so that the fine stages are affordable.

Where the paper's text is silent, the official code decides: a class token joins in the last stage
only; the norms after a patch embedding and after a reduction have epsilon 1e-5, the others 1e-6;
patches that the map fills in part only are dropped. Position tables are interpolated bilinearly,
without antialiasing. Dense prediction has no class token there, and so `features` has none.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import Mixers, fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.position import resize_positions
from vitjax.layers.spec import Spec, fields, spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import KERNELS, Block, Pyramid

_WIDTHS = dict(dims=(64, 128, 320, 512), num_heads=(1, 2, 5, 8), mlp_ratio=(8.0, 8.0, 4.0, 4.0))
VARIANTS = {
    "tiny": dict(_WIDTHS, depths=(2, 2, 2, 2), drop_path_rate=0.1),
    "small": dict(_WIDTHS, depths=(3, 4, 6, 3), drop_path_rate=0.1),
    "medium": dict(_WIDTHS, depths=(3, 4, 18, 3), drop_path_rate=0.3),
    "large": dict(_WIDTHS, depths=(3, 8, 27, 3), drop_path_rate=0.3),
}
INIT = NORMAL
"""As the authors' code draws them (whai362/PVT, classification/pvt.py)."""
DECAY = ((".*/pos_embed", 1.0), *KERNELS)
"""The authors' code exempts positions by a name that its four tables do not have."""


class PatchPosition(nn.Module):
    """First layers of a stage: patches of the map before (`patch`), learned positions, dropout.

    Attributes:
      grid: rows and columns of the position table; other maps interpolate it.
      class_token: a class token and its position, the table's first, for `prepend`.
    """

    width: int
    patch_size: int
    grid: tuple[int, int]
    class_token: bool = False
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    def setup(self) -> None:
        p, rows = self.patch_size, math.prod(self.grid) + self.class_token
        self.patch = ConvNorm(
            self.width, p, p, keep_partial=False, norm=layer_norm(1e-5),
            param_init=self.param_init, dtype=self.dtype,
        )  # fmt: skip
        self.pos_embed = self.param("pos_embed", self.param_init.table, (1, rows, self.width))
        if self.class_token:
            self.cls_token = self.param("cls_token", self.param_init.token, (1, 1, self.width))
        self.drop = nn.Dropout(self.drop_rate)

    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        x = self.patch(x, train)
        table = resize_positions(
            jnp.asarray(self.pos_embed)[:, int(self.class_token) :],
            (x.shape[1], x.shape[2]),
            num_prefix=0,
            source_grid=self.grid,
            method="bilinear",
            antialias=False,
        )
        x = x + table.reshape(1, *x.shape[1:]).astype(x.dtype)
        return self.drop(x, deterministic=not train)

    def prepend(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B N C"]:
        """Flatten the map to a sequence and prepend the class token."""
        token = (self.cls_token + self.pos_embed[:, :1]).astype(x.dtype)
        token = jnp.broadcast_to(token, (x.shape[0], 1, self.width))
        token = self.drop(token, deterministic=not train)
        return jnp.concatenate([token, x.reshape(x.shape[0], -1, self.width)], axis=1)


class PVT(Pyramid):
    """A pyramid whose last stage reads a class token too, and whose head reads that token."""

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or the class token if `num_classes` is 0."""
        x = images.astype(self.dtype or images.dtype)
        for resize, stage in zip(self.resizes[:-1], self.stages[:-1], strict=True):
            x = stage(resize(x, train), train)
        entry = self.resizes[-1]
        x = self.stages[-1](entry.prepend(entry(x, train), train), train)
        x = jnp.squeeze(self.final_norm(x)[:, :1], axis=1)
        return self.head(x) if self.num_classes else x


def pvt(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    mlp_ratio: float | tuple[float, ...] = (8.0, 8.0, 4.0, 4.0),
    sr_ratio: int | tuple[int, ...] | None = None,
    qkv_bias: bool = True,
    scale: float | None = None,
    patch_size: int = 4,
    pool: str = "token",
    mixer: str = "sra",
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
    """Build a PVT: patches, positions and blocks of spatial-reduction attention in each stage.

    Args:
      sr_ratio: reduction of each stage; None leaves it to the mixer, whose default is 8, 4, 2, 1.
      scale: of the attention logits; 1/√head_dim if None.
      patch_size: of the first stage; later ones halve the map.
      pool: "token", as published; the last stage then is a sequence, for mixers that take one.
        "gap" has no class token and averages the last map: for every mixer.
      image_size: that of the position tables.
      drop_rate: dropout after the positions, of each mixer's output and in the MLPs.
      dense: for dense heads: no class token, whatever `pool` says, as in the authors' segmentation
        code. The maps have no norm, there as here.

    Raises:
      ValueError: pool is neither.
    """
    if pool not in ("token", "gap"):
        raise ValueError(f"pool={pool!r}: a PVT has 'token' or 'gap'.")
    token, last = pool == "token" and not dense, len(dims) - 1
    entry = spec(
        PatchPosition,
        patch_size=(patch_size,) + (2,) * last,
        drop_rate=drop_rate,
        grid=position_grids(image_size, patch_size, len(dims)),
        class_token=(False,) * last + (token,),
    )
    mixers = fill_mixers(
        reduce_mixers(parse_mixers(mixer, len(dims)), sr_ratio),
        qkv_bias=qkv_bias,
        scale=scale,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
    )
    mlps = tuple(
        spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate).at(i) for i in range(len(dims))
    )
    return (PVT if token else Pyramid)(
        dims=dims, depths=depths, num_heads=num_heads, mixers=mixers, stem=entry,
        stem_stride=patch_size, downsample=entry, block=spec(Block, mlp=mlps),
        num_classes=num_classes, image_size=image_size, drop_path_rate=drop_path_rate, remat=remat,
        scan=scan, param_init=INIT, decay_rules=DECAY, dtype=dtype,
    )  # fmt: skip


def position_grids(
    image_size: int | tuple[int, int], patch_size: int, num_stages: int
) -> tuple[tuple[int, int], ...]:
    """Compute the rows and columns of each stage's map for an image of this size."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    sides = [patch_size * 2**i for i in range(num_stages)]
    return tuple((max(1, height // s), max(1, width // s)) for s in sides)


def reduce_mixers(mixers: Mixers, sr_ratio: int | Sequence[int] | None) -> Mixers:
    """Replace each mixer's reduction, where it has one and `sr_ratio` is given."""
    ratios = [sr_ratio] * len(mixers) if sr_ratio is None or isinstance(sr_ratio, int) else sr_ratio

    def reduce(mixer: Spec, ratio: int | None) -> Spec:
        known = ratio is not None and "sr_ratio" in fields(mixer.factory)
        return mixer.replace(sr_ratio=ratio) if known else mixer

    return tuple(
        tuple(reduce(m, ratio) for m in stage) for stage, ratio in zip(mixers, ratios, strict=True)
    )


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="whai362/PVT, classification/datasets.py",
)

FAMILY = Family(
    models={f"pvt_{v}": spec(pvt, **kw) for v, kw in VARIANTS.items()},
    weights={pvt: "pvt"},
    paper="[PVT](https://arxiv.org/abs/2102.12122)",
    code="whai362/PVT, Apache-2.0",
    source="the repository's README",
    golden="tiny: logits, stages, gradients",
    published={
        "pvt_tiny": (13.2, 1.9, 75.1, ""),
        "pvt_small": (24.5, 3.8, 79.8, ""),
        "pvt_medium": (44.2, 6.7, 81.2, ""),
        "pvt_large": (61.4, 9.8, 81.7, ""),
    },
    preprocessing={"*": PREPROCESSING},
)
