"""Rotary positions (Su et al., arXiv:2104.09864, eq. 34) of the patches of a map.

In two dimensions as DINOv3 has them (arXiv:2508.10104, section 3.2): a half of each head's pairs of
channels turns with the row, the other with the column, and positions are relative to the map, so
that weights serve any size of images.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.spec import fields
from vitjax.names import parse_call, unknown


def patch_centers(height: int, width: int) -> Float[Array, "N 2"]:
    """Compute the centres (y, x) of a map's patches; its borders are -1 and 1 on both axes."""
    y, x = (2 * (jnp.arange(n) + 0.5) / n - 1 for n in (height, width))
    return jnp.stack(jnp.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def rope_angles(
    points: Float[Array, "N 2"], head_width: int, theta: float = 100.0
) -> Float[Array, "N r"]:
    """Compute the angles 2π · point · θ^(-4i / head_width), those of y and then those of x.

    Args:
      head_width: channels of a head; there are r = head_width / 2 angles.

    Raises:
      ValueError: head_width is no multiple of 4.
    """
    if head_width % 4:
        raise ValueError(
            f"Rotary positions turn pairs of channels on two axes: the width of a head must be "
            f"divisible by 4; got {head_width}. Choose another width or num_heads."
        )
    turns = theta ** (-4 * jnp.arange(head_width // 4) / head_width)
    return (2 * math.pi * points[:, :, None] * turns).reshape(points.shape[0], -1)


def rotate(x: Float[Array, "*B N h d"], angles: Float[Array, "N r"]) -> Float[Array, "*B N h d"]:
    """Turn each pair of channels (i, i + d/2) of all heads by the i-th angle of its position.

    The product is computed in float32 at least.
    """
    angles = angles[:, None].astype(jnp.promote_types(x.dtype, jnp.float32))
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions of a model, and how they vary while it trains.

    One draw a step, from flax's stream "dropout", moves the positions of all images: so a model
    learns other distances and sizes than its images have.

    Attributes:
      theta: base of the frequencies.
      shift: all points move by up to so much, on each axis.
      jitter: each axis is scaled by a log-uniform factor in [1/jitter, jitter].
      rescale: both are scaled by one such factor in [1/rescale, rescale].
    """

    theta: float = 100.0
    shift: float = 0.0
    jitter: float = 1.0
    rescale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Rope":
        """Parse "rope" or "rope(rescale=2.0)".

        Raises:
          ValueError: the text does not parse, or has an unknown option or a value that does not
            fit.
        """
        call = parse_call(text)
        if call is None:
            raise ValueError(
                f"position={text!r} does not parse; write 'rope', or 'rope(rescale=2.0)'."
            )
        least = {"theta": 0, "shift": 0, "jitter": 1, "rescale": 1}
        for key, value in call[1].items():
            if key not in least:
                raise ValueError(unknown("option of position='rope'", key, least))
            if (
                not isinstance(value, int | float)
                or value < least[key]
                or (key, value) == ("theta", 0)
            ):
                raise ValueError(
                    f"position={text!r}: {key}={value!r} does not fit; its options are numbers, "
                    f"theta above 0, shift from 0, jitter and rescale from 1."
                )
        return cls(**call[1])

    def __str__(self) -> str:
        own = {name: getattr(self, name) for name in fields(Rope)}
        given = ", ".join(f"{k}={v!r}" for k, v in own.items() if v != getattr(Rope, k))
        return f"rope({given})" if given else "rope"

    @property
    def varies(self) -> bool:
        """Whether positions vary while the model trains."""
        return (self.shift, self.jitter, self.rescale) != (0.0, 1.0, 1.0)

    def angles(
        self, grid: tuple[int, int], head_width: int, key: Array | None = None
    ) -> Float[Array, "N r"]:
        """Compute the angles of a map's patches, row by row; with a key, of a training step."""
        points = patch_centers(*grid)
        if key is not None:
            keys = jax.random.split(key, 3)

            def draw(key: Array, bound: float, axes: int) -> Array:
                return jax.random.uniform(key, (axes,), points.dtype, -bound, bound)

            points += draw(keys[0], self.shift, 2)
            points *= jnp.exp(draw(keys[1], math.log(self.jitter), 2))
            points *= jnp.exp(draw(keys[2], math.log(self.rescale), 1))
        return rope_angles(points, head_width, self.theta)
