"""Every mixer of the menu keeps the contract."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.drawn import variables_of
from vitjax.attention import MIXERS, parse_mixers
from vitjax.layers.spec import Spec, fields, spec
from vitjax.models import create_model

WIDTH = 32


def slow(shape: tuple[int, ...]):
    return pytest.param(shape, marks=pytest.mark.slow)


def build(name: str):
    return MIXERS[name].at(0).default(num_heads=4).build()


def features(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, *shape, WIDTH))


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("shape", [(13, 11), slow((14, 14)), slow((7, 17))])
def test_a_map_of_any_size_keeps_its_shape_and_has_finite_gradients(name: str, shape) -> None:
    mixer, x = build(name), features(*shape)
    variables = variables_of(mixer, x)

    @jax.jit
    def loss(params, x):
        rngs, rest = {"dropout": jax.random.key(2)}, [k for k in variables if k != "params"]
        y, _ = mixer.apply({**variables, "params": params}, x, True, rngs=rngs, mutable=rest)
        assert y.shape == x.shape
        return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape)))

    grads = jax.grad(loss, argnums=(0, 1))(variables.get("params", {}), x)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
def test_bfloat16_in_bfloat16_out_near_float32(name: str) -> None:
    mixer, x = build(name), features(14, 14)
    half = MIXERS[name].at(0).default(num_heads=4, dtype=jnp.bfloat16).build()
    variables = jax.jit(mixer.init)(jax.random.key(1), x)
    exact = jax.jit(mixer.apply)(variables, x)
    rough = jax.jit(half.apply)(variables, x.astype(jnp.bfloat16))
    assert rough.dtype == jnp.bfloat16
    error = jnp.linalg.norm(rough.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
    # Rounding may move a region across the routing threshold, but not the bulk of the map.
    assert error < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
def test_samples_do_not_see_each_other(name: str) -> None:
    """The batch is the samples one by one, also under vmap."""
    mixer, x = build(name), features(14, 14)
    variables = variables_of(mixer, x)
    whole = jax.jit(mixer.apply)(variables, x)
    alone = jax.jit(jax.vmap(lambda y: mixer.apply(variables, y[None])[0]))(x)
    np.testing.assert_allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize("name", MIXERS)
def test_signature_and_vocabulary(name: str) -> None:
    factory = MIXERS[name].factory
    parameters = list(inspect.signature(factory.__call__).parameters)
    assert parameters[1:3] == ["x", "train"]
    assert "dim" not in fields(factory)
    assert "dtype" in fields(factory)


@pytest.mark.parametrize("name", MIXERS)
def test_without_being_asked_nothing_is_sown(name: str) -> None:
    mixer, x = build(name), features(14, 14)
    assert set(jax.eval_shape(mixer.init, jax.random.key(1), x)) <= {"params", "batch_stats"}


def test_the_strings_of_configs() -> None:
    alternate = parse_mixers("full | full(qk_norm=True)", 2)
    assert alternate == (alternate[0],) * 2
    assert alternate[0][1] == MIXERS["full"].replace(qk_norm=True)
    assert parse_mixers("full; full(num_heads=(1, 2))", 2)[1][0] == spec(
        MIXERS["full"].factory, num_heads=2
    )


def test_specs_are_values() -> None:
    a, b = spec(dict, x=1, y=(2, 3)), spec(dict, y=(2, 3), x=1)
    assert a == b
    assert hash(a) == hash(b)
    assert a.at(1).build(z=4) == {"x": 1, "y": 3, "z": 4}
    assert isinstance(a.replace(x=5), Spec)
    with pytest.raises(ValueError, match=r"has 2 per-stage values \(2, 3\)"):
        a.at(2)


@pytest.mark.parametrize("name", ["dwconv", "pooling", "outlook", "deformable", "full_lepe", "bra"])
def test_a_sequence_is_not_taken_for_a_map(name: str) -> None:
    """A convolution would read `[B, N, C]` as one map, and mix the batch."""
    model = create_model("vit_ti4", width=32, depth=1, num_heads=4, image_size=8, mixer=name)
    images = jnp.zeros((2, 8, 8, 3))
    with pytest.raises((ValueError, TypeCheckError), match=r"B H W C|B, H, W, C"):
        jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.mark.parametrize("name", MIXERS)
def test_it_works_in_a_vit_without_class_token(name: str) -> None:
    model = create_model(
        "vit_ti4", width=32, depth=1, num_heads=4, image_size=32, pool="gap", mixer=name
    )
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    assert logits.shape == (2, 1000)
