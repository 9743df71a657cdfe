"""Forms of scaling laws, in the logarithm of the loss.

A law has parameters θ for inputs that are divided by their geometric mean, which makes it well
conditioned; `natural` converts them to those of the published form.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Law(NamedTuple):
    """Form of a scaling law.

    Attributes:
      formula: as it is printed.
      names: of the natural parameters.
      log_loss: (θ, logarithms of the inputs `[M, k]`) → logarithm of the loss `[M]`.
      natural: (θ `[…, p]`, mean logarithms of the inputs `[k]`) → natural parameters `[…, p]`.
      starts: values of each θ from whose products fits start; those of a loss are relative to the
        logarithm of the least loss.
      levels: indices of the θ that are logarithms of losses.
    """

    formula: str
    names: tuple[str, ...]
    log_loss: Callable[[Float[Array, "p"], Float[Array, "M k"]], Float[Array, "M"]]
    natural: Callable[[Float[np.ndarray, "*R p"], Float[np.ndarray, "k"]], np.ndarray]
    starts: tuple[tuple[float, ...], ...]
    levels: tuple[int, ...]

    def grid(self, least: float) -> Float[np.ndarray, "S p"]:
        """Build the starts: the products of `starts`.

        Args:
          least: logarithm of the least loss.
        """
        grid = np.array(list(itertools.product(*self.starts)))
        grid[:, list(self.levels)] += least
        return grid


def _exp(x: Any) -> Any:
    """Compute exp(x), kept finite with its square: data may leave a parameter undetermined."""
    return np.exp(np.clip(x, -300.0, 300.0))


def _size_and_data(theta: Float[Array, "p"], x: Float[Array, "M k"]) -> Float[Array, "M"]:
    e, a, b, alpha, beta = theta
    terms = jnp.stack([jnp.full(len(x), e), a - alpha * x[:, 0], b - beta * x[:, 1]])
    return jax.nn.logsumexp(terms, axis=0)


def _size_and_data_natural(theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
    e, a, b, alpha, beta = np.moveaxis(theta, -1, 0)
    a, b = a + alpha * centre[0], b + beta * centre[1]
    return np.stack([_exp(e), _exp(a), _exp(b), alpha, beta], axis=-1)


def _compute(theta: Float[Array, "p"], x: Float[Array, "M k"]) -> Float[Array, "M"]:
    c, a, b, d = theta
    return jnp.logaddexp(c, a - b * jnp.logaddexp(x[:, 0], d))


def _compute_natural(theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
    c, a, b, d = np.moveaxis(theta, -1, 0)
    return np.stack([_exp(c), _exp(a + b * centre[0]), b, _exp(d + centre[0])], axis=-1)


SIZE_AND_DATA = Law(
    "L(N, D) = E + A / N^alpha + B / D^beta", ("E", "A", "B", "alpha", "beta"),
    _size_and_data, _size_and_data_natural,
    ((-4.0, -1.0, -0.3, 0.0), (-4.0, -2.0, -1.0, 0.0, 1.0), (-4.0, -2.0, -1.0, 0.0, 1.0),
     (0.1, 0.3, 0.5, 1.0, 1.5), (0.1, 0.3, 0.5, 1.0, 1.5)),
    (0, 1, 2),
)  # fmt: skip
"""Hoffmann et al., arXiv:2203.15556, eq. 2 and section D.2; N parameters, D samples."""
COMPUTE = Law(
    "L(C) = a (C + d)^-b + c", ("c", "a", "b", "d"), _compute, _compute_natural,
    ((-4.0, -2.0, -1.0, -0.3, 0.0), (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0),
     (0.1, 0.2, 0.35, 0.5, 1.0, 1.5), (-12.0, -8.0, -5.0, -3.0, -1.0, 0.0)),
    (0, 1),
)  # fmt: skip
"""Zhai et al., Scaling Vision Transformers, arXiv:2106.04560, section 2.2: the loss saturates at c
for much compute, and at a d^-b + c for none."""
