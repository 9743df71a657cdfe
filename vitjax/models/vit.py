"""ViT: An Image is Worth 16x16 Words (Dosovitskiy et al., arXiv:2010.11929).

New there: an image is a sequence of patch embeddings, and a plain pre-norm transformer encoder
reads it. Sizes beyond Huge are those of Scaling Vision Transformers (Zhai et al., arXiv:2106.04560,
table 2).

The authors' JAX code uses the tanh form of GELU and an encoder dropout of 0.1; the published
PyTorch conversions use the exact GELU and none, and so does this file. `pool="gap"` with
`position="sincos2d"` is the plain ViT baseline (arXiv:2205.01580), `pool="map"` the attention
pooling of arXiv:2106.04560, registers are arXiv:2309.16588. `pre_norm=True`, `act="quick_gelu"`
and `norm_epsilon=1e-5` are CLIP's tower (arXiv:2103.00020); `pool="gap"`, `class_token=True` and
`pool_norm=True` MAE's fine-tuning (arXiv:2111.06377); `mlp="swiglu"` DINOv2's largest model
(arXiv:2304.07193); `position="rope"` and `key_bias=False` DINOv3's (`dinov3.py`). `exits` are
classifiers after blocks on the way (Bakhtiarnia et al., arXiv:2106.15183, section 3).
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import parse_mixers, takes_sequences
from vitjax.attention.attention_pool import AttentionPool
from vitjax.layers.activations import ACTIVATIONS
from vitjax.layers.norm import layer_norm
from vitjax.layers.patch_embed import PatchEmbed, patch_grid
from vitjax.layers.position import place_tokens, resize_positions, sincos_2d
from vitjax.layers.rope import Rope
from vitjax.layers.spec import Spec, spec
from vitjax.models.encoder import Encoder
from vitjax.models.family import I21K, Family
from vitjax.models.preprocessing import HALF, Preprocessing
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


class Exit(nn.Module):
    """An early exit's classifier: a norm of its own, what the model pools, a dense layer.

    Attributes:
      pool: tokens → the vector that the head reads.
    """

    num_classes: int
    norm: Spec
    head: Mapping[str, Any]
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N C"], pool: Callable[[Array], Array]
    ) -> Float[Array, "B K"]:
        x = pool(self.norm.build(name="norm")(x))
        return nn.Dense(self.num_classes, **self.head, dtype=self.dtype, name="head")(x)


class ViT(Encoder):
    """Patches, class token and registers, positions, pre-norm encoder, pooling, head.

    Attributes:
      image_size: (height, width), or a side, of the images that the position table is for; others
        interpolate it.
      pool: "token" (a class token is prepended), "gap" (mean over patches) or "map" (attention
        pooling).
      class_token: a class token is prepended, whatever is pooled; None: where `pool` reads it.
      pre_norm: a norm before the first block.
      pool_norm: the norm follows the mean over patches (pool="gap"), and not the last block.
      position: "learned" (a table over the flattened patches), "sincos2d" (fixed), "none", or
        "rope": attention turns q and k of the patches; "rope(rescale=2.0)" sets options of `Rope`.
      class_position: the table has an entry for the class token too.
      num_registers: learned tokens after the class token, dropped at the end; without position
        unless `register_position`, which extends a table that has the class token's.
      representation_size: width of the pretraining head's hidden tanh layer; None for the
        fine-tuning head.
      stem: module from images to `[B, h, w, width]`.
      exits: blocks after which stands an early exit, ascending from 0; the last block's is the
        model's own head. They make it a `GivesExits` of one exit more than these.
      layers_of_features: blocks whose outputs `features` gives, from 0; none: the last one's, after
        the final norm.

    The rest are `Encoder`'s; `drop_rate` is that of the positions too. A call raises ValueError if
    the image does not divide into patches.
    """

    patch_size: int = 16
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    pool: str = "token"
    class_token: bool | None = None
    pre_norm: bool = False
    pool_norm: bool = False
    position: str = "learned"
    class_position: bool = True
    num_registers: int = 0
    register_position: bool = False
    representation_size: int | None = None
    stem: Spec = spec(PatchEmbed)
    exits: tuple[int, ...] = ()
    layers_of_features: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if wrong := [i for i in self.layers_of_features if not 0 <= i < self.depth]:
            raise ValueError(
                f"layers_of_features={self.layers_of_features} names block {wrong[0]}, and the "
                f"model has blocks 0 to {self.depth - 1}."
            )
        _check_exits(self)
        check_choice("pool", self.pool, ("token", "gap", "map"))
        if self.rope is None:
            check_choice("position", self.position, ("learned", "sincos2d", "none", "rope"))
        _check_rope(self)
        if self.pool == "token" and self.class_token is False:
            raise ValueError(
                "class_token=False with pool='token': there is nothing to read; choose pool='gap' "
                "or 'map'."
            )
        if self.pool_norm and self.pool != "gap":
            raise ValueError(
                f"pool_norm=True with pool={self.pool!r}: it normalises the mean of the patches; "
                f"choose pool='gap'."
            )
        super().__post_init__()

    def setup(self) -> None:
        super().setup()
        dtype, width, patch_size = self.dtype, self.width, self.patch_size
        init = self.param_init
        stem = self.stem.default(width=width, patch_size=patch_size, param_init=init, dtype=dtype)
        self.patch_embed = stem.build()
        if self.has_class_token:
            self.cls_token = self.param("cls_token", init.token, (1, 1, width))
        if self.num_registers:
            self.reg_token = self.param("reg_token", init.table, (1, self.num_registers, width))
        if self.position == "learned":
            rows, columns = patch_grid(self.image_size, patch_size)
            length = self.table_prefix + rows * columns
            self.pos_embed = self.param("pos_embed", init.table, (1, length, width))
        self.drop = nn.Dropout(self.drop_rate)
        norm = layer_norm(self.norm_epsilon).default(dtype=dtype)
        if self.pre_norm:
            self.norm_pre = norm.build()
        if self.pool_norm:
            self.fc_norm = norm.build()
        else:
            self.norm = norm.build()
        if self.pool == "map":
            self.attention_pool = AttentionPool(
                self.num_heads,
                self.mlp_ratio,
                ACTIVATIONS[self.act],
                self.norm_epsilon,
                init,
                dtype,
            )
        if self.representation_size:
            hidden = init.conv(width, self.representation_size)  # flax's default in ViT's code
            self.representation = nn.Dense(self.representation_size, **hidden, dtype=dtype)
        if self.num_classes:
            fan_in = self.representation_size or width
            self.head = nn.Dense(
                self.num_classes, **init.of_head(fan_in, self.num_classes), dtype=dtype
            )
        if self.exits:
            head = init.of_head(width, self.num_classes)
            self.exit = [Exit(self.num_classes, norm, head, dtype) for _ in self.exits]

    @property
    def has_class_token(self) -> bool:
        """Whether a class token is prepended."""
        return self.pool == "token" if self.class_token is None else self.class_token

    @property
    def rope(self) -> Rope | None:
        """Rotary positions, if the model has them."""
        named = self.position.partition("(")[0].strip() == "rope"
        return Rope.parse(self.position) if named else None

    @property
    def table_prefix(self) -> int:
        """Entries of the position table before those of the patches."""
        if not self.has_class_token or not self.class_position:
            return 0
        return 1 + self.num_registers * self.register_position

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        return (self.patch_size,) * max(1, len(self.layers_of_features))

    def embed(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Array, tuple[int, int]]:
        """Compute the tokens that the first block reads, and the grid (h, w) of the last ones."""
        x = self.patch_embed(images.astype(self.dtype or images.dtype))
        batch, height, breadth, width = x.shape
        if self.position == "learned":
            table = resize_positions(
                jnp.asarray(self.pos_embed),
                (height, breadth),
                num_prefix=self.table_prefix,
                source_grid=patch_grid(self.image_size, self.patch_size),
            )
        elif self.position == "sincos2d":
            table = sincos_2d(height, breadth, width)[None]
        else:
            table = jnp.zeros((1, 0, width))
        tokens = [self.cls_token] if self.has_class_token else []
        tokens += [self.reg_token] if self.num_registers else []
        x = place_tokens(x.reshape(batch, -1, width), tokens, table.astype(x.dtype))
        if not tokens and not all(map(takes_sequences, self.mixers)):
            x = x.reshape(batch, height, breadth, width)
        x = self.drop(x, deterministic=not train)
        return self.norm_pre(x) if self.pre_norm else x, (height, breadth)

    def angles(self, grid: tuple[int, int], train: bool) -> Float[Array, "N r"] | None:
        """Compute the angles of all tokens' rotary positions, 0 for those that are no patches.

        None without rotary positions.
        """
        if self.rope is None:
            return None
        key = self.make_rng("dropout") if train and self.rope.varies else None
        angles = self.rope.angles(grid, self.width // self.num_heads, key)
        return jnp.pad(angles, ((self.has_class_token + self.num_registers, 0), (0, 0)))

    def encode(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Array, tuple[int, int]]:
        """Compute the tokens after the final norm, and the grid (h, w) of the last N.

        The tokens are `[B, prefix + N, C]`. The norm is left out if it is that of their mean.
        """
        x, grid = self.embed(images, train)
        x = self.layers(x, train, self.angles(grid, train))
        x = x if self.pool_norm else self.norm(x)
        return x.reshape(x.shape[0], -1, x.shape[-1]), grid

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B h w C"], ...]:
        """Compute maps of stride `patch_size`, after the final norm or `layers_of_features`."""
        if self.layers_of_features:
            x, grid = self.embed(images, train)
            angles = self.angles(grid, train)
            tokens = self.outputs(x, train, self.layers_of_features, angles)[1]
        else:
            x, grid = self.encode(images, train)
            tokens = (x,)
        tokens = (x.reshape(x.shape[0], -1, x.shape[-1])[:, -grid[0] * grid[1] :] for x in tokens)
        return tuple(x.reshape(x.shape[0], *grid, -1) for x in tokens)

    @property
    def num_exits(self) -> int:
        """Number of exits, the model's own head included; 0 without early ones."""
        return len(self.exits) + 1 if self.exits else 0

    def run_part(self, k: int, state: Any, train: bool = False) -> tuple[Float[Array, "B K"], Any]:
        """Run the blocks from exit k - 1 to exit k; see `GivesExits`. Tokens stand between."""
        x = self.embed(state, train)[0] if k == 0 else state
        begin = self.exits[k - 1] + 1 if k else 0
        if k == len(self.exits):
            return self._classify(self._run(x, train, begin, self.depth), train), None
        x = self._run(x, train, begin, self.exits[k] + 1)
        return self.exit[k](x.reshape(x.shape[0], -1, x.shape[-1]), self._pooled), x

    def _run(self, x: Array, train: bool, begin: int, end: int) -> Array:
        for block in self.block[begin:end]:
            x = block(x, train)
        return x

    def exit_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B K"], ...]:
        """Compute the logits of all exits, the first to leave first."""
        state, found = images, []
        for k in range(self.num_exits):
            logits, state = self.run_part(k, state, train)
            found.append(logits)
        return tuple(found)

    def _pooled(self, x: Float[Array, "B N C"], train: bool = False) -> Float[Array, "B C"]:
        """Pool normalised tokens to the vector that a head reads."""
        if self.pool == "token":
            return x[:, 0]
        x = x[:, self.has_class_token + self.num_registers :]
        return self.attention_pool(x, train) if self.pool == "map" else x.mean(axis=1)

    def _classify(self, x: Array, train: bool) -> Array:
        """Compute the output of the model from the tokens of the last block."""
        x = x if self.pool_norm else self.norm(x)
        x = self._pooled(x.reshape(x.shape[0], -1, x.shape[-1]), train)
        x = self.fc_norm(x) if self.pool_norm else x
        if self.representation_size:
            x = nn.tanh(self.representation(x))
        return self.head(x) if self.num_classes else x

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or the input of the head if `num_classes` is 0."""
        if self.exits:
            return self.exit_logits(images, train)[-1]
        x, grid = self.embed(images, train)
        return self._classify(self.layers(x, train, self.angles(grid, train)), train)


def _check_exits(model: ViT) -> None:
    """Raise ValueError unless the early exits are blocks of a model that can have them.

    It is no method, as flax would run it for a module that is not bound yet.
    """
    if not model.exits:
        return
    if list(model.exits) != sorted({i for i in model.exits if 0 <= i < model.depth - 1}):
        raise ValueError(
            f"exits={model.exits}: name blocks from 0 to {model.depth - 2}, each once and in "
            f"ascending order; block {model.depth - 1} has the model's own head."
        )
    if (
        type(model) is not ViT
        or model.pool == "map"
        or model.scan
        or not model.num_classes
        or model.rope
    ):
        raise ValueError(
            f"exits={model.exits} need a ViT with a head of classes, unrolled blocks, "
            f"pool='token' or 'gap' and positions other than 'rope'; here are "
            f"{type(model).__name__}, num_classes={model.num_classes}, scan={model.scan}, "
            f"pool={model.pool!r}, position={model.position!r}."
        )


def _check_rope(model: ViT) -> None:
    """Raise ValueError if a mixer of a model with rotary positions does not take them."""
    if model.rope is None:
        return
    for mixer in parse_mixers(model.mixer, 1)[0]:
        if not getattr(mixer.factory, "takes_angles", False):
            raise ValueError(
                f"position={model.position!r} with mixer={model.mixer!r}: {mixer.name} does not "
                f"turn its queries and keys; choose mixer='full' or another position."
            )


PREPROCESSING = Preprocessing(
    **HALF,
    crop=0.9,
    interpolation="bicubic",
    large_crop=1.0,
    source="timm's configurations of the published ViTs",
)

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
    preprocessing={"*": PREPROCESSING},
)  # fmt: skip
