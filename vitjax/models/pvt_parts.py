"""What PVT (arXiv:2102.12122) alone has: positions at the entry of each stage, and a class token
that joins in the last.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.norm import layer_norm
from vitjax.layers.position import resize_positions
from vitjax.models.pyramid import Pyramid


class PatchPosition(nn.Module):
    """The entry of a stage: patches of the map before (`patch`), learned positions, dropout.

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
            self.width,
            p,
            p,
            keep_partial=False,
            norm=layer_norm(1e-5),
            param_init=self.param_init,
            dtype=self.dtype,
        )
        self.pos_embed = self.param("pos_embed", self.param_init.table, (1, rows, self.width))
        if self.class_token:
            self.cls_token = self.param("cls_token", self.param_init.token, (1, 1, self.width))
        self.drop = nn.Dropout(self.drop_rate)

    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        x = self.patch(x, train)
        table = resize_positions(
            jnp.asarray(self.pos_embed)[:, int(self.class_token) :],
            (x.shape[1], x.shape[2]), num_prefix=0,
            source_grid=self.grid, method="bilinear", antialias=False,
        )  # fmt: skip
        x = x + table.reshape(1, *x.shape[1:]).astype(x.dtype)
        return self.drop(x, deterministic=not train)

    def prepend(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B N C"]:
        """The map as a sequence, the class token first."""
        token = (self.cls_token + self.pos_embed[:, :1]).astype(x.dtype)
        token = jnp.broadcast_to(token, (x.shape[0], 1, self.width))
        token = self.drop(token, deterministic=not train)
        return jnp.concatenate([token, x.reshape(x.shape[0], -1, self.width)], axis=1)


class PVT(Pyramid):
    """A pyramid whose last stage reads a class token too, and whose head reads that token."""

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Logits `[B, num_classes]`, or the class token if `num_classes` is 0."""
        x = images.astype(self.dtype or images.dtype)
        for resize, stage in zip(self.resizes[:-1], self.stages[:-1], strict=True):
            x = stage(resize(x, train), train)
        entry = self.resizes[-1]
        x = self.stages[-1](entry.prepend(entry(x, train), train), train)
        x = jnp.squeeze(self.final_norm(x)[:, :1], axis=1)
        return self.head(x) if self.num_classes else x
