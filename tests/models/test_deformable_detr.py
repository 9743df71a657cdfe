"""Deformable DETR against its authors' numbers, its options, its limits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import variables_of
from tests.golden import sets
from tests.models.test_detr import TINY
from tests.models.test_retinanet import objects
from vitjax.heads.deformable_detr import DeformableDETRHead
from vitjax.heads.detr import inside_map
from vitjax.heads.proposals import first_boxes

STAGES = {
    "backbone.0.body.layer2": ("backbone", "stage_1"),
    "input_proj.0": ("head", "input_0"),
    "input_proj.3": ("head", "input_3"),
    "transformer.encoder.layers.0": ("head", "encoder_0"),
    "transformer.decoder.layers.0": ("head", "decoder_0"),
}


@pytest.mark.golden
@pytest.mark.slow
def test_deformable_detr_is_that_of_the_authors() -> None:
    case = sets.Case("deformable_detr_r50")
    sown = sets.check(case, "deformable_detr_resnet50", STAGES, 8, ("head", "encoder_5"))
    check_encoded(case, np.asarray(sown["head"]["encoder_5"]["__call__"][0]))


def check_encoded(case: sets.Case, tokens: np.ndarray) -> None:
    """Hold what the encoder gives against the authors', but for its largest value.

    That lies in the padding of the second image, whose queries differ: where a whole row or column
    is padding, its number, -1/2, is divided by 0 + 10⁻⁶ (`position_encoding.py`), and sines are
    taken of -π · 10⁶. Numbers of 32 bits lie 1/4 apart there, so that the last digit of a frequency
    decides the sine. Values of padding are masked (`ms_deform_attn.py`), and reach nothing else.
    """
    row = case.data["stage_names"].tolist().index("transformer.encoder")
    theirs = {key: case.data[f"stage_{key}"][row] for key in ("mean", "std", "absmax")}
    sizes = (12, 16), (6, 8), (3, 4), (2, 2)
    masks = [inside_map(case.pixels, jnp.zeros((2, *size, 1))) for size in sizes]
    seen = np.concatenate([np.reshape(mask, (2, -1)) for mask in masks], axis=1)
    assert seen[0].all() and np.abs(tokens[seen]).max() < 0.95 * theirs["absmax"]
    assert np.abs(tokens[~seen]).max() == pytest.approx(theirs["absmax"], rel=0.01)
    for found, key in ((tokens.mean(), "mean"), (tokens.std(), "std")):
        assert found == pytest.approx(theirs[key], abs=1e-5 * theirs["absmax"]), key
    crop = case.data["crop::transformer.encoder"]
    np.testing.assert_allclose(tokens[0, :16, :8], crop, rtol=0, atol=2e-5 * theirs["absmax"])


@pytest.mark.slow
def test_proposals_become_queries_and_are_refined() -> None:
    """At first every box is its reference, which is a proposal: the first box of a position."""
    sizes: dict[str, Any] = dict(width=32, num_heads=2, encoder_depth=1, decoder_depth=1)
    head = DeformableDETRHead(
        5, **sizes, num_queries=3, strides=(8, 16), extra_levels=0, refine=True, two_stage=True
    )
    maps = tuple(jax.random.normal(jax.random.key(i), (1, 4 // i, 4 // i, 8)) for i in (1, 2))
    params = dict(variables_of(head, maps)["params"])
    for name in ("box_0", "box_1"):
        params[name]["fc_2"] = jax.tree.map(jnp.zeros_like, params[name]["fc_2"])
    targets = objects((2, 3, 20, 30))

    @jax.jit
    def run(params: Any) -> Any:
        def loss(params: Any) -> Any:
            given = (maps, (32, 32), targets, jnp.ones(1))
            found, sown = head.apply(
                {"params": params}, *given, method="loss", mutable=["intermediates"],
                capture_intermediates=lambda _, method: method == "predict",
            )  # fmt: skip
            return sum(part.sum() for part in found.parts.values()), (found.parts, sown)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (parts, sown)), grads = run(params)
    found, _ = sown["intermediates"]["predict"][0]
    boxes, _ = first_boxes([jnp.ones((1, side, side), bool) for side in (4, 2)])
    distance = np.abs(found.boxes[0, 0][:, None] - jax.nn.sigmoid(boxes[0])).sum(axis=-1)
    assert distance.min(axis=1).max() < 1e-4
    assert parts["proposal_loss"] > 0 and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert np.abs(grads["box_1"]["fc_2"]["kernel"]).max() > 0  # of proposals alone
    assert np.abs(grads["placed"]["kernel"]).max() > 0


def test_first_boxes_of_a_padded_image() -> None:
    mask = jnp.arange(5)[:, None] < 4
    boxes, some = first_boxes([jnp.broadcast_to(mask, (1, 5, 7))])
    boxes, some = jax.nn.sigmoid(boxes).reshape(5, 7, 4), some.reshape(5, 7)
    assert some[:4].all() and not some[4].any() and (boxes[4] == 1).all()
    np.testing.assert_allclose(boxes[1, 2], [2.5 / 7, 1.5 / 4, 0.05, 0.05], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(two_stage=True), "needs refine=True"), (dict(width=40), "a multiple of 32")],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vitjax.create_model("deformable_detr", 5, **{**TINY, **options})
