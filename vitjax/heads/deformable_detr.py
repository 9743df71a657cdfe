"""Deformable DETR's head (Zhu et al., arXiv:2010.04159): queries that sample several maps."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.attention.msdeform import MultiScaleDeformableAttention, cell_centres
from vitjax.detection.results import Detections, LossParts, Targets
from vitjax.heads.blocks import at_least_float32
from vitjax.heads.detr import Maps, Size, extent_of, inside_map
from vitjax.heads.neck import PYRAMID, MultiLevelNeck, lacks_pyramid
from vitjax.heads.proposals import Proposals, propose
from vitjax.heads.queries import BoxMlp, DecoderLayer, EncoderLayer, glorot_kernel
from vitjax.heads.set_prediction import Criterion, SetBoxes, layer_losses, loss_parts, select
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init, glorot_uniform, torch_default, zeros
from vitjax.layers.maps import inside
from vitjax.layers.norm import group_norm
from vitjax.layers.position import sine_positions

PRIOR = 0.01
"""First probability of every class."""
EPS = 1e-5
INIT = Init(dense=glorot_uniform, conv=glorot_uniform, head=torch_default, mlp=glorot_kernel)
"""As the authors draw matrices and projections of maps; the layers of boxes as PyTorch does."""


class Image(NamedTuple):
    """Encoded maps of a batch.

    Attributes:
      tokens: of all maps, finest first.
      inside: which positions of each map are no padding.
      shares: of width and height of each map that are no padding.
    """

    tokens: Float[Array, "B N C"]
    inside: list[Bool[Array, "B _ _"]]
    shares: Float[Array, "B L 2"]

    def levels(self, tokens: Float[Array, "B N C"]) -> list[Float[Array, "B _ _ C"]]:
        """Cut tokens to maps."""
        maps, start = [], 0
        for i in self.inside:
            size = i.shape[1] * i.shape[2]
            maps.append(tokens[:, start : start + size].reshape(*i.shape, -1))
            start += size
        return maps


class DeformableDETRHead(nn.Module):
    """Maps of several strides, projected (`input_{i}`), encoded and read by queries that sample.

    Queries (`queries`) are positions and first contents; a linear map of the positions
    (`reference`) says about which point they sample. After each layer they give classes
    (`class_logits_{i}`) and boxes about that point (`box_{i}`): the same layers for all, or with
    `refine` each its own, and the boxes are those about which the next layer samples. With
    `two_stage` the encoded positions that are most likely objects become the queries.

    Attributes:
      width: of the transformer, a multiple of 32, which normalises the maps in groups.
      strides: of the maps. Of one map alone, and of maps that share a stride, a pyramid is made
        first; see `MultiLevelNeck`.
      finest: stride of the first map that is read.
      extra_levels: convolutions of stride 2 that go on from the coarsest map.
      num_points: samples of each head in each map.

    The others are those of `DETRHead`.
    """

    num_classes: int
    width: int = 256
    num_heads: int = 8
    encoder_depth: int = 6
    decoder_depth: int = 6
    mlp_ratio: float = 4.0
    num_points: int = 4
    num_queries: int = 300
    strides: tuple[int, ...] = PYRAMID
    finest: int = 8
    extra_levels: int = 1
    refine: bool = False
    two_stage: bool = False
    drop_rate: float = 0.1
    loss_weights: tuple[float, float, float] = (2.0, 5.0, 2.0)
    limit: int = 100
    param_init: Init = INIT
    dtype: Any = None

    def __call__(
        self, maps: Maps, train: bool = False, pixels: Bool[Array, "B H W"] | None = None
    ) -> SetBoxes:
        """Compute what each query finds.

        Args:
          pixels: which pixels of the images are no padding; None for all.
        """
        return self.predict(maps, pixels, train)[0]

    @nn.compact
    def predict(
        self, maps: Maps, pixels: Bool[Array, "B H W"] | None, train: bool
    ) -> tuple[SetBoxes, Proposals | None]:
        """Compute what queries find, and with `two_stage` what all positions propose."""
        image = self._encode(maps, pixels, train)
        logits, boxes = self._exits()
        proposals = None
        if self.two_stage:
            levels = image.levels(image.tokens)
            proposals = propose(self, levels, image.inside, logits[-1], boxes[-1])
            queries, reference = proposals.queries, proposals.boxes
        else:
            wide = (self.num_queries, 2 * self.width)
            table = self.param("queries", nn.initializers.normal(1.0), wide)
            queries = jnp.broadcast_to(table, (len(image.tokens), *wide))
            start = self.param_init.dense(self.width, 2)
            points = nn.Dense(2, **start, dtype=self.dtype, name="reference")
            reference = nn.sigmoid(at_least_float32(points(queries[..., : self.width])))
        positions, x = jnp.split(queries.astype(image.tokens.dtype), 2, axis=-1)
        found: list[tuple[Array, Array]] = []
        for i in range(self.decoder_depth):
            x = self._decode(x, positions, reference, image, train, f"decoder_{i}")
            which = i if self.refine else 0
            box = boxes[which](x)
            place = logit(reference)
            box += jnp.pad(place, ((0, 0), (0, 0), (0, 4 - place.shape[-1])))
            found.append((at_least_float32(logits[which](x)), nn.sigmoid(box)))
            reference = jax.lax.stop_gradient(found[-1][1]) if self.refine else reference
        return SetBoxes(*(jnp.stack(part, axis=1) for part in zip(*found))), proposals

    def _exits(self) -> tuple[list[nn.Dense], list[BoxMlp]]:
        """Build the layers of classes and boxes: for all of the decoder's, or for each its own.

        A box begins as its reference, with small sides where that is a point.
        """
        init, sides = self.param_init, 0.0 if self.two_stage else -2.0
        bias = nn.initializers.constant(-math.log((1 - PRIOR) / PRIOR))
        drawn: Any = init.of_head(self.width, self.num_classes) | dict(bias_init=bias)
        exits = range(self.decoder_depth + self.two_stage if self.refine else 1)
        logits = [
            nn.Dense(self.num_classes, **drawn, dtype=self.dtype, name=f"class_logits_{i}")
            for i in exits
        ]
        first = [_begin_with(0.0 if i else sides) for i in exits]
        boxes = [BoxMlp(start, init, self.dtype, name=f"box_{i}") for i, start in enumerate(first)]
        return logits, boxes

    def _encode(self, maps: Maps, pixels: Array | None, train: bool) -> Image:
        """Project the maps, and encode them."""
        levels = self._project(maps, train)
        masks = [inside_map(pixels, x) for x in levels]
        shares = jnp.stack([valid_share(mask) for mask in masks], axis=1)
        table = self.param("level", nn.initializers.normal(1.0), (len(levels), self.width))
        placed, points = [], []
        for i, mask in enumerate(masks):
            sines = sine_positions(mask, self.width, 0.5) + table[i]
            placed.append(sines.astype(levels[0].dtype))
            points.append(cell_centres(*mask.shape[1:]) / shares[:, i, None, None])
        positions, points, x = (_tokens(a) for a in (placed, points, levels))
        image = Image(x, masks, shares)
        references = points[:, :, None] * shares[:, None]
        for i in range(self.encoder_depth):

            def attend(x: Array) -> Array:
                module = sampler(self, "attn")
                return module.sample(x + positions, references, image.levels(x), masks, train)

            layer = EncoderLayer(
                self.mlp_ratio, self.drop_rate, self.param_init, self.dtype, name=f"encoder_{i}"
            )
            x = layer(x, attend, train)
        return image._replace(tokens=x)

    def _project(self, maps: Maps, train: bool) -> list[Array]:
        """Project the maps to the transformer's width, and add coarser ones."""
        strides = self.strides
        if lacks_pyramid(strides):
            maps = MultiLevelNeck(strides, dtype=self.dtype, name="resample")(maps, train)
            strides = PYRAMID
        maps = tuple(x for x, stride in zip(maps, strides, strict=True) if stride >= self.finest)
        how: Any = dict(norm=group_norm(32), param_init=self.param_init, dtype=self.dtype)
        levels = [
            ConvNorm(self.width, 1, 1, **how, name=f"input_{i}")(x, train)
            for i, x in enumerate(maps)
        ]
        for i in range(self.extra_levels):
            conv = ConvNorm(self.width, 3, 2, 1, **how, name=f"input_{len(levels)}")
            levels.append(conv(levels[-1] if i else maps[-1], train))
        return levels

    def _decode(
        self, x: Array, positions: Array, reference: Array, image: Image, train: bool, name: str
    ) -> Array:
        """Run a layer of the decoder, whose queries sample about references."""
        shares = jnp.tile(image.shares, reference.shape[-1] // 2)
        references = reference[:, :, None] * shares[:, None]

        def attend(queries: Array) -> Array:
            levels = image.levels(image.tokens)
            return sampler(self, "cross").sample(queries, references, levels, image.inside, train)

        layer = DecoderLayer(
            self.num_heads, self.mlp_ratio, self.drop_rate, self.param_init, self.dtype, name=name
        )
        return layer(x, positions, attend, train)

    @property
    def criterion(self) -> Criterion:
        """What the loss weighs."""
        return Criterion(self.loss_weights, softmax=False)

    def loss(
        self, maps: Maps, size: Size, targets: Targets, mask: Array, train: bool = False
    ) -> LossParts:
        """Compute the loss of images of a size, divided by the number of objects."""
        extent = extent_of(targets, size)
        found, proposals = self.predict(maps, inside(extent, size), train)
        each = layer_losses(found, targets, extent, mask, self.criterion)
        parts = loss_parts(each, targets.wanted, mask, self.criterion)
        if proposals is None:
            return parts
        objects = targets._replace(classes=jnp.zeros_like(targets.classes))
        each = layer_losses(proposals.every, objects, extent, mask, self.criterion)
        first = sum(loss_parts(each, targets.wanted, mask, self.criterion).parts.values())
        return parts._replace(parts={**parts.parts, "proposal_loss": first})

    def detect(self, maps: Maps, size: Size, extent: Int[Array, "B 2"]) -> Detections:
        """Detect objects in images of a size, whose part `extent` is no padding."""
        return select(self(maps, False, inside(extent, size)), extent, self.limit, softmax=False)


def sampler(head: Any, name: str) -> MultiScaleDeformableAttention:
    """Build an attention of a head, in the module that calls it."""
    return MultiScaleDeformableAttention(
        head.num_heads, head.num_points, True, head.drop_rate, head.param_init, head.dtype,
        name=name,
    )  # fmt: skip


def logit(p: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Compute the inverse of the sigmoid, of what is not nearer than EPS to 0 or 1."""
    return jnp.log(jnp.maximum(p, EPS) / jnp.maximum(1 - p, EPS))


def valid_share(mask: Bool[Array, "B H W"]) -> Float[Array, "B 2"]:
    """Compute the shares of width and height that are no padding."""
    exact = jnp.result_type(float)
    return jnp.stack([mask[:, 0].mean(-1, exact), mask[:, :, 0].mean(-1, exact)], axis=-1)


def _tokens(maps: list[Float[Array, "B _ _ C"]]) -> Float[Array, "B N C"]:
    return jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps], axis=1)


def _begin_with(sides: float) -> Any:
    """Build the initialisers of boxes' last layer: zeros, but for the logits of sides."""

    def first(*_: Any) -> Array:
        return jnp.array([0.0, 0.0, sides, sides])

    return lambda fan_in, fan_out: dict(kernel_init=zeros, bias_init=first)
