"""What VOLO (arXiv:2106.13112) alone has: its stem, the step between two of its stages, class
blocks, and the second head that token labels teach.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.norm import batch_norm
from vitjax.layers.position import resize_grid
from vitjax.layers.spec import Spec
from vitjax.models.pyramid import Pyramid


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
        proj = ConvNorm(
            self.width,
            p,
            p,
            keep_partial=False,
            param_init=self.param_init,
            dtype=self.dtype,
            name="proj",
        )
        return proj(x)


class Transition(nn.Module):
    """What stands between two stages: halving of the map (`proj`), positions, or nothing.

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
            x = ConvNorm(
                self.width,
                2,
                2,
                keep_partial=False,
                param_init=self.param_init,
                dtype=self.dtype,
                name="proj",
            )(x)
        if self.grid is None:
            return x
        table = self.param("pos_embed", self.param_init.table, (1, *self.grid, self.width))
        x = x + resize_grid(jnp.asarray(table)[0], (x.shape[1], x.shape[2])).astype(x.dtype)
        return nn.Dropout(self.drop_rate, deterministic=not train)(x)


class ClassBlock(nn.Module):
    """Class attention and an MLP update the class token; the other tokens pass unchanged."""

    mixer: Spec
    mlp: Spec
    norm: Spec
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"], train: bool = False) -> Float[Array, "B N C"]:
        def build(part: Spec, name: str) -> Any:
            return part.default(param_init=self.param_init, dtype=self.dtype).build(name=name)

        token = x[:, :1] + build(self.mixer, "mixer")(build(self.norm, "norm1")(x), train)
        token += build(self.mlp, "mlp")(build(self.norm, "norm2")(token), train)
        return jnp.concatenate([token, x[:, 1:]], axis=1)


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
        """The last map as a sequence, after the class blocks and the norm."""
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
        """Logits of the class token, and of every patch: what a token-label loss reads (eq. 9).

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
        """Logits `[B, num_classes]`, or the vector that the head would read if it is 0."""
        x = self.tokens(self.features(images, train)[-1], train)
        pooled = x.mean(axis=1) if self.pool == "gap" else jnp.squeeze(x[:, :1], axis=1)
        logits = self.head(pooled) if self.num_classes else pooled
        if self.num_classes and self.token_label:
            logits += 0.5 * jnp.max(self.aux_head(x[:, 1:]), axis=1)
        return logits
