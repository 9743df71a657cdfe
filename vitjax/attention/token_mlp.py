"""The token-mixing MLP: one MLP over all positions of each channel (MLP-Mixer, arXiv:2105.01601,
eq. 1).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import Mlp, hidden_width


class TokenMlp(nn.Module):
    """Mix positions by an MLP that all channels share (parameters `tokens/fc{1,2}`).

    Its kernels have a row for each position, so that the number of positions is fixed when the
    parameters are made: unlike other mixers it takes no other map size afterwards.

    Attributes:
      token_ratio: hidden width of the MLP over the number of channels (D_S / C).
      drop_rate: dropout after the activation and at the output.
    """

    token_ratio: float = 0.5
    drop_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        """Mix the positions of x by the MLP; the shape is kept.

        Raises:
          ValueError: the parameters are for another number of positions.
        """
        tokens = jnp.swapaxes(x.reshape(x.shape[0], -1, x.shape[-1]), 1, 2)  # [B, C, N]
        length = tokens.shape[-1]
        if self.has_variable("params", "tokens"):
            made_for = self.variables["params"]["tokens"]["fc1"]["kernel"].shape[0]
            if made_for != length:
                raise ValueError(
                    f"TokenMlp: its weights mix {made_for} positions, and x has {length}; resize "
                    f"the images to the model's image_size, or choose a mixer that takes any size, "
                    f"such as 'full'."
                )
        ratio = hidden_width(x.shape[-1], self.token_ratio) / length
        mlp = Mlp(
            ratio,
            drop_rate=self.drop_rate,
            param_init=self.param_init,
            dtype=self.dtype,
            name="tokens",
        )
        return jnp.swapaxes(mlp(tokens, train), 1, 2).reshape(x.shape)

    @staticmethod
    def takes_sequences(**options: Any) -> bool:
        """Return True: this mixer never needs a map."""
        return True
