"""What models say that they can do, they do."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.train.test_sharding import FAMILIES, shallow
from vitjax import models
from vitjax.attention import MIXERS, takes_sequences
from vitjax.layers.spec import spec
from vitjax.models import create_model
from vitjax.models.protocols import (
    Backbone,
    GivesDistillationLogits,
    GivesHeadFeatures,
    GivesTokenLogits,
    input_shape,
    takes_clips,
)

NAMES = (
    *FAMILIES, "volo_d3", "dat_tiny", "vit_s14", "dinov3_s16", "cait_xxs24", "mobile_former_26m",
    "mit_b0",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_strides_are_those_of_the_maps_for_any_batch(name: str) -> None:
    """The size of a batch is a symbol, as in an exported program."""
    model: Any = create_model(name, 5, **shallow(name, 1))
    assert isinstance(model, Backbone)
    side = 4 * max(model.strides)

    def outputs(images):
        logits, variables = model.init_with_output(jax.random.key(0), images)
        return logits, model.apply(variables, images, method="features")

    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    logits, maps = jax.eval_shape(outputs, images)
    assert logits.shape == (batch, 5)
    assert [m.shape[1:3] for m in maps] == [(side // s, side // s) for s in model.strides]


def test_abilities_are_those_of_the_families() -> None:
    abilities = {
        name: [
            isinstance(create_model(name), kind)
            for kind in (GivesHeadFeatures, GivesTokenLogits, GivesDistillationLogits)
        ]
        for name in ("vit_s16", "deit_tiny_distilled", "volo_d1", "swin_tiny", "bit_r50x1")
    }
    assert abilities == {
        "vit_s16": [False, False, False],
        "deit_tiny_distilled": [False, False, True],
        "volo_d1": [True, True, False],
        "swin_tiny": [True, False, False],
        "bit_r50x1": [True, False, False],
    }


def test_families_say_what_their_models_see() -> None:
    for family in models.FAMILIES:
        assert takes_clips(create_model(next(iter(family.models)))) == (family.takes == "clips")
    assert input_shape(create_model("swin3d_tiny")) == (1, 32, 224, 224, 3)
    assert input_shape(create_model("swin_tiny"), (32, 64), 1) == (1, 32, 64, 1)


def test_a_mixer_declares_whether_it_takes_sequences() -> None:
    assert {name for name, mixer in MIXERS.items() if takes_sequences(mixer)} == {
        "full",
        "light",
        "talking_heads",
        "token_mlp",
    }
    assert not takes_sequences(MIXERS["full"].replace(position_bias=True))
    assert not takes_sequences(spec(dict))
