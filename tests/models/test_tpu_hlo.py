"""What becomes of a training step on TPUs: no gather or scatter of feature maps, in detectors too.

Those are slow there, and a scatter is why a GPU's gradients differ between runs. The criterion: no
gather or scatter in the program of value and gradient moves `BATCH · 4 · dims[0]` elements or more,
fewer than four positions of each image in the first stage have. Look-ups in tables (relative
positions) have no batch axis, and are smaller than that at these sizes.

The programs are read before optimisation, where the compiler can only have taken gathers away; one
is compiled for a TPU besides.
"""

import importlib.util
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vitjax.abstract import abstract_init
from vitjax.detection.results import Targets
from vitjax.models import create_model, model_options
from vitjax.plan.collectives import feature_moves
from vitjax.plan.hlo import parse
from vitjax.plan.topology import open_topology

BATCH, SIDE, DIMS = 128, 64, (16, 32, 64, 128)
LEAST = BATCH * 4 * DIMS[0]
MODELS = {  # blocks of each kind that the model has
    "dat_tiny": dict(depths=(1, 1, 2, 2), dims=(24, 48, 96, 192), num_heads=(3, 6, 12, 24)),
    "dat_pp_tiny": dict(depths=(2, 1, 1, 1)),
    "biformer_tiny": dict(depths=(1, 1, 1, 1)),
    "debiformer_tiny": dict(depths=(2, 2, 2, 1)),
    "volo_d1": dict(depths=(1, 1, 1, 1), dims=(16, 32, 32, 32), num_heads=(1, 2, 2, 2)),
}


SMALL: dict[str, Any] = dict(width=32, num_heads=2, encoder_depth=1, decoder_depth=2, num_queries=7)
DETECTORS: dict[str, tuple[dict[str, Any], int]] = {
    "retinanet": (dict(width=32, depth=1), 9 * 86),
    "mask_rcnn": (
        dict(width=16, box_width=32, rpn_samples=64, rpn_candidates=(50, 50), proposals=(50, 30),
             samples=16),
        3 * 341,
    ),
    "detr": (SMALL, 2 * 7),
    "deformable_detr": (SMALL | dict(refine=True, two_stage=True), 85),
}  # fmt: skip
"""Detector → options, and how many boxes it predicts of an image: those of anchors, of queries of
all layers, or of positions."""


def lower(name: str, sharding: NamedSharding | None = None) -> Any:
    """Value and gradient of a loss of the model, at a tenth of its size, not compiled."""
    heads = {"num_heads": (1, 2, 4, 8), "head_dim": 16}
    known = model_options(name)
    options: dict[str, Any] = {"dims": DIMS, **{k: v for k, v in heads.items() if k in known}}
    options |= MODELS[name]
    model: Any = create_model(name, num_classes=10, image_size=SIDE, dtype=jnp.bfloat16, **options)
    images = jax.ShapeDtypeStruct((BATCH, SIDE, SIDE, 3), jnp.float32, sharding=sharding)
    variables = abstract_init(model.init, jax.random.key(0), images)
    variables = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), variables
    )

    def loss(params: Any, rest: Any, images: Any) -> Any:
        out, _ = model.apply({"params": params, **rest}, images, True, mutable=list(rest),
                             rngs={"dropout": jax.random.key(1)})  # fmt: skip
        return sum(jnp.square(x.astype(jnp.float32)).mean() for x in jax.tree.leaves(out))

    rest = {k: v for k, v in variables.items() if k != "params"}
    return jax.jit(jax.value_and_grad(loss)).lower(variables["params"], rest, images)


def named(found: list[Any]) -> str:
    """List the origins of operations, for an assertion's message."""
    where = {(i.opcode, i.shape, *re.findall(r'op_name="([^"]*)"', i.rest)) for i in found}
    return "\n".join(map(str, sorted(where)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n in ("dat_pp_tiny", "debiformer_tiny")))
        for n in MODELS
    ],
)
def test_training_moves_no_features_by_gather_or_scatter(name: str) -> None:
    text = lower(name).as_text(dialect="hlo", debug_info=True)
    program = parse(text)
    assert any(i.opcode == "dot" for body in program.computations.values() for i in body.values())
    found = feature_moves(program, LEAST - 1)
    assert not found, named(found)


def lower_detector(name: str) -> Any:
    """Value and gradient of the loss of a detector, assignment and drawing included."""
    backbone = "resnet18(depths=(1, 1, 1, 1), width=8, frozen_statistics=True)"
    options: dict[str, Any] = DETECTORS[name][0] | dict(backbone=backbone, image_size=SIDE)
    model: Any = create_model(name, 5, dtype=jnp.bfloat16, **options)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = dict(
        boxes=((5, 4), jnp.float32), classes=((5,), jnp.int32), crowd=((5,), jnp.bool_),
        valid=((5,), jnp.bool_), masks=((5, 28, 28), jnp.uint8), extent=((2,), jnp.int32),
    )  # fmt: skip
    arrays: Any = {k: jax.ShapeDtypeStruct((BATCH, *s), d) for k, (s, d) in shapes.items()}
    targets = Targets(**arrays)
    images = jax.ShapeDtypeStruct((BATCH, SIDE, SIDE, 3), jnp.float32)
    variables = abstract_init(model.init, jax.random.key(0), images)
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss(params: Any, rest: Any, images: Any, targets: Targets) -> Any:
        found, _ = model.apply(
            {"params": params, **rest}, images, targets, jnp.ones(BATCH), True, method="loss",
            mutable=list(rest), rngs=dict(dropout=jax.random.key(1), sample=jax.random.key(2)),
        )  # fmt: skip
        return sum(part.sum() for part in found.parts.values()) / found.weight.sum()

    return jax.jit(jax.value_and_grad(loss)).lower(variables["params"], rest, images, targets)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_training_of_detectors_moves_no_more_than_boxes(name: str) -> None:
    """No gather moves more floats than all boxes have, four each, and no scatter any.

    A feature has 16 channels or more. Integers are indices, classes, and masks to be learnt.
    """
    program = parse(lower_detector(name).as_text(dialect="hlo", debug_info=True))
    floats = [i for i in feature_moves(program, 0) if re.match(r"b?f\d", i.shape)]
    large = [i for i in feature_moves(program, BATCH * 4 * DETECTORS[name][1]) if i in floats]
    scatters = [i for i in floats if i.opcode == "scatter"]
    assert floats and not large + scatters, named(large + scatters)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_nor_does_the_program_that_a_tpu_runs() -> None:
    device = open_topology("v5e:2x2").devices[:1]
    chip = NamedSharding(Mesh(np.array(device), ("data",)), PartitionSpec())
    found = feature_moves(parse(lower("biformer_tiny", chip).compile().as_text()), LEAST - 1)
    assert not found, named(found)
