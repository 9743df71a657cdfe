"""Deformable DETR against its authors' numbers, its options, its limits."""

import pytest

from tests.golden import sets

# Not the encoder's result: the positions of its padding are sines of 10⁶, which rounding changes.
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
    sets.check(case, "deformable_detr_resnet50", STAGES, top=8)
