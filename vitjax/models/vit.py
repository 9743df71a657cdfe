"""ViT: An Image is Worth 16x16 Words (Dosovitskiy et al., arXiv:2010.11929).

New there: an image is a sequence of patch embeddings, and a plain pre-norm transformer encoder
reads it. Sizes beyond Huge are those of Scaling Vision Transformers (Zhai et al., arXiv:2106.04560,
table 2).

The authors' JAX code uses the tanh form of GELU and an encoder dropout of 0.1; the published
PyTorch conversions use the exact GELU and none, and so does this file. `pool="gap"` with
`position="sincos2d"` is the plain ViT baseline (arXiv:2205.01580), `pool="map"` the attention
pooling of arXiv:2106.04560, registers are arXiv:2309.16588.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import parse_mixers
from vitjax.attention.attention_pool import AttentionPool
from vitjax.attention.full import needs_map
from vitjax.layers.drop_path import drop_path_schedule
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.patch_embed import PatchEmbed
from vitjax.layers.position import resize_positions, sincos_2d
from vitjax.layers.spec import Spec, spec
from vitjax.models.pyramid import Block

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
    "ti": (16,),
    "s": (14, 16, 32),
    "b": (8, 14, 16, 32),
    "l": (14, 16, 32),
    "h": (14,),
    "g": (14,),
    "G": (14,),
}
"""Those with published results; a name with any other patch size works as well."""
REGISTERS = dict(num_registers=4, class_position=False)
"""What `_reg4` adds; as published, positions are then those of the patches alone."""


class ViT(nn.Module):
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
      mixer: token mixer string; those that fit a sequence ("full").
      layer_scale_init: see `Block`; None for none.
      drop_rate: dropout after the positions and in each block; `drop_path_rate`: stochastic depth
        of the last block.
      remat: recompute blocks in the backward pass; `scan`: one compiled block for all layers,
        parameters stacked under `blocks` (`stack_layers` and `unstack_layers` convert).
      stem: module from images to `[B, h, w, width]`.
    """

    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    pool: str = "token"
    position: str = "learned"
    class_position: bool = True
    num_registers: int = 0
    register_position: bool = False
    representation_size: int | None = None
    mixer: str = "full"
    qkv_bias: bool = True
    qk_norm: bool = False
    layer_scale_init: float | None = None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    remat: bool = False
    scan: bool = False
    stem: Spec = spec(PatchEmbed)
    dtype: Any = None

    def __post_init__(self) -> None:
        for field, allowed in (
            ("pool", ("token", "gap", "map")),
            ("position", ("learned", "sincos2d")),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(
                    f"{field}={getattr(self, field)!r}: a ViT has "
                    f"{' or '.join(map(repr, allowed))}."
                )
        super().__post_init__()

    def setup(self) -> None:
        dtype, width = self.dtype, self.width
        self.patch_embed = self.stem.default(
            width=width, patch_size=self.patch_size, dtype=dtype
        ).build()
        normal, zeros = nn.initializers.normal(0.02), nn.initializers.zeros
        if self.pool == "token":
            self.cls_token = self.param("cls_token", zeros, (1, 1, width))
        if self.num_registers:
            self.reg_token = self.param("reg_token", normal, (1, self.num_registers, width))
        if self.position == "learned":
            length = self.table_prefix + self.table_grid[0] * self.table_grid[1]
            self.pos_embed = self.param("pos_embed", normal, (1, length, width))
        self.drop = nn.Dropout(self.drop_rate)
        # Glorot for each matrix, as the authors initialise. Of the square q, k, v and proj it is
        # the variance 1/C of lecun_uniform, which, unlike Glorot's, stays right when the three
        # stand in one kernel.
        square, glorot = nn.initializers.lecun_uniform(), nn.initializers.xavier_uniform()
        cycle = [
            m.default(
                num_heads=self.num_heads, qkv_bias=self.qkv_bias, qk_norm=self.qk_norm,
                drop_rate=self.drop_rate, attn_drop_rate=self.attn_drop_rate, kernel_init=square,
            )
            for m in parse_mixers(self.mixer, 1)[0]
        ]  # fmt: skip
        mlp = spec(Mlp, mlp_ratio=self.mlp_ratio, drop_rate=self.drop_rate, kernel_init=glorot,
                   bias_init=nn.initializers.normal(1e-6))  # fmt: skip
        block = spec(Block, mlp=mlp, layer_scale_init=self.layer_scale_init, dtype=dtype)
        factory = (
            nn.remat(Block, static_argnums=(2,), prevent_cse=not self.scan) if self.remat else Block
        )
        rates = drop_path_schedule(self.drop_path_rate, self.depth)
        if self.scan:
            if len(cycle) > 1:
                raise ValueError(
                    f"scan=True needs equal layers, and mixer={self.mixer!r} alternates; set "
                    f"scan=False."
                )
            self.blocks = factory(**dict(block.kwargs), mixer=cycle[0])
        else:
            self.block = [
                factory(**dict(block.kwargs), mixer=cycle[i % len(cycle)], drop_path_rate=rate)
                for i, rate in enumerate(rates)
            ]
        self.norm = layer_norm().build(dtype=dtype)
        if self.pool == "map":
            self.attention_pool = AttentionPool(self.num_heads, self.mlp_ratio, dtype=dtype)
        if self.representation_size:
            self.representation = nn.Dense(self.representation_size, dtype=dtype)
        if self.num_classes:
            self.head = nn.Dense(self.num_classes, kernel_init=zeros, dtype=dtype)

    @property
    def table_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that the position table is for."""
        height, width = (
            (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        )
        return -(-height // self.patch_size), -(-width // self.patch_size)

    @property
    def table_prefix(self) -> int:
        """Entries of the position table before those of the patches."""
        if self.pool != "token" or not self.class_position:
            return 0
        return 1 + self.num_registers * self.register_position

    def encode(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Array, tuple[int, int]]:
        """Tokens after the final norm `[B, prefix + N, C]`, and the grid (h, w) of the last N."""
        x = self.patch_embed(images.astype(self.dtype or images.dtype))
        batch, *grid, width = x.shape
        height, breadth = grid
        x = x.reshape(batch, -1, width)
        if self.position == "learned":
            table = resize_positions(jnp.asarray(self.pos_embed), (height, breadth),
            num_prefix=self.table_prefix,
                                     source_grid=self.table_grid).astype(x.dtype)  # fmt: skip
        else:
            table = sincos_2d(height, breadth, width)[None].astype(x.dtype)
        prefix = [self.cls_token] if self.pool == "token" else []
        if self.num_registers:
            prefix.append(self.reg_token)
        split = table.shape[1] - x.shape[1]
        x = x + table[:, split:]
        if prefix:
            tokens = jnp.concatenate(prefix, axis=1)
            if split:
                rest = tokens.shape[1] - split
                tokens = tokens + jnp.pad(table[:, :split], ((0, 0), (0, rest), (0, 0)))
            tokens = jnp.broadcast_to(tokens.astype(x.dtype), (batch, *tokens.shape[1:]))
            x = jnp.concatenate([tokens, x], axis=1)
        elif any(needs_map(m) for m in parse_mixers(self.mixer, 1)[0]):
            x = x.reshape(batch, height, breadth, width)
        x = self.norm(self.layers(self.drop(x, deterministic=not train), train))
        return x.reshape(batch, -1, width), (height, breadth)

    def layers(self, x: Float[Array, "B *S C"], train: bool) -> Float[Array, "B *S C"]:
        """The encoder's blocks, one after the other or scanned."""
        if not self.scan:
            for block in self.block:
                x = block(x, train)
            return x
        rates = (
            jnp.asarray(drop_path_schedule(self.drop_path_rate, self.depth))
            if self.drop_path_rate
            else None
        )
        scan = nn.scan(
            lambda block, x, rate: (block(x, train, rate), None),
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.depth,
        )
        return scan(self.blocks, x, rates)[0]

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B h w C"]]:
        """One map, of stride `patch_size`: the patches after the final norm."""
        x, grid = self.encode(images, train)
        return (x[:, -grid[0] * grid[1] :].reshape(x.shape[0], *grid, -1),)

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Logits `[B, num_classes]`; with `num_classes=0` the vector that the head would read.

        Raises:
          ValueError: the image does not divide into patches.
        """
        x, grid = self.encode(images, train)
        if self.pool == "token":
            x = x[:, 0]
        else:
            x = x[:, -grid[0] * grid[1] :]
            x = self.attention_pool(x, train) if self.pool == "map" else x.mean(axis=1)
        if self.representation_size:
            x = nn.tanh(self.representation(x))
        return self.head(x) if self.num_classes else x


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a model with `scan=False` as those of the same model with `scan=True`:
    `block_{i}` → `blocks`.
    """
    names = sorted(
        (k for k in params if k.startswith("block_")), key=lambda k: int(k.split("_")[1])
    )
    rest = {k: v for k, v in params.items() if k not in names}
    return {
        **rest,
        "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[k] for k in names)),
    }


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `stack_layers`; parameters that are not stacked pass unchanged."""
    if "blocks" not in params:
        return dict(params)
    rest = {k: v for k, v in params.items() if k != "blocks"}
    depth = jax.tree.leaves(params["blocks"])[0].shape[0]
    return {
        **rest,
        **{
            f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"])
            for i in range(depth)
        },
    }
