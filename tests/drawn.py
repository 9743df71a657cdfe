"""Random variables from numpy: drawing them compiles nothing, as a module's own `init` does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import weights
from vitjax.abstract import abstract_init


def draw(shapes: Any, rng: np.random.Generator) -> Any:
    """Draw variables of these shapes, none of them zero: kernels of variance one over fan-in,
    vectors around one.
    """

    def value(leaf: Any) -> np.ndarray:
        z = rng.standard_normal(leaf.shape)
        fan_in = np.prod(leaf.shape[:-1])
        return (z * fan_in**-0.5 if leaf.ndim > 1 else 1 + 0.1 * z).astype(np.float32)

    return jax.tree.map(value, shapes)


def random_variables(model: Any) -> Any:
    """Draw the variables of a model of the menu."""
    return draw(weights.abstract_variables(model), np.random.default_rng(0))


def variables_of(module: Any, *inputs: Any, seed: int = 0) -> Any:
    """Draw the variables of a module that reads such inputs, as JAX arrays."""
    shapes = abstract_init(module.init, jax.random.key(0), *inputs)
    return jax.tree.map(jnp.asarray, draw(shapes, np.random.default_rng(seed)))
