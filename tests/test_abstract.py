"""Abstract initialisation has the shapes of the real one."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from vitjax.abstract import abstract_init
from vitjax.models import create_model
from vitjax.models.protocols import input_shape

MODELS = {  # name → options
    "vit_ti16": dict(depth=3, remat=True),
    "volo_d1": dict(depths=(2, 1, 3, 1)),  # the rates of stochastic depth say how many blocks
    "ranet_cifar_3scale": {},
    "mobile_former_26m": {},  # modules of one type and several inputs
    "efficientnet_b0": dict(dtype=jnp.bfloat16),
    "retinanet": dict(backbone="swin_tiny(depths=(1, 1, 1, 1))", image_size=64),  # shared heads
    "deformable_detr": dict(backbone="swin_tiny(depths=(1, 1, 1, 1))", image_size=64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_those_of_a_whole_trace(name: str) -> None:
    model = create_model(name, **MODELS[name])
    image = jax.ShapeDtypeStruct(input_shape(model), jnp.float32)
    ours = abstract_init(model.init, jax.random.key(0), image)
    theirs = jax.eval_shape(model.init, jax.random.key(0), image)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.leaves(ours) == jax.tree.leaves(theirs)


class Scale(nn.Module):
    """Reports each trace; in training it has a statistic."""

    report: Callable[[Any], None]

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        self.report(x.shape)
        if train:
            self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
        x = nn.Dense(3)(x) * self.param("scale", nn.initializers.ones, x.shape[-1:])
        return x, len(x)


class Given(nn.Module):
    """Calls a module of another one."""

    inner: nn.Module

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return self.inner(x)


class Net(nn.Module):
    """Scales of equal and of unequal calls."""

    report: Callable[[Any], None]

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for i in range(3):
            x, length = Scale(self.report, name=f"same_{i}")(x)
            x = x.reshape(length, 3)  # a number, not an array
        x, _ = Scale(self.report, name="trained")(x, train=True)
        x, _ = Scale(self.report, name="long")(x[:1])
        for name in ("left", "right"):
            x = Given(nn.Dense(3, name=name))(x)
        return x


def test_equal_calls_are_traced_once_and_unequal_ones_are_not() -> None:
    traced: list[Any] = []
    net, x = Net(traced.append), jax.ShapeDtypeStruct((2, 3), jnp.float32)
    ours = abstract_init(net.init, jax.random.key(0), x)
    assert traced == [(2, 3), (2, 3), (1, 3)]
    assert ours == jax.eval_shape(net.init, jax.random.key(0), x)
    assert {"left", "right", "same_2"} < set(ours["params"])
    assert set(ours["batch_stats"]) == {"trained"}


def test_an_error_of_the_model_is_its_own() -> None:
    with pytest.raises(ValueError, match="37"):
        abstract_init(
            create_model("vit_ti16", depth=1).init,
            jax.random.key(0),
            jax.ShapeDtypeStruct((1, 37, 37, 3), jnp.float32),
        )
