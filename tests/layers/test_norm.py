"""BatchNorm whose statistics are frozen."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from vitjax.layers.norm import batch_norm, normalize


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_are_those_of_evaluation(frozen: bool) -> None:
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return normalize(batch_norm(frozen=frozen).build(name="norm"), x, train)

    x = jax.random.normal(jax.random.key(0), (7, 3)) * 2 + 5
    stats = {"norm": {"mean": jnp.full(3, 4.0), "var": jnp.full(3, 9.0)}}
    params = {"norm": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}
    variables = {"params": params, "batch_stats": stats}
    run: Any = Model().apply
    trained, changed = run(variables, x, True, mutable=["batch_stats"])
    evaluated = run(variables, x, False)
    np.testing.assert_allclose(evaluated, (x - 4) / np.sqrt(9 + 1e-5), rtol=1e-5)
    assert np.array_equal(trained, evaluated) == frozen
    assert np.array_equal(changed["batch_stats"]["norm"]["mean"], np.full(3, 4)) == frozen


def test_what_has_no_batch_norm_is_not_frozen() -> None:
    with pytest.raises(ValueError, match="frozen_statistics=True needs overlap=True"):
        vitjax.create_model("biformer_tiny", overlap=False, frozen_statistics=True)
