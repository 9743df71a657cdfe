"""Notebooks: what of them can be seen without running them; `make notebooks` executes them."""

import pathlib
import re
import sys
from typing import Any

import pytest

import vitjax

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
import notebooks  # noqa: E402  # pyright: ignore[reportMissingImports]

BADGE = re.compile(r"colab\.research\.google\.com/github/([\w-]+/[\w-]+)/blob/main/([^)\s]+)")
LEAST, MOST = 8, 60
"""Notebooks, and lines of code in each."""


def code(path: pathlib.Path) -> list[str]:
    return [c.source for c in notebooks.read(path).cells if c.cell_type == "code"]


@pytest.mark.parametrize("path", notebooks.SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_source_and_short(path: pathlib.Path) -> None:
    own = path.with_suffix(".ipynb")
    assert own.read_text() == notebooks.text(path), "`python benchmarks/notebooks.py` writes it"
    cells = code(path)
    lines = [line for cell in cells for line in cell.splitlines() if line.strip()]
    assert len(lines) <= MOST
    assert "**Question:" in own.read_text()
    (first, *_), release = cells, re.sub(r"\.dev\d+$", "", vitjax.__version__)
    assert f'%pip install -q "vitjax[{{extra}}]=={release}"' in first
    assert "jax.devices()" in first and "find_spec" in first
    for cell in cells:  # magics aside, each is a program
        compile(re.sub(r"^( *)%pip .*", r"\1pass", cell, flags=re.MULTILINE), path.name, "exec")
    assert "plt." in cells[-1] or "plot_" in cells[-1]


def test_every_badge_names_its_own_notebook() -> None:
    repository = re.search(
        r"^repo_url: https://github.com/(\S+)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    assert repository
    seen: dict[str, Any] = {}
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *notebooks.SOURCES]:
        for owner, target in BADGE.findall(page.read_text()):
            assert owner == repository[1], f"{page} names another repository"
            assert (ROOT / target).is_file(), f"{page} names {target}, which is not there"
            seen.setdefault(page.stem, []).append(pathlib.Path(target).stem)
    names = {path.stem for path in notebooks.SOURCES}
    assert len(names) >= LEAST
    for name in names:
        assert seen[name][:1] == [name]
    assert set(seen["README"]) == names
