"""Maps `[B, H, W, C]` and clips `[B, T, H, W, C]`: their rank, padding, cutting and cropping."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

PerAxis = int | tuple[int, ...]
"""A value for each axis, (H, W) of a map or (T, H, W) of a clip; one number: a map's sides."""


def per_axis(value: PerAxis) -> tuple[int, ...]:
    """Return a value for each axis; see `PerAxis`."""
    return (value, value) if isinstance(value, int) else value


def by_sides(sides: Sequence[int]) -> str:
    """Format lengths of axes: 7×5."""
    return "×".join(map(str, sides))


def require_map(x: Array, axes: int = 2) -> None:
    """Raise ValueError unless x is `[B, H, W, C]`, or for 3 axes `[B, T, H, W, C]`.

    A convolution would take a sequence `[B, N, C]` for one map, and mix the batch.
    """
    if x.ndim == axes + 2:
        return
    if axes == 3:
        raise ValueError(
            f"A clip [B, T, H, W, C] is needed here, and this is of shape {x.shape}; give "
            f"clips, or choose a model and a token mixer that see images."
        )
    raise ValueError(
        f"A map [B, H, W, C] is needed here, and this is a sequence of shape {x.shape}; choose "
        "a token mixer that takes sequences ('full'), or a model whose blocks see maps; a "
        "ViT's do without class token and registers (pool='gap')."
    )


def pad_to_multiple(x: Float[Array, "B *S C"], multiple: PerAxis) -> Float[Array, "B *s C"]:
    """Pad a map or clip with zeros at the end of each axis until all are multiples."""
    multiples = per_axis(multiple)
    require_map(x, len(multiples))
    after = [-side % m for side, m in zip(x.shape[1:-1], multiples, strict=True)]
    return jnp.pad(x, ((0, 0), *((0, n) for n in after), (0, 0))) if any(after) else x


def crop_to(x: Float[Array, "B *S"], sides: Sequence[int]) -> Float[Array, "B *s"]:
    """Crop the end of the axes after the first to these lengths; it undoes `pad_to_multiple`."""
    return x[(slice(None), *(slice(side) for side in sides))]


def cut(x: Float[Array, "B *S"], parts: Sequence[int]) -> Float[Array, "B *s"]:
    """Cut each of the axes after the first into equal parts: `[B, *parts, *lengths, …]`."""
    axes = len(parts)
    batch, *shape = x.shape
    split = [n for side, p in zip(shape, parts) for n in (p, side // p)]
    x = x.reshape(batch, *split, *shape[axes:])
    number, length = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
    return x.transpose(0, *number, *length, *range(2 * axes + 1, x.ndim))


def join(x: Float[Array, "B *S"], axes: int) -> Float[Array, "B *s"]:
    """Join the parts of each axis, `[B, *parts, *lengths, …]`; the inverse of `cut`."""
    batch, *shape = x.shape
    parts, lengths, rest = shape[:axes], shape[axes : 2 * axes], shape[2 * axes :]
    order = [i for k in range(1, axes + 1) for i in (k, k + axes)]
    x = x.transpose(0, *order, *range(2 * axes + 1, x.ndim))
    return x.reshape(batch, *(p * n for p, n in zip(parts, lengths)), *rest)


def inside(extent: Int[Array, "B 2"], size: tuple[int, ...]) -> Bool[Array, "B H W"]:
    """Build the mask of the pixels of canvases that belong to their images."""
    rows = jnp.arange(size[0])[:, None] < extent[:, 0, None, None]
    return rows & (jnp.arange(size[1]) < extent[:, 1, None, None])
