"""VOLO: Vision Outlooker (Yuan et al., arXiv:2106.13112).

New there: outlook attention, in which each position of a fine map predicts the attention weights of
its own 3×3 window without comparing queries to keys; token labels, which teach every token its own
class.

As the official code has it, and the paper does not say: the outlookers get no stochastic depth;
positions are added after the map is halved; logits are the class token's plus half the largest
of the tokens' own logits; the class token joins after the last stage, for class attention only.
Token labelling there mixes pairs of images after the stem (MixToken) in the training pass; here
`token_logits` gives a loss both kinds of logits, and is given how to mix.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.attention.class_attention import ClassAttention
from vitjax.attention.outlook import OutlookAttention
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.drop_path import drop_path_schedule
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import batch_norm, layer_norm
from vitjax.layers.position import resize_grid
from vitjax.layers.spec import Spec, spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, ClassBlock, Pyramid

_D2 = dict(dims=(256, 512, 512, 512), num_heads=(8, 16, 16, 16))
_D4 = dict(dims=(384, 768, 768, 768), num_heads=(12, 16, 16, 16))
VARIANTS = {
    "d1": dict(
        dims=(192, 384, 384, 384),
        num_heads=(6, 12, 12, 12),
        depths=(4, 4, 8, 2),
        drop_path_rate=0.1,
    ),
    "d2": dict(_D2, depths=(6, 4, 10, 4), drop_path_rate=0.2),
    "d3": dict(_D2, depths=(8, 8, 16, 4), drop_path_rate=0.5),
    "d4": dict(_D4, depths=(8, 8, 16, 4), drop_path_rate=0.5),
    "d5": dict(_D4, depths=(12, 12, 20, 4), drop_path_rate=0.75, mlp_ratio=4.0, stem_width=128),
}
INIT = NORMAL
"""As the authors' code draws them (sail-sg/volo, models/volo.py)."""


class Stem(nn.Module):
    """Three convolutions at half the image's resolution (`conv_{i}`), then patches (`proj`)."""

    width: int
    stem_width: int = 64
    patch_size: int = 8
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        for i, (kernel, stride) in enumerate(((7, 2), (3, 1), (3, 1))):
            x = ConvNorm(
                self.stem_width, kernel, stride, kernel // 2, use_bias=False, norm=batch_norm(),
                act=nn.relu, param_init=self.param_init, dtype=self.dtype, name=f"conv_{i}",
            )(x, train)  # fmt: skip
        p = self.patch_size // 2
        how: Any = dict(keep_partial=False, param_init=self.param_init, dtype=self.dtype)
        return ConvNorm(self.width, p, p, **how, name="proj")(x)


class Transition(nn.Module):
    """Layer between two stages: halving of the map (`proj`), positions, or nothing.

    Attributes:
      grid: rows and columns of the position table; other maps interpolate it. None for none.
    """

    width: int
    halve: bool
    grid: tuple[int, int] | None
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        if self.halve:
            how: Any = dict(keep_partial=False, param_init=self.param_init, dtype=self.dtype)
            x = ConvNorm(self.width, 2, 2, **how, name="proj")(x)
        if self.grid is None:
            return x
        table = self.param("pos_embed", self.param_init.table, (1, *self.grid, self.width))
        x = x + resize_grid(jnp.asarray(table)[0], (x.shape[1], x.shape[2])).astype(x.dtype)
        return nn.Dropout(self.drop_rate, deterministic=not train)(x)


class VOLO(Pyramid):
    """A pyramid, then class blocks (`post_{i}`) and two heads: the token's, and each patch's own.

    Attributes:
      class_blocks: one spec per block; without any there is no class token.
      token_label: the second head, `aux_head`.
      pool: "token", or "gap" for the mean of all tokens.
    """

    class_blocks: tuple[Spec, ...] = ()
    token_label: bool = True
    pool: str = "token"

    def setup(self) -> None:
        if self.class_blocks:
            self.cls_token = self.param("cls_token", self.param_init.token, (1, 1, self.dims[-1]))
        self.post = [
            block.build(param_init=self.param_init, dtype=self.dtype, name=f"post_{i}")
            for i, block in enumerate(self.class_blocks)
        ]
        if self.token_label and self.num_classes:
            init = self.param_init.of_head(self.dims[-1], self.num_classes)
            self.aux_head = nn.Dense(self.num_classes, **init, dtype=self.dtype)
        super().setup()

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        halve, patch = dict(self.downsample.kwargs)["halve"], dict(self.stem.kwargs)["patch_size"]
        return tuple(patch << sum(halve[: i + 1]) for i in range(len(self.dims)))

    def tokens(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B N C"]:
        """Compute the last map as a sequence, after the class blocks and the norm."""
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        if self.class_blocks:
            token = jnp.broadcast_to(self.cls_token.astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
            x = jnp.concatenate([token, x], axis=1)
        for block in self.post:
            x = block(x, train)
        return self.final_norm(x)

    def token_logits(
        self,
        images: Float[Array, "B H W c"],
        train: bool = False,
        mix: Callable[[Array], Array] = lambda x: x,
    ) -> tuple[Float[Array, "B K"], Float[Array, "B h w K"]]:
        """Compute logits of the class token and of every patch, for token labels (eq. 9).

        Raises ValueError if the model has no token labels.

        Args:
          mix: swaps tokens within pairs of images, after the stem, and back in the patches' logits.
        """
        if not (self.token_label and self.num_classes and self.class_blocks):
            raise ValueError(
                f"Token logits need the second head and a class token; this model has token_label="
                f"{self.token_label}, num_classes={self.num_classes} and {len(self.class_blocks)} "
                f"class blocks. Build it with token_label=True, classes and post_layers."
            )
        x = mix(self.resizes[0](images.astype(self.dtype or images.dtype), train))
        for i, stage in enumerate(self.stages):
            x = stage(self.resizes[i](x, train) if i else x, train)
        tokens = self.tokens(x, train)
        patches = self.aux_head(tokens[:, 1:]).reshape(*x.shape[:3], self.num_classes)
        return self.head(jnp.squeeze(tokens[:, :1], axis=1)), mix(patches)

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or the input of the head if `num_classes` is 0."""
        x = self.tokens(self.features(images, train)[-1], train)
        pooled = x.mean(axis=1) if self.pool == "gap" else jnp.squeeze(x[:, :1], axis=1)
        logits = self.head(pooled) if self.num_classes else pooled
        if self.num_classes and self.token_label:
            logits += 0.5 * jnp.max(self.aux_head(x[:, 1:]), axis=1)
        return logits


def volo(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    mlp_ratio: float | tuple[float, ...] = 3.0,
    stem_width: int = 64,
    patch_size: int = 8,
    downsample: tuple[bool, ...] = (True, False, False, False),
    kernel_size: int = 3,
    stride: int = 2,
    padding: int | None = None,
    qkv_bias: bool = False,
    scale: float | None = None,
    post_layers: tuple[str, ...] | None = ("ca", "ca"),
    token_label: bool = True,
    pool: str = "token",
    mixer: str = "outlook ; full ; full ; full",
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.1,
    remat: bool = False,
    scan: bool = False,
    dtype: Any = None,
) -> VOLO:
    """Build a VOLO: outlookers on a fine map, transformer blocks at half its size, class blocks.

    Args:
      patch_size: of the first map; the stem's convolutions are the first factor 2 of it.
      downsample: whether the map is halved after each stage.
      kernel_size, stride, padding: of the outlook windows; padding None is half the kernel.
      scale: of the attention logits; 1/√head_dim if None.
      post_layers: the class blocks, "ca" each; None for no class token: the first patch then takes
        its place, as in the official code, or their mean with `pool="gap"`.
      token_label: the head of the patches, whose largest logits count half; not with `pool="gap"`.
      mixer: the stages' pattern: which of them are outlookers is said here.
      image_size: that of the position table.
      drop_path_rate: stochastic depth of the last block; outlookers are counted and get none.

    Raises:
      ValueError: post_layers, pool and token_label do not fit.
    """
    if pool not in ("token", "gap") or (pool == "gap" and token_label):
        raise ValueError(
            f"pool={pool!r}, token_label={token_label}: a VOLO has pool='token', or pool='gap' "
            f"with token_label=False."
        )
    if set(post_layers or ("ca",)) != {"ca"}:
        raise ValueError(f"post_layers={post_layers!r}: class attention, 'ca', is what there is.")
    options: dict[str, Any] = dict(
        qkv_bias=qkv_bias, scale=scale, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate
    )
    window: dict[str, Any] = dict(kernel_size=kernel_size, stride=stride, padding=padding)
    mixers = fill_mixers(
        tuple(
            tuple(m.default(**window) if _outlooks(m) else m for m in stage)
            for stage in parse_mixers(mixer, len(dims))
        ),
        **options,
    )
    blocks = [s[j % len(s)] for s, depth in zip(mixers, depths, strict=True) for j in range(depth)]
    rates = drop_path_schedule(drop_path_rate, len(blocks))
    norm, mlp = layer_norm(1e-5), spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate)
    mlps = tuple(mlp.at(i) for i in range(len(dims)))
    attention = spec(ClassAttention, num_heads=num_heads[-1], **options)
    halve = (False, *downsample[:-1])
    return VOLO(
        dims=dims, depths=depths, num_heads=num_heads, mixers=mixers,
        stem=spec(Stem, stem_width=stem_width, patch_size=patch_size),
        downsample=spec(Transition, halve=halve, drop_rate=drop_rate,
                        grid=position_grids(image_size, patch_size, halve)),
        block=spec(Block, mlp=mlps, norm=norm), norm=norm, num_classes=num_classes,
        image_size=image_size, remat=remat, scan=scan, param_init=INIT, dtype=dtype,
        drop_path_rate=tuple(0.0 if _outlooks(m) else r for m, r in zip(blocks, rates)),
        class_blocks=(spec(ClassBlock, mixer=attention, mlp=mlps[-1], norm=norm),)
        * len(post_layers or ()),
        token_label=token_label, pool=pool,
    )  # fmt: skip


def _outlooks(mixer: Spec) -> bool:
    return mixer.factory is OutlookAttention


def position_grids(
    image_size: int | tuple[int, int], patch_size: int, halve: tuple[bool, ...]
) -> tuple[tuple[int, int] | None, ...]:
    """Compute rows and columns of the position table at the stage that adds it, None elsewhere.

    That is the first stage with two of the official code's steps (stages and halvings) before it.
    """
    where = 1 if halve[1] else 2
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    factor = 2 ** sum(halve[: where + 1])
    rows, columns = (max(1, -(-side // 2) // (patch_size // 2) // factor) for side in sides)
    return tuple((rows, columns) if i == where else None for i in range(len(halve)))


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.96,
    interpolation="bicubic",
    large_crop=1.0,
    source="sail-sg/volo, models/volo.py; from 384 pixels on, timm's configurations",
)

FAMILY = Family(
    models={f"volo_{v}": spec(volo, **kw) for v, kw in VARIANTS.items()},
    weights={volo: "volo"},
    paper="[VOLO](https://arxiv.org/abs/2106.13112)",
    code="sail-sg/volo, Apache-2.0",
    source="the repository's README; multiply-adds: the paper, table 1",
    golden="d1: logits, stages, gradients",
    published={
        "volo_d1": (27, 6.8, 84.2, ""),
        "volo_d2": (59, 14.1, 85.2, ""),
        "volo_d3": (86, 20.6, 85.4, ""),
        "volo_d4": (193, 43.8, 85.7, ""),
        "volo_d5": (296, 69.0, 86.1, ""),
    },
    preprocessing={
        "volo_d[45]": PREPROCESSING._replace(crop=1.15, large_crop=None),
        "*": PREPROCESSING,
    },
)
