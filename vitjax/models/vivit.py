"""ViViT: A Video Vision Transformer (Arnab et al., arXiv:2103.15691), model 1.

New there: tokens are tubelets, patches of space and time, and a plain encoder attends to all of
them jointly; a ViT of images begins the training, its embedding placed in the middle frame of the
tubelets and its positions repeated over time. The paper's models 2 to 4, which factorise space and
time, are not here.

GELU is its tanh form in all code of this model. Clips of another length or size than the position
table's interpolate it, which the authors' code does not.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.norm import layer_norm
from vitjax.layers.patch_embed import PatchEmbed, patch_grid
from vitjax.layers.position import place_tokens, resize_positions
from vitjax.layers.spec import spec
from vitjax.models.encoder import Encoder
from vitjax.models.family import Family
from vitjax.models.preprocessing import HALF, Preprocessing

VARIANTS = {
    "b16x2": dict(width=768, depth=12, num_heads=12),
    "l16x2": dict(width=1024, depth=24, num_heads=16),
}
"""Name: size, and pixels × frames of a tubelet."""


class ViViT(Encoder):
    """Tubelets, class token, positions, pre-norm encoder, head of the class token.

    Attributes:
      patch_size, patch_frames: pixels of a tubelet's side, and its frames.
      num_frames, image_size: of the clips `[B, T, H, W, 3]` that the position table is for.

    The rest are `Encoder`'s; `drop_rate` is that of the positions too. A call raises ValueError if
    the clip does not divide into tubelets.
    """

    act: str = "gelu_tanh"
    patch_size: int = 16
    patch_frames: int = 2
    num_classes: int = 400
    num_frames: int = 32
    image_size: int | tuple[int, int] = 224

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tubelets along time, rows and columns that the position table is for."""
        return (
            -(-self.num_frames // self.patch_frames),
            *patch_grid(self.image_size, self.patch_size),
        )

    def setup(self) -> None:
        super().setup()
        init = self.param_init
        self.patch_embed = PatchEmbed(
            self.width,
            self.patch_size,
            patch_frames=self.patch_frames,
            param_init=init,
            dtype=self.dtype,
        )
        self.cls_token = self.param("cls_token", init.token, (1, 1, self.width))
        frames, rows, columns = self.grid
        length = 1 + frames * rows * columns
        self.pos_embed = self.param("pos_embed", init.table, (1, length, self.width))
        self.drop = nn.Dropout(self.drop_rate)
        self.norm = layer_norm(self.norm_epsilon).default(dtype=self.dtype).build()
        if self.num_classes:
            head = init.of_head(self.width, self.num_classes)
            self.head = nn.Dense(self.num_classes, **head, dtype=self.dtype)

    def embed(self, clips: Float[Array, "B T H W c"], train: bool = False) -> Float[Array, "B N C"]:
        """Compute the class token and the tubelets' tokens, with their positions."""
        x = self.patch_embed(clips.astype(self.dtype or clips.dtype))
        table = resize_positions(
            jnp.asarray(self.pos_embed), x.shape[1:-1], num_prefix=1, source_grid=self.grid
        )
        x = x.reshape(x.shape[0], -1, self.width)
        x = place_tokens(x, [self.cls_token], table.astype(x.dtype))
        return self.drop(x, deterministic=not train)

    def __call__(
        self, clips: Float[Array, "B T H W c"], train: bool = False
    ) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or the input of the head if `num_classes` is 0."""
        x = self.norm(self.layers(self.embed(clips, train), train))[:, 0]
        return self.head(x) if self.num_classes else x


PREPROCESSING = Preprocessing(
    **HALF,
    crop=224 / 256,
    interpolation="bilinear",
    source="google-research/scenic, projects/vivit/configs/kinetics400/vivit_base_k400.py",
)

FAMILY = Family(
    models={f"vivit_{v}": spec(ViViT, **kw) for v, kw in VARIANTS.items()},
    weights={ViViT: "vivit"},
    paper="[ViViT](https://arxiv.org/abs/2103.15691)",
    code="google-research/scenic, Apache-2.0",
    source="the paper, section 4.4: top-1 on Kinetics-400, 4×3 views; multiply-adds of one view",
    golden="a small one, as transformers has it: logits, tokens, gradients",
    published={"vivit_l16x2": (None, 1446, 80.6, "ImageNet-21k first")},
    preprocessing={"*": PREPROCESSING},
    takes="clips",
)
