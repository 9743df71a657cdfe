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

from typing import Any

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.attention.class_attention import ClassAttention
from vitjax.attention.outlook import OutlookAttention
from vitjax.layers.drop_path import drop_path_schedule
from vitjax.layers.init import NORMAL
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.spec import Spec, spec
from vitjax.models.pyramid import Block
from vitjax.models.volo_parts import VOLO, ClassBlock, Stem, Transition

_D2 = dict(dims=(256, 512, 512, 512), num_heads=(8, 16, 16, 16))
_D4 = dict(dims=(384, 768, 768, 768), num_heads=(12, 16, 16, 16))
VARIANTS = {
    "d1": dict(
        dims=(192, 384, 384, 384), num_heads=(6, 12, 12, 12), depths=(4, 4, 8, 2),
        drop_path_rate=0.1,
    ),
    "d2": dict(_D2, depths=(6, 4, 10, 4), drop_path_rate=0.2),
    "d3": dict(_D2, depths=(8, 8, 16, 4), drop_path_rate=0.5),
    "d4": dict(_D4, depths=(8, 8, 16, 4), drop_path_rate=0.5),
    "d5": dict(_D4, depths=(12, 12, 20, 4), drop_path_rate=0.75, mlp_ratio=4.0, stem_width=128),
}  # fmt: skip
INIT = NORMAL
"""As the authors' code draws them (sail-sg/volo, models/volo.py)."""


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
    """A VOLO: outlookers on a fine map, transformer blocks on one of half its size, class blocks.

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
    """Rows and columns of the one position table, at the stage where it is added; None elsewhere.

    That is the first stage with two of the official code's steps (stages and halvings) before it.
    """
    where = 1 if halve[1] else 2
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    factor = 2 ** sum(halve[: where + 1])
    rows, columns = (max(1, -(-side // 2) // (patch_size // 2) // factor) for side in sides)
    return tuple((rows, columns) if i == where else None for i in range(len(halve)))
