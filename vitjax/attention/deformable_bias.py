"""Position biases of sampled keys (DAT, arXiv:2201.00520, eq. 10 and table 7; the logarithmic form
is Swin V2's, arXiv:2111.09883, eq. 5).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.sampling import reference_points, sample_position_bias
from vitjax.layers.init import NORMAL, Init

KINDS = ("table", "fixed", "log", "conv", "none")


def log_displacement(
    points: Float[Array, "B G M 2"], grid: tuple[int, ...]
) -> Float[Array, "B G N M 2"]:
    """Compute sign(t) log₂(1 + |t|) / log₂ 8 of t = 4 (q - k), for a query grid over [-1, 1]."""
    queries = reference_points(*grid, shift=0.0, inset=1).astype(points.dtype).reshape(-1, 1, 2)
    t = 4 * (queries - points[:, :, None])
    return jnp.sign(t) * jnp.log2(1 + jnp.abs(t)) / 3


class DisplacementBias(nn.Module):
    """The bias of each head for a query grid and the sampling points of its group.

    Attributes:
      kind: "table", sampled at the displacement; "fixed", an entry for each query and key; "log",
        an MLP of the logarithmic displacement that the groups share.
      table_size: (height, width) of the map that a table is made for, of clips (frames, height,
        width), for which there is "table" alone; None for that of the first call. On other maps
        "table" is sampled at relative displacements, "fixed" is resized.
      stride: pixels of the map between sampling points.
    """

    kind: str
    num_heads: int
    table_size: tuple[int, ...] | None = None
    stride: int = 1
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(
        self, points: Float[Array, "B G *S axes"], grid: tuple[int, ...]
    ) -> Float[Array, "*b heads N M"]:
        lead, sides = points.shape[:2], points.shape[2:-1]
        points = points.reshape(*lead, math.prod(sides), len(sides))
        made = self.table_size or grid
        if self.kind == "table":
            table = self.table((self.num_heads, *(2 * side - 1 for side in made)))
            return sample_position_bias(table, points, grid)
        height, width = made
        if self.kind == "fixed":
            keys = max(height // self.stride, 1), max(width // self.stride, 1)
            made_for = (height, width, *keys)
            table = self.table((self.num_heads, height * width, made_for[2] * made_for[3]))
            return resize_fixed_bias(table, made_for, (*grid, *sides))
        dense, heads = self.param_init.dense, self.num_heads // lead[1]
        displacement = log_displacement(points, grid)
        hidden = nn.Dense(32, **dense(2, 32), dtype=self.dtype, name="fc1")(displacement)
        last = nn.Dense(heads, use_bias=False, **dense(32, heads), dtype=self.dtype, name="fc2")
        bias = last(nn.relu(hidden))
        return jnp.moveaxis(bias, -1, 2).reshape(lead[0], self.num_heads, *bias.shape[2:4])

    def table(self, shape: tuple[int, ...]) -> Array:
        """Return the stored table, of whatever map size, or create one of the given shape."""
        if self.table_size is None and self.has_variable("params", "table"):
            table = self.get_variable("params", "table")
        else:
            table = self.param("table", self.param_init.table, shape)
        return table if self.dtype is None else table.astype(self.dtype)


def resize_fixed_bias(
    table: Float[Array, "heads N M"],
    made_for: tuple[int, ...],
    size: tuple[int, ...],
    method: str = "bilinear",
) -> Float[Array, "heads n m"]:
    """Interpolate a "fixed" table over (query rows, query columns, key rows, key columns)."""
    if made_for == size:
        return table
    heads = table.shape[0]
    table = jax.image.resize(table.reshape(heads, *made_for), (heads, *size), method)
    return table.reshape(heads, math.prod(size[:2]), math.prod(size[2:]))
