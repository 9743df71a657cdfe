"""docs/models.md holds the whole menu, and what it says of a model is so."""

import json
import pathlib
import re

import pytest

from tests.golden import compare
from vitjax.analysis.cost import trace
from vitjax.models import MODELS, create_model

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "models.md").read_text()
ROWS = {name: rest.split(" | ") for name, rest in re.findall(r"\| `(\w+)` \| (.*) \|", PAGE)}
OFFICIAL = json.loads((pathlib.Path(compare.__file__).parent / "param_counts.json").read_text())
SAME = {
    "swin_tiny": "swin_tiny_w7_224",
    "swinv2_tiny_w8": "swinv2_tiny_w8_256",
    "volo_d1": "volo_d1_224",
    **{n: n for n in OFFICIAL if n in MODELS},
}


def test_the_page_holds_the_menu() -> None:
    assert set(ROWS) == set(MODELS)


@pytest.mark.parametrize("name", SAME)
def test_the_page_says_what_the_official_code_counts(name: str) -> None:
    official = OFFICIAL[SAME[name]]
    side, parameters, _, macs = ROWS[name][:4]
    assert int(side) == official["input"]
    assert int(parameters.replace(",", "")) == official["params"]
    assert float(macs.removesuffix(" G")) == pytest.approx(official["macs"] / 1e9, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["debiformer_tiny", "dat_pp_tiny", "pvt_v2_b2_li"])
def test_multiply_adds_are_counted_as_the_official_ones(name: str) -> None:
    _, counted, _ = trace(create_model(name), (1, 224, 224, 3))
    assert counted == pytest.approx(OFFICIAL[name]["macs"], rel=0.005)
    assert f"{counted / 1e9:.3f} G" == ROWS[name][3]
