"""docs/recipes.md says what the configs say: the column "ours", and every recipe is there."""

import ast
import functools
import json
import pathlib
import re

import pytest

from tests.test_dense_recipes import DENSE
from tests.test_recipes import RECIPES, config_of, runs
from vitjax.train.config import flat_config

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
FILES = {recipe.split(":")[1]: recipe for recipe in RECIPES}
DETECTION = runs("detection")
VIDEO = runs("video")
OTHERS = [*DENSE, *DETECTION, *VIDEO]
FILES |= {recipe.replace(".py:", ":"): recipe for recipe in OTHERS}  # files share these names


def sections() -> list[tuple[list[str], str]]:
    """(configs, text) of each section that names configs."""
    found = []
    for text in TEXT.split("\n## ")[1:]:
        if match := re.search(r"^Configs: ((?:.|\n)*?)\n\n", text, re.MULTILINE):
            found.append((re.findall(r"`([\w:]+)`", match[1]), text))
    return found


@functools.cache
def stated() -> list[tuple[str, str, str]]:
    """(config, field, value as Python writes it) of all tables."""
    rows, head = [], []
    for configs, text in sections():
        for line in text.splitlines():
            parts = re.split(r"(?<!\\)\|", line.strip("|"))  # \| ends no cell
            cells = [cell.strip().replace(r"\|", "|") for cell in parts]
            if not line.startswith("|") or set(line) <= set("|- "):
                continue
            if cells[0] in ("field", "config"):
                head = cells
            elif head[0] == "field":
                rows += [(name, cells[0].strip("`"), cells[-1].strip("`")) for name in configs]
            else:
                fields = [cell.strip("`") for cell in head[1:]]
                name = cells[0].strip("`")
                assert name in configs
                rows += [(name, f, c.strip("`")) for f, c in zip(fields, cells[1:], strict=True)]
    return rows


def test_every_recipe_is_in_the_document() -> None:
    assert {name for configs, _ in sections() for name in configs} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_document_says_what_the_config_says(name: str) -> None:
    config = flat_config(config_of(FILES[name]))
    rows = [(field, value) for config_name, field, value in stated() if config_name == name]
    assert len(rows) > 5
    for field, value in rows:
        want = json.loads(json.dumps(ast.literal_eval(value)))  # tuples are lists there
        found = config.get(field, {"model.pool": "token", "model.drop_rate": 0.0}.get(field))
        assert found == pytest.approx(want) if isinstance(want, float) else found == want, field
