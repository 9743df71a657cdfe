"""Pyramids whose stages are scanned: the same variables, numbers, statistics and records."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax

MODELS = {  # a cycle of two mixers and a block left over; two turns, with batch norms
    "swin_tiny": dict(depths=(2, 5), dims=(6, 10), num_heads=(1, 2)),
    "debiformer_tiny": dict(
        dims=(32, 64),
        depths=(1, 4),
        offset_groups=(1, 2),
        table_size=(16, 8),
        n_win=4,
        mixer="bra(topk=1) | dbra(topk=4) ; bra(topk=2) | dbra(topk=8)",
    ),
}


def images(batch: int = 2) -> Any:
    return jax.random.normal(jax.random.key(1), (batch, 64, 64, 3))


def build(name: str, **options: Any) -> Any:
    return vitjax.create_model(name, num_classes=5, image_size=64, **MODELS[name], **options)


def run(model: Any, variables: Any, x: Any) -> Any:
    def loss(params: Any) -> Any:
        given = {**variables, "params": params}
        out, new = model.apply(given, x, mutable=["batch_stats", "intermediates"])
        return jnp.sum(out**2), (out, new)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_scanned_pyramid_is_the_unrolled_one(name: str) -> None:
    plain, scanned = build(name), build(name, scan=True)
    variables = jax.jit(plain.init)(jax.random.key(0), images())
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), images())
    chex.assert_trees_all_equal_shapes(shapes, variables)
    (_, (out, new)), grads = run(plain, variables, images())
    for model in (scanned, *([build(name, scan=True, remat=True)] if name == "swin_tiny" else [])):
        (_, (ours, same)), g = run(model, variables, images())
        np.testing.assert_allclose(ours, out, atol=1e-6 * float(jnp.abs(out).max()))
        chex.assert_trees_all_equal_structs(same, new)
        chex.assert_trees_all_close(same, new, rtol=1e-4, atol=1e-5)
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads))
        chex.assert_trees_all_close(g, grads, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.slow
def test_each_turn_has_its_own_rate_and_draws() -> None:
    rates = (0.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0)
    model = build("swin_tiny", scan=True).clone(drop_path_rate=rates)
    variables = jax.jit(model.init)(jax.random.key(0), images())
    # Branches of a size that shows: the norms after initialisation hide none of them.
    variables = jax.tree.map(lambda p: 3 * p, variables)
    x = jnp.repeat(images(1), 256, axis=0)
    apply = jax.jit(lambda key: model.apply(variables, x, True, rngs={"dropout": key}))
    outputs = np.asarray(apply(jax.random.key(2))).round(4)
    # Two blocks of two branches drop each, with draws of their own: 2⁴ outcomes.
    assert len(np.unique(outputs, axis=0)) == 16


@pytest.mark.slow
def test_a_scanned_stage_is_one_loop_in_the_program() -> None:
    def length(depth: int, scan: bool) -> int:
        model = vitjax.create_model(
            "swin_tiny", num_classes=5, image_size=64, dims=(6, 10, 14, 22), num_heads=(1, 1, 2, 2),
            depths=(1, 1, depth, 1), scan=scan,
        )  # fmt: skip
        variables = jax.eval_shape(model.init, jax.random.key(0), images())
        return len(jax.jit(model.apply).lower(variables, images()).as_text().splitlines())

    assert length(8, True) < 1.5 * length(4, True) < 2.25 * length(4, False)
    assert length(8, True) < 0.8 * length(8, False)
