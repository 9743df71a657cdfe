"""DETR's head (Carion et al., arXiv:2005.12872): a transformer from a map to a set of objects."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vitjax.attention.cross import CrossAttention
from vitjax.detection.results import Detections, LossParts, Targets
from vitjax.heads.blocks import at_least_float32
from vitjax.heads.queries import TRANSFORMER, BoxMlp, DecoderLayer, EncoderLayer, norm
from vitjax.heads.set_prediction import Criterion, SetBoxes, layer_losses, loss_parts, select
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init
from vitjax.layers.maps import inside
from vitjax.layers.position import sine_positions

Maps = tuple[Float[Array, "B _ _ _"], ...]
Size = tuple[int, int]


class DETRHead(nn.Module):
    """The last map, projected (`input`), encoded (`encoder_{i}`), and read by queries.

    Those (`queries`) are positions of objects, and begin as zeros. After each layer
    (`decoder_{i}`) they are normalised (`norm`) and give classes (`class_logits`) and boxes
    (`box`), of which all are learnt.

    Attributes:
      width: of the transformer.
      encoder_depth, decoder_depth: layers.
      mlp_ratio: hidden width over width.
      num_queries: most objects that are found.
      drop_rate: dropout in the transformer, and of its attention's weights.
      loss_weights: of classes, L1 distances and overlaps, in the loss and in the costs of matching.
      no_object: weight of queries without an object in the loss of classes.
      limit: detections of an image.
    """

    num_classes: int
    width: int = 256
    num_heads: int = 8
    encoder_depth: int = 6
    decoder_depth: int = 6
    mlp_ratio: float = 8.0
    num_queries: int = 100
    drop_rate: float = 0.1
    loss_weights: tuple[float, float, float] = (1.0, 5.0, 2.0)
    no_object: float = 0.1
    limit: int = 100
    param_init: Init = TRANSFORMER
    dtype: Any = None

    @nn.compact
    def __call__(
        self, maps: Maps, train: bool = False, pixels: Bool[Array, "B H W"] | None = None
    ) -> SetBoxes:
        """Compute what each query finds.

        Args:
          pixels: which pixels of the images are no padding; None for all.
        """
        context: Any = dict(param_init=self.param_init, dtype=self.dtype)
        x = ConvNorm(self.width, 1, 1, **context, name="input")(maps[-1], train)
        seen = inside_map(pixels, x)
        positions = sine_positions(seen, self.width).astype(x.dtype)
        x, positions = (a.reshape(len(x), -1, self.width) for a in (x, positions))
        seen = seen.reshape(len(x), -1)
        layer: Any = dict(mlp_ratio=self.mlp_ratio, drop_rate=self.drop_rate, **context)

        def attend(q: Array, k: Array, v: Array, name: str) -> Array:
            drop = self.drop_rate
            module = CrossAttention(self.num_heads, True, drop, drop, **context, name=name)
            return module(q, k, v, seen, train)

        for i in range(self.encoder_depth):
            encode = EncoderLayer(**layer, name=f"encoder_{i}")
            x = encode(x, lambda x: attend(x + positions, x + positions, x, "attn"), train)
        memory, keys = x, x + positions
        table = self.param("queries", nn.initializers.normal(1.0), (self.num_queries, self.width))
        queries = jnp.broadcast_to(table.astype(x.dtype), (len(x), *table.shape))
        x, last, after = jnp.zeros_like(queries), norm(self, "norm"), []
        for i in range(self.decoder_depth):
            decode = DecoderLayer(self.num_heads, **layer, name=f"decoder_{i}")
            x = decode(x, queries, lambda q: attend(q, keys, memory, "cross"), train)
            after.append(last(x))
        x = jnp.stack(after, axis=1)
        init = self.param_init.of_head(self.width, self.num_classes + 1)
        logits = nn.Dense(self.num_classes + 1, **init, dtype=self.dtype, name="class_logits")(x)
        boxes = nn.sigmoid(BoxMlp(**context, name="box")(x))
        return SetBoxes(at_least_float32(logits), boxes)

    @property
    def criterion(self) -> Criterion:
        """What the loss weighs."""
        return Criterion(self.loss_weights, True, self.no_object)

    def loss(
        self, maps: Maps, size: Size, targets: Targets, mask: Array, train: bool = False
    ) -> LossParts:
        """Compute the loss of images of a size, divided by the number of objects."""
        extent = extent_of(targets, size)
        found = self(maps, train, inside(extent, size))
        each = layer_losses(found, targets, extent, mask, self.criterion)
        return loss_parts(each, targets.wanted, mask, self.criterion)

    def detect(self, maps: Maps, size: Size, extent: Int[Array, "B 2"]) -> Detections:
        """Detect objects in images of a size, whose part `extent` is no padding."""
        return select(self(maps, False, inside(extent, size)), extent, self.limit, softmax=True)


def extent_of(targets: Targets, size: Size) -> Int[Array, "B 2"]:
    """Return height and width of the images in their canvases of a size."""
    if targets.extent is not None:
        return targets.extent
    return jnp.tile(jnp.array(size), (len(targets.boxes), 1))


def inside_map(
    pixels: Bool[Array, "B H W"] | None, x: Float[Array, "B h w C"]
) -> Bool[Array, "B h w"]:
    """Return which positions of a map are no padding, by the nearest pixels."""
    if pixels is None:
        return jnp.ones(x.shape[:3], bool)
    rows, columns = (np.arange(m) * n // m for m, n in zip(x.shape[1:3], pixels.shape[1:]))
    return pixels[:, rows][:, :, columns]
