"""DeiT against the numbers of the official implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import random_variables
from tests.golden.compare import check_case
from vitjax import weights

STAGES = {
    "patch_embed": "patch_embed",
    "pos_drop": "drop",
    "norm": "norm",
    "head": "head",
    "head_dist": "head_dist",
} | {f"blocks.{i}": f"block_{i}" for i in range(12)}
COUNTS = {
    "deit_tiny": 5_717_416,
    "deit_small": 22_050_664,
    "deit_base": 86_567_656,
    "deit_tiny_distilled": 5_910_800,
    "deit_small_distilled": 22_436_432,
    "deit_base_distilled": 87_338_192,
}
SMALL = dict(width=32, depth=2, num_heads=2, image_size=64, num_classes=5)


@pytest.mark.golden
@pytest.mark.usefixtures("optimized")
def test_distilled_deit_is_the_official_one() -> None:
    check_case("deit_tiny_distilled_patch16_224", "deit_tiny_distilled", STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("deit_*"))
def test_counts(name: str) -> None:
    params = weights.abstract_variables(vitjax.create_model(name))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS[name]


@pytest.mark.slow
def test_two_heads_and_their_mean() -> None:
    model = vitjax.create_model("deit_tiny_distilled", **SMALL)
    variables = random_variables(model)
    x = jax.random.normal(jax.random.key(2), (2, 80, 48, 3))
    both = jax.jit(lambda v: model.apply(v, x, method="class_and_distillation_logits"))
    labels, teacher = both(variables)
    assert labels.shape == teacher.shape == (2, 5)
    assert float(jnp.abs(labels - teacher).max()) > 1e-2
    np.testing.assert_allclose(
        jax.jit(model.apply)(variables, x), (labels + teacher) / 2, atol=1e-6
    )
    (patches,) = jax.eval_shape(lambda v: model.apply(v, x, method="features"), variables)
    assert patches.shape == (2, 5, 3, 32)
    pooled = model.clone(num_classes=0)
    assert jax.eval_shape(pooled.apply, variables, x).shape == (2, 32)


@pytest.mark.slow
def test_every_token_has_a_position_and_a_gradient() -> None:
    model = vitjax.create_model("deit_tiny_distilled", **SMALL)
    variables = random_variables(model)
    assert variables["params"]["pos_embed"].shape == (1, 18, 32)
    x = jax.random.normal(jax.random.key(2), (2, 64, 64, 3))
    loss = lambda p: jnp.square(model.apply({"params": p}, x)).sum()  # noqa: E731
    grads = jax.jit(jax.grad(loss))(variables["params"])
    assert all(jnp.isfinite(g).all() and jnp.abs(g).max() > 0 for g in jax.tree.leaves(grads))
    assert (jnp.abs(grads["pos_embed"]).max(-1) > 0).all()


@pytest.mark.slow
def test_bfloat16() -> None:
    model = vitjax.create_model("deit_tiny_distilled", **SMALL)
    variables = random_variables(model)
    x = jax.random.normal(jax.random.key(2), (2, 64, 64, 3))
    exact = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half.dtype == jnp.bfloat16
    assert jnp.linalg.norm(half - exact) <= 3e-2 * jnp.linalg.norm(exact)


def test_a_distillation_token_needs_its_place() -> None:
    with pytest.raises(ValueError, match=r"pool='gap'.*pool='token' and num_registers=1"):
        vitjax.create_model("deit_tiny_distilled", pool="gap")
