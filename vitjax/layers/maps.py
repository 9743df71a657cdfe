"""Maps `[B, H, W, C]`: a check of the rank, and padding to a multiple."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def require_map(x: Array) -> None:
    """Raise ValueError unless x is `[B, H, W, C]`.

    A convolution would take a sequence `[B, N, C]` for one map, and mix the batch.
    """
    if x.ndim != 4:
        raise ValueError(
            f"A map [B, H, W, C] is needed here, and this is a sequence of shape {x.shape}; choose "
            "a token mixer that takes sequences ('full'), or a model whose blocks see maps; a "
            "ViT's do without class token and registers (pool='gap')."
        )


def pad_to_multiple(x: Float[Array, "B H W C"], multiple: int) -> Float[Array, "B h w C"]:
    """Pad a map with zeros at the right and bottom until both sides are multiples."""
    require_map(x)
    bottom, right = (-side % multiple for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0))) if bottom or right else x
