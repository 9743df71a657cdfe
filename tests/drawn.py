"""Random variables from numpy: drawing them compiles nothing, as a module's own `init` does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def draw(shapes: Any, rng: np.random.Generator) -> Any:
    """Draw variables of these shapes, none of them zero: kernels of variance one over fan-in."""

    def value(path: Any, leaf: Any) -> np.ndarray:
        z = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key in ("scale", "var"):
            return 1 + 0.1 * np.abs(z)
        return z / np.sqrt(max(1, np.prod(leaf.shape[:-1]))) if leaf.ndim > 1 else 0.1 * z

    return jax.tree_util.tree_map_with_path(value, shapes)


def variables_of(module: Any, *inputs: Any, seed: int = 0) -> Any:
    """Draw the variables of a module that reads such inputs, as JAX arrays."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.tree.map(jnp.asarray, draw(shapes, np.random.default_rng(seed)))
