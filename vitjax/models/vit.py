"""ViT: An Image is Worth 16x16 Words (Dosovitskiy et al., arXiv:2010.11929).

New there: an image is a sequence of patch embeddings, and a plain pre-norm transformer encoder
reads it. Sizes beyond Huge are those of Scaling Vision Transformers (Zhai et al., arXiv:2106.04560,
table 2).

The authors' JAX code uses the tanh form of GELU and an encoder dropout of 0.1; the published
PyTorch conversions use the exact GELU and none, and so does this file. `pool="gap"` with
`position="sincos2d"` is the plain ViT baseline (arXiv:2205.01580), `pool="map"` the attention
pooling of arXiv:2106.04560, registers are arXiv:2309.16588.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import takes_sequences
from vitjax.attention.attention_pool import AttentionPool
from vitjax.layers.norm import layer_norm
from vitjax.layers.patch_embed import PatchEmbed, patch_grid
from vitjax.layers.position import place_tokens, resize_positions, sincos_2d
from vitjax.layers.spec import Spec, spec
from vitjax.models.encoder import Encoder
from vitjax.models.family import I21K, Family
from vitjax.names import check_choice

VARIANTS = {
    "ti": dict(width=192, depth=12, num_heads=3),
    "s": dict(width=384, depth=12, num_heads=6),
    "b": dict(width=768, depth=12, num_heads=12),
    "l": dict(width=1024, depth=24, num_heads=16),
    "h": dict(width=1280, depth=32, num_heads=16),
    "g": dict(width=1408, depth=40, num_heads=16, mlp_ratio=6144 / 1408),
    "G": dict(width=1664, depth=48, num_heads=16, mlp_ratio=8192 / 1664),
}
PATCH_SIZES = {
    "ti": (16,), "s": (14, 16, 32), "b": (8, 14, 16, 32), "l": (14, 16, 32), "h": (14,),
    "g": (14,), "G": (14,),
}  # fmt: skip
"""Those with published results; a name with any other patch size works as well."""
REGISTERS = dict(num_registers=4, class_position=False)
"""What `_reg4` adds; as published, positions are then those of the patches alone."""


class ViT(Encoder):
    """Patches, class token and registers, positions, pre-norm encoder, pooling, head.

    Attributes:
      image_size: (height, width), or a side, of the images that the position table is for; others
        interpolate it.
      pool: "token" (a class token is prepended), "gap" (mean over patches) or "map" (attention
        pooling).
      position: "learned" (a table over the flattened patches) or "sincos2d" (fixed).
      class_position: the table has an entry for the class token too.
      num_registers: learned tokens after the class token, dropped at the end; without position
        unless `register_position`, which extends a table that has the class token's.
      representation_size: width of the pretraining head's hidden tanh layer; None for the
        fine-tuning head.
      stem: module from images to `[B, h, w, width]`.

    The rest are `Encoder`'s; `drop_rate` is that of the positions too. A call raises ValueError if
    the image does not divide into patches.
    """

    patch_size: int = 16
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    pool: str = "token"
    position: str = "learned"
    class_position: bool = True
    num_registers: int = 0
    register_position: bool = False
    representation_size: int | None = None
    stem: Spec = spec(PatchEmbed)

    def __post_init__(self) -> None:
        check_choice("pool", self.pool, ("token", "gap", "map"))
        check_choice("position", self.position, ("learned", "sincos2d"))
        super().__post_init__()

    def setup(self) -> None:
        super().setup()
        dtype, width, patch_size = self.dtype, self.width, self.patch_size
        init = self.param_init
        stem = self.stem.default(width=width, patch_size=patch_size, param_init=init, dtype=dtype)
        self.patch_embed = stem.build()
        if self.pool == "token":
            self.cls_token = self.param("cls_token", init.token, (1, 1, width))
        if self.num_registers:
            self.reg_token = self.param("reg_token", init.table, (1, self.num_registers, width))
        if self.position == "learned":
            rows, columns = patch_grid(self.image_size, patch_size)
            length = self.table_prefix + rows * columns
            self.pos_embed = self.param("pos_embed", init.table, (1, length, width))
        self.drop = nn.Dropout(self.drop_rate)
        self.norm = layer_norm().build(dtype=dtype)
        if self.pool == "map":
            self.attention_pool = AttentionPool(self.num_heads, self.mlp_ratio, init, dtype)
        if self.representation_size:
            hidden = init.conv(width, self.representation_size)  # flax's default in ViT's code
            self.representation = nn.Dense(self.representation_size, **hidden, dtype=dtype)
        if self.num_classes:
            fan_in = self.representation_size or width
            self.head = nn.Dense(
                self.num_classes, **init.of_head(fan_in, self.num_classes), dtype=dtype
            )

    @property
    def table_prefix(self) -> int:
        """Entries of the position table before those of the patches."""
        if self.pool != "token" or not self.class_position:
            return 0
        return 1 + self.num_registers * self.register_position

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        return (self.patch_size,)

    def encode(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Array, tuple[int, int]]:
        """Tokens after the final norm `[B, prefix + N, C]`, and the grid (h, w) of the last N."""
        x = self.patch_embed(images.astype(self.dtype or images.dtype))
        batch, height, breadth, width = x.shape
        if self.position == "learned":
            table = resize_positions(
                jnp.asarray(self.pos_embed), (height, breadth), num_prefix=self.table_prefix,
                source_grid=patch_grid(self.image_size, self.patch_size),
            )  # fmt: skip
        else:
            table = sincos_2d(height, breadth, width)[None]
        tokens = [self.cls_token] if self.pool == "token" else []
        tokens += [self.reg_token] if self.num_registers else []
        x = place_tokens(x.reshape(batch, -1, width), tokens, table.astype(x.dtype))
        if not tokens and not all(map(takes_sequences, self.mixers)):
            x = x.reshape(batch, height, breadth, width)
        x = self.norm(self.layers(self.drop(x, deterministic=not train), train))
        return x.reshape(batch, -1, width), (height, breadth)

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B h w C"]]:
        """One map, of stride `patch_size`: the patches after the final norm."""
        x, grid = self.encode(images, train)
        return (x[:, -grid[0] * grid[1] :].reshape(x.shape[0], *grid, -1),)

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Logits `[B, num_classes]`; with `num_classes=0` the vector that the head would read."""
        x, grid = self.encode(images, train)
        if self.pool == "token":
            x = x[:, 0]
        else:
            x = x[:, -grid[0] * grid[1] :]
            x = self.attention_pool(x, train) if self.pool == "map" else x.mean(axis=1)
        if self.representation_size:
            x = nn.tanh(self.representation(x))
        return self.head(x) if self.num_classes else x


FAMILY = Family(
    models={
        f"vit_{size}{patch}{suffix}": spec(ViT, patch_size=patch, **VARIANTS[size], **extra)
        for size, patches in PATCH_SIZES.items()
        for patch in patches
        for suffix, extra in (("", {}), ("_reg4", REGISTERS))
    },
    weights={ViT: "vit"},
    paper=("[ViT](https://arxiv.org/abs/2010.11929), [Scaling](https://arxiv.org/abs/2106.04560), "
        "[Registers](https://arxiv.org/abs/2309.16588)"),
    code="google-research/vision_transformer, Apache-2.0",
    source=("parameters: ViT paper, table 1, and Scaling, table 2; top-1: ViT paper, table 5, at "
        "384 pixels (H/14 392), G/14: Scaling, table 1"),
    golden="Ti/16 and B/32: logits, stages, gradients",
    published={
            "vit_b16": (86, None, 83.97, I21K), "vit_b32": (None, None, 81.28, I21K),
            "vit_l16": (307, None, 85.15, I21K), "vit_l32": (None, None, 80.99, I21K),
            "vit_h14": (632, None, 85.13, I21K), "vit_g14": (1011, None, None, ""),
            "vit_G14": (1843, None, 90.45, "JFT-3B first, fine-tuned"),
        },
)  # fmt: skip
