"""The table of all families: each that classifies images has a run, and each run a row."""

import importlib.util
import pathlib
from typing import Any

from vitjax.models import FAMILIES, create_model, from_config
from vitjax.train.config import count_steps
from vitjax.training import load_config

ROOT = pathlib.Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("ablation", ROOT / "configs" / "ablation.py")
assert SPEC is not None and SPEC.loader is not None
ablation: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ablation)


def test_every_family_of_classifiers_has_one_run() -> None:
    named = [model["name"] for model in ablation.FAMILIES.values()]
    for family in FAMILIES:
        output = getattr(create_model(next(iter(family.models))), "output", "classes")
        wanted = output == "classes" and family.takes == "images"
        assert len(family.models.keys() & set(named)) == wanted, family.paper


def test_every_run_has_a_model_and_a_row() -> None:
    text = (ROOT / "docs" / "ablation.md").read_text()
    for name in ablation.RUNS:
        from_config({"dtype": "float32", **ablation.get_config(name)["model"]}, 10, 32)
        assert f"| {name.removeprefix('families/')} | " in text


def test_a_family_by_its_own_optimizer() -> None:
    config = load_config(f"{ROOT}/configs/ablation.py:families/bit", {})
    assert config.optimizer.name == "sgd" and count_steps(config, 1437) == 269
