"""CaiT: Going deeper with Image Transformers (Touvron et al., arXiv:2103.17239).

New there: layer scale, by which deep transformers train; and class attention: patches first attend
to each other without a class token, which then reads them in two blocks of its own.

As in the authors' code (facebookresearch/deit, cait_models.py): attention between patches is
talking-heads attention; stochastic depth has one rate for all blocks and none for the class blocks.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.class_attention import ClassAttention
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.norm import layer_norm
from vitjax.layers.patch_embed import PatchEmbed, patch_grid
from vitjax.layers.position import resize_positions
from vitjax.layers.spec import spec
from vitjax.models.encoder import Encoder
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import ClassBlock

_XXS, _XS, _S = (dict(width=48 * h, num_heads=h) for h in (4, 6, 8))
_M = dict(width=768, num_heads=16, layer_scale_init=1e-6)
VARIANTS: dict[str, dict[str, Any]] = {  # table 3; layer scale by depth: section 2
    "xxs24": dict(_XXS, depth=24),
    "xxs36": dict(_XXS, depth=36),
    "xs24": dict(_XS, depth=24),
    "s24": dict(_S, depth=24),
    "s36": dict(_S, depth=36, layer_scale_init=1e-6),
    "m36": dict(_M, depth=36),
    "m48": dict(_M, depth=48),
}


class CaiT(Encoder):
    """Patches and positions, encoder, class blocks (`post_{i}`), norm, head on the class token.

    Attributes:
      class_depth: class blocks.
      image_size: (height, width), or a side, of the images that the position table is for; others
        interpolate it.

    The rest are `Encoder`'s; `drop_rate` is that of the positions too, and `drop_path_rate` the
    rate of every block. A call raises ValueError if the image does not divide into patches.
    """

    patch_size: int = 16
    class_depth: int = 2
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    mixer: str = "talking_heads"
    layer_scale_init: float | None = 1e-5
    param_init: Init = NORMAL

    def setup(self) -> None:
        super().setup()
        init = self.param_init
        how: Any = dict(param_init=init, dtype=self.dtype)
        self.patch_embed = PatchEmbed(self.width, self.patch_size, **how)
        rows, columns = patch_grid(self.image_size, self.patch_size)
        self.pos_embed = self.param("pos_embed", init.table, (1, rows * columns, self.width))
        self.cls_token = self.param("cls_token", init.token, (1, 1, self.width))
        self.drop = nn.Dropout(self.drop_rate)
        norm = layer_norm(self.norm_epsilon)
        attention = spec(
            ClassAttention,
            num_heads=self.num_heads,
            qkv_bias=self.qkv_bias,
            joined=False,
            attn_drop_rate=self.attn_drop_rate,
            drop_rate=self.drop_rate,
        )
        norm_in = norm.default(dtype=self.dtype)
        self.post = [
            ClassBlock(attention, self.mlp_part(), norm_in, self.layer_scale_init, **how)
            for _ in range(self.class_depth)
        ]
        self.norm = norm_in.build()
        if self.num_classes:
            head = init.of_head(self.width, self.num_classes)
            self.head = nn.Dense(self.num_classes, **head, dtype=self.dtype)

    def path_rates(self) -> tuple[float, ...]:
        """Return the rate of stochastic depth of each block: one for all."""
        return (self.drop_path_rate,) * self.depth

    @property
    def table_prefix(self) -> int:
        """Number of entries of the position table before those of the patches."""
        return 0

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of the map of `features`."""
        return (self.patch_size,)

    def patches(
        self, images: Float[Array, "B H W c"], train: bool
    ) -> tuple[Float[Array, "B N C"], tuple[int, int]]:
        """Encode the patches, without a class token; with the grid (h, w) that they are of."""
        x = self.patch_embed(images.astype(self.dtype or images.dtype))
        grid = (x.shape[1], x.shape[2])
        table = resize_positions(
            jnp.asarray(self.pos_embed),
            grid,
            num_prefix=0,
            source_grid=patch_grid(self.image_size, self.patch_size),
        )
        x = x.reshape(x.shape[0], -1, x.shape[-1]) + table.astype(x.dtype)
        return self.layers(self.drop(x, deterministic=not train), train), grid

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B h w C"], ...]:
        """Compute the map of the patches after the last block, normalised."""
        x, grid = self.patches(images, train)
        return (self.norm(x).reshape(x.shape[0], *grid, -1),)

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute the logits; with `num_classes=0` the vector that the head would read."""
        x, _ = self.patches(images, train)
        token = jnp.broadcast_to(jnp.asarray(self.cls_token, x.dtype), (x.shape[0], 1, self.width))
        x = jnp.concatenate([token, x], axis=1)
        for block in self.post:
            x = block(x, train)
        x = self.norm(x)[:, 0]
        return self.head(x) if self.num_classes else x


PREPROCESSING = Preprocessing(
    **IMAGENET, crop=1.0, interpolation="bicubic", source="facebookresearch/deit, cait_models.py"
)

FAMILY = Family(
    models={f"cait_{v}": spec(CaiT, **kw) for v, kw in VARIANTS.items()},
    weights={CaiT: "cait"},
    paper="[CaiT](https://arxiv.org/abs/2103.17239)",
    code="facebookresearch/deit, Apache-2.0",
    source="the repository's README_cait, distilled",
    golden="a small one, as timm computes it: logits, gradients; parameters of all",
    published={
        "cait_xs24": (27, None, 84.1, "at 384 pixels"),
        "cait_s24": (47, 9.4, 83.5, ""),
        "cait_s36": (68, None, 85.4, "at 384 pixels"),
        "cait_m36": (271, None, 86.1, "at 384 pixels"),
        "cait_m48": (356, None, 86.5, "at 448 pixels"),
    },
    preprocessing={"*": PREPROCESSING},
)
