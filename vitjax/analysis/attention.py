"""Attention of any model on its input images: what each layer's queries attend to.

`capture` runs a model once and gives its logits and, for each layer that attends, `Rows` (see
`vitjax.attention.rows`) with their place on the image:

    seen = capture(model, variables, images)
    seen["stage_2/block_5"].on_image((112, 80))   # [B, heads, H, W]: where pixel (112, 80) looks
    seen["block_11"].on_image(0)                   # where the class token looks

Attention says which positions a layer mixes. It is no explanation of the output: see
`vitjax.analysis.check`.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from vitjax.attention.rows import GivesRows, Place, Rows
from vitjax.models.encoder import unstack_layers
from vitjax.models.protocols import Backbone
from vitjax.names import unknown

Query = int | tuple[int, int]
"""A token's number, from 0, or a pixel (y, x) of the image."""


@flax.struct.dataclass
class Layer:
    """Attention of one layer, on the image.

    Attributes:
      rows: of the layer's map.
      name: path of the block, such as "stage_2/block_5".
      stride: pixels of the image along a side of the map's pixel; what of the map lies beyond the
        image is padding.
      image_size: height and width of the image, in pixels.
    """

    rows: Rows
    name: str = flax.struct.field(pytree_node=False)
    stride: int = flax.struct.field(pytree_node=False)
    image_size: tuple[int, int] = flax.struct.field(pytree_node=False)

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.rows.weights.shape[1]

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of the map in which keys lie."""
        return self.rows.keys.height, self.rows.keys.width

    def index(self, query: Query) -> int:
        """Return the number of a query among the rows.

        Raises:
          ValueError: there is no such token, or the pixel lies outside of the image.
        """
        place = self.rows.queries
        if isinstance(query, int):
            if not 0 <= query < place.tokens:
                raise ValueError(
                    f"Layer {self.name!r} has {place.tokens} tokens without a place on the image, "
                    f"and the query is token {query}; give a pixel (y, x), or a token below."
                )
            return query
        if not place.height:
            raise ValueError(
                f"The queries of layer {self.name!r} are tokens and have no place on the image; "
                f"give a token's number, from 0 to {place.tokens - 1}."
            )
        if any(not 0 <= at < side for at, side in zip(query, self.image_size)):
            raise ValueError(
                f"Query {tuple(query)} lies outside of the image: y runs from 0 to "
                f"{self.image_size[0] - 1}, x from 0 to {self.image_size[1] - 1}."
            )
        # Without padding, rows and columns that are left over have the last pixel of the map.
        row, column = (
            min(at // self.stride, side - 1) for at, side in zip(query, place[1:], strict=True)
        )
        return place.tokens + row * place.width + column

    def on_map(self, query: Query) -> Float[np.ndarray, "B h y x"]:
        """Compute a query's weights of each pixel of the map, for each head."""
        row = np.asarray(_row(self.rows, self.index(query))[0])[:, :, self.rows.keys.tokens :]
        return row.reshape(*row.shape[:2], *self.map_size)

    def on_image(self, query: Query) -> Float[np.ndarray, "B h H W"]:
        """Compute a query's weights for each head; each pixel has that of its map's pixel."""
        return paint(self.on_map(query), self.stride, self.image_size)

    def on_tokens(self, query: Query) -> Float[np.ndarray, "B h t"]:
        """Compute a query's weights of the tokens that have no place."""
        row, _ = _row(self.rows, self.index(query))
        return np.asarray(row)[:, :, : self.rows.keys.tokens]

    def outside(self, query: Query) -> Float[np.ndarray, "B h"]:
        """Compute a query's weight of what is no part of the image: padding, points outside."""
        row, total = _row(self.rows, self.index(query))
        return np.asarray(total - row.sum(axis=-1))

    def reach(self, query: Query) -> Bool[np.ndarray, "B y x"]:
        """Return which pixels of the map a query has keys in: its window, its routed regions."""
        found = self.rows.of(self.index(query)).reach()[:, :, 0, self.rows.keys.tokens :]
        return np.asarray(found.any(axis=1).reshape(-1, *self.map_size))

    def points(self, query: Query) -> Float[np.ndarray, "B h k 3"]:
        """List a query's keys on the map as (y, x, weight), in pixels of the image.

        They are the centres of the boxes where keys lie: sampling points, centres of windows'
        pixels or of reduced patches; of an attention by agents, the agents.
        """
        row = self.rows.of(self.index(query))
        boxes = row.where[:, :, 0]
        centres = self.stride * (boxes[..., :2] + boxes[..., 2:]) / 2  # [b, g, k, 2]
        weights = row.weights[:, :, 0, row.keys.tokens if row.agents is None else 0 :]
        centres = jnp.repeat(centres, self.heads // centres.shape[1], axis=1)
        centres = jnp.broadcast_to(centres, (*weights.shape, 2))
        return np.asarray(jnp.concatenate([centres, weights[..., None]], axis=-1))


@jax.jit
def _row(rows: Rows, query: Array | int) -> tuple[Float[Array, "B h M"], Float[Array, "B h"]]:
    """Compute a query's weights of all positions, and the sum of its keys' weights."""
    row = rows.of(query)
    total = row.weights
    if row.agents is not None:
        total = total @ row.agents.weights.sum(axis=-1, keepdims=True)
    return row.dense()[:, :, 0], total.sum(axis=(-1, -2))


@flax.struct.dataclass
class Capture:
    """Output of a model, and the attention of each layer, first to last.

    Attributes:
      output: logits, or what else the model gives.
      layers: those whose keys have a place on the image.
      reads_token: the head reads the first token of the last layer, not the mean of its map.
    """

    output: Array
    layers: tuple[Layer, ...]
    reads_token: bool = flax.struct.field(pytree_node=False)

    @property
    def names(self) -> list[str]:
        """Names of the layers."""
        return [layer.name for layer in self.layers]

    def last_of(self, stage: str) -> Layer:
        """Return the last layer of a stage, "stage_2" say.

        Raises:
          ValueError: no layer of such a stage attends.
        """
        found = [layer for layer in self.layers if layer.name.startswith(f"{stage}/")]
        if not found:
            stages = dict.fromkeys(n.rpartition("/")[0] for n in self.names if "/" in n)
            raise ValueError(unknown("stage", stage, stages))
        return found[-1]

    def __getitem__(self, name: str | int) -> Layer:
        """Return a layer by its name, or by its number (-1 is the last).

        Raises:
          ValueError: there is no such layer.
        """
        if isinstance(name, int):
            if not -len(self.layers) <= name < len(self.layers):
                raise ValueError(
                    f"Layer {name}: the model has {len(self.layers)} layers that attend, 0 to "
                    f"{len(self.layers) - 1}."
                )
            return self.layers[name]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError(unknown("layer", name, self.names))


def check_head(layer: Layer, head: int) -> None:
    """Raise ValueError unless the layer has this head."""
    if not 0 <= head < layer.heads:
        raise ValueError(
            f"Layer {layer.name!r} has heads 0 to {layer.heads - 1}, and no head {head}."
        )


def paint(
    maps: Shaped[np.ndarray, "*B y x"], stride: int, image_size: tuple[int, int]
) -> Shaped[np.ndarray, "*B H W"]:
    """Enlarge maps to the image: every pixel takes the value of its map's pixel."""
    pixels = [
        np.minimum(np.arange(n) // stride, m - 1) for n, m in zip(image_size, maps.shape[-2:])
    ]
    return maps[..., pixels[0][:, None], pixels[1]]


def capture(model: nn.Module, variables: Any, images: Array | np.ndarray) -> Capture:
    """Run a model and capture the attention of all its layers.

    The output is that of the model as it is; in 16 bits that of its plain form, which rounds
    elsewhere. Memory is that of all weights together.

    Args:
      images: `[B, H, W, c]` as the model reads them, normalised.

    Raises:
      ValueError: no layer of the model attends, or its images are no `[B, H, W, c]`.
    """
    if images.ndim != 4:
        raise ValueError(
            f"Images [B, H, W, c] are needed, and these are of shape {images.shape}; add the axes "
            f"that are missing."
        )
    return _capture(*unrolled(model, variables), jnp.asarray(images))


def unrolled(model: nn.Module, variables: Any) -> tuple[nn.Module, Any]:
    """Return the model and its variables without loops over layers, which hide what is inside."""
    encoder = getattr(model, "encoder", None)
    if encoder is not None:
        kept = {k: v for k, v in encoder.kwargs if k not in ("scan", "remat")}
        model = model.clone(encoder=type(encoder)(encoder.factory, tuple(sorted(kept.items()))))
    looped: dict[str, Any] = {k: False for k in ("scan", "remat") if getattr(model, k, False)}
    model = model.clone(**looped)
    return model, {**variables, "params": unstack_layers(variables["params"])}


@functools.partial(jax.jit, static_argnums=0)
def _capture(model: nn.Module, variables: Any, images: Array) -> Capture:
    calls: Calls = {}
    with nn.intercept_methods(note_calls(calls)):
        output, sown = model.apply(variables, images, mutable=["intermediates"])
    return make_layers(model, variables, images, output, calls, sown.get("intermediates", {}))


Calls = dict[tuple[str, ...], tuple[Any, list[tuple[int, ...]]]]
"""Modules that attend, by their paths in the order of calls, and the shapes that each was given."""


def note_calls(calls: Calls) -> Any:
    """Build an interceptor that notes the modules that attend."""

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module: Any = context.module
        if context.method_name == "__call__" and isinstance(context.module, GivesRows):
            shapes = [x.shape for x in args if isinstance(x, jax.Array)]
            calls[module.path] = module.clone(parent=None), shapes
        return call(*args, **kwargs)

    return note


def make_layers(
    model: nn.Module, variables: Any, images: Array, output: Array, calls: Calls, sown: Any
) -> Capture:
    """Make a capture of what the modules have sown."""
    place = Places(model, variables, images)
    # Tokens that are called beside maps do not stand before the patches of one: Mobile-Former's.
    free = any({len(shape) for shape in shapes} == {3, 4} for _, shapes in calls.values())
    layers = []
    for path, (module, shapes) in calls.items():
        places = [place.of(shape, free) for shape in shapes]
        if places[-1].height:
            rows = module.attention_rows(_inside(sown, path), *places)
            rows = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), rows)
            name = "/".join(path[:-1] if path[-1] == "mixer" else path)
            layers.append(Layer(rows, name, place.stride(places[-1]), place.image_size))
    if not layers:
        raise ValueError(
            f"No layer of this {type(model).__name__} attends to places of the image, so there is "
            f"nothing to look at; choose a model with attention."
        )
    reads_token = bool(layers[-1].rows.queries.tokens) and getattr(model, "pool", "") != "gap"
    return Capture(output, tuple(layers), reads_token)


class Places:
    """Where the arrays of a model lie on its images.

    Attributes:
      strides: pixels of the image for each map size of the model.
    """

    def __init__(self, model: nn.Module, variables: Any, images: Array) -> None:
        self.image_size: tuple[int, int] = (images.shape[1], images.shape[2])
        multiple = getattr(model, "multiple", 1)
        self.padded = [-(-side // multiple) * multiple for side in self.image_size]
        backbone: Any = model
        features: Any = "features"
        if (encoder := getattr(model, "encoder", None)) is not None:
            backbone, features = encoder.build(), lambda m, x: m.backbone.features(x)
        self.strides: dict[tuple[int, int], int] = {}
        self.last = (0, 0)
        if isinstance(backbone, Backbone):
            apply = functools.partial(model.apply, method=features)
            maps: Any = jax.eval_shape(apply, variables, images)
            self.strides = {x.shape[1:3]: s for x, s in zip(maps, backbone.strides, strict=True)}
            self.last = maps[-1].shape[1:3]

    def of(self, shape: tuple[int, ...], free_tokens: bool) -> Place:
        """Return the place of an array of this shape.

        A sequence is the last map after tokens, or with `free_tokens` of these alone.
        """
        if len(shape) == 4:
            return Place(0, *shape[1:3])
        rest = shape[1] - self.last[0] * self.last[1]
        return Place(shape[1]) if free_tokens or rest < 0 else Place(rest, *self.last)

    def stride(self, place: Place) -> int:
        """Return the pixels of the image along a side of a map's pixel."""
        size = place[1:]
        if size in self.strides:
            return self.strides[size]
        # Restoration models have no `features`: their maps halve images of a multiple of pixels.
        ratio = max(n / side for n, side in zip(self.padded, size))
        return 2 ** max(0, round(np.log2(ratio)))


def _inside(tree: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for key in path:
        tree = tree.get(key, {})
    return tree
