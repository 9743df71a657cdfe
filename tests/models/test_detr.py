"""DETR against its authors' numbers, its limits, and what it does with padding."""

import pytest

from tests.golden import sets

STAGES = {
    "backbone.0.body.layer1": ("backbone", "stage_0"),
    "backbone.0.body.layer4": ("backbone", "stage_3"),
    "input_proj": ("head", "input"),
}


@pytest.mark.golden
@pytest.mark.slow
def test_detr_is_that_of_the_authors() -> None:
    case = sets.Case("detr_r50")
    sets.check(case, "detr_resnet50", STAGES, top=5)
