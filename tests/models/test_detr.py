"""DETR against its authors' numbers, its limits, and what it does with padding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.golden import sets
from tests.models.test_pvt import noisy, run
from tests.models.test_retinanet import objects
from vitjax import weights
from vitjax.detection.results import Targets
from vitjax.heads.set_prediction import Criterion, SetBoxes, layer_losses, loss_parts
from vitjax.layers.maps import inside

STAGES = {
    "backbone.0.body.layer1": ("backbone", "stage_0"),
    "backbone.0.body.layer4": ("backbone", "stage_3"),
    "input_proj": ("head", "input"),
}
BACKBONE = "resnet50(depths=(1, 1), frozen_statistics=True)"
TINY: dict[str, Any] = dict(
    backbone=BACKBONE, width=32, num_heads=2, encoder_depth=1, decoder_depth=2, num_queries=5,
    image_size=32, limit=3,
)  # fmt: skip


@pytest.mark.golden
@pytest.mark.slow
def test_detr_is_that_of_the_authors() -> None:
    """In float64: of two layers, two assignments cost the same to 2e-6, and rounding chooses."""
    with jax.enable_x64(True):
        case = sets.Case("detr_r50")
        sets.check(case, "detr_resnet50", STAGES, top=5)
    head = vitjax.create_model("detr_resnet50").head.offer(num_classes=91).build()  # type: ignore[attr-defined]
    assert head.loss_weights * 6 == tuple(case.data["ref::loss_weights"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "official"),
    [
        ("detr_resnet101", {}, 60_570_016),
        ("deformable_detr_resnet50", dict(finest=32, extra_levels=0), 34_119_713),
        ("deformable_detr_resnet50_refine", {}, 40_902_780),
        ("deformable_detr_resnet50_two_stage", {}, 41_234_649),
    ],
)
def test_sizes_are_the_official_ones(name: str, options: dict[str, Any], official: int) -> None:
    """With what of a BatchNorm does not train there."""
    model = vitjax.create_model(name, **options, image_size=64)
    params = weights.abstract_variables(model)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == official


@pytest.mark.parametrize("softmax", [True, False])
def test_losses_and_gradients_are_finite(softmax: bool) -> None:
    """Of no objects, of those without area and of crowds, which are none, and of one."""
    rng = np.random.default_rng(0)
    found = SetBoxes(
        jnp.asarray(rng.standard_normal((1, 2, 5, 4)), jnp.float32),
        jnp.asarray(rng.random((1, 2, 5, 4)), jnp.float32).at[0, 0].set(0),
    )
    criterion, ones = Criterion((1.0, 5.0, 2.0), softmax, 0.1), jnp.ones(1)

    @jax.jit
    def loss(found: SetBoxes, targets: Targets) -> Any:
        def total(found: SetBoxes) -> Any:
            each = layer_losses(found, targets, jnp.array([[64, 64]]), ones, criterion)
            parts = loss_parts(each, targets.wanted, ones, criterion)
            return sum(part.sum() for part in parts.parts.values()) / parts.weight.sum(), parts

        return jax.value_and_grad(total, has_aux=True)(found)

    kinds = {
        "none": objects((5, 5, 5, 5), (9, 9, 9, 30)),
        "crowd": objects((2, 3, 20, 30), (9, 9, 9, 30), crowd=0),
        "one": objects((2, 3, 20, 30), (9, 9, 9, 30)),
    }
    values, parts = {}, {}
    for kind, targets in kinds.items():
        (values[kind], parts[kind]), grads = loss(found, targets)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads)), kind
    assert values["none"] == values["crowd"] > 0 and parts["none"].weight == 1
    assert parts["none"].parts["box_loss"] == 0 < parts["one"].parts["box_loss"]
    if softmax:  # without objects the mean over queries, whose weights are all alike
        logits = np.asarray(found.logits[0], np.float64)
        each = np.log(np.exp(logits).sum(axis=-1)) - logits[..., 3]
        np.testing.assert_allclose(values["none"], each.mean(axis=1).sum(), rtol=1e-5)


@pytest.mark.slow
def test_padding_is_not_seen() -> None:
    """What an image's padding holds changes nothing; boxes are of the image's own extent."""
    model: Any = vitjax.create_model("detr", 5, **TINY)
    variables, images = noisy(model, (32, 32))
    extent = jnp.array([[17, 23]])
    pixels = inside(extent, (32, 32))

    def predict(model: Any, images: Any) -> Any:
        maps = model.backbone.features(images)
        # Pixels of the map of stride 8 whose nearest pixel is padding.
        spoilt = jnp.where(pixels[:, ::8, ::8, None], maps[-1], 7.0)
        own, other = (model.decode((x,), False, pixels) for x in (maps[-1], spoilt))
        return own, other, model.decode.detect(maps, (32, 32), extent)

    own, other, found = run(model, variables, images, method=predict)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), own, other)
    assert found.boxes.shape == (1, 3, 4) and (np.diff(found.scores) <= 0).all()
    boxes = own.boxes[0, -1] * np.array([23, 17, 23, 17])
    centre = (found.boxes[0, 0, :2] + found.boxes[0, 0, 2:]) / 2
    assert np.abs(boxes[:, :2] - centre).sum(axis=1).min() < 1e-3


@pytest.mark.parametrize("style", ["authors", "transformers"])
@pytest.mark.parametrize("name", ["detr", "deformable_detr"])
def test_names_of_others(name: str, style: str) -> None:
    """Joint projections, and transformers' own ResNet, whose layers are named otherwise."""
    options = TINY | (dict(refine=True, two_stage=True) if name != "detr" else {})
    shapes = weights.abstract_variables(vitjax.create_model(name, 7, **options))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.random(x.shape, np.float32), shapes)
    state = weights.to_torch(name, variables, **options)
    theirs = sets.of_authors(state) if style == "authors" else sets.of_transformers(state)
    assert not theirs.keys() & {key for key in state if "backbone" in key}
    again = weights.from_torch(name, theirs, 7, **options)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
