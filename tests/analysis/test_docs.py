"""docs/analysis.md: its program runs, and it names all there is."""

import importlib
import pathlib
import re

import pytest

from vitjax.analysis import plots

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "analysis.md").read_text()


@pytest.mark.slow
def test_the_program_of_the_page_runs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert program
    small = 'create_model("swin_tiny", 10, image_size=64, dims=(8,), depths=(2,), num_heads=(2,))'
    text = program[1].replace('create_model("swin_tiny", 10, image_size=64)', small)
    assert small in text
    names: dict = {}
    exec(compile(text, "docs/analysis.md", "exec"), names)
    assert names["heat"].shape == (2, 2, 64, 64)
    assert (tmp_path / "heads.png").stat().st_size > 10_000


def test_the_page_names_what_there_is() -> None:
    rows = "".join(line for line in PAGE.splitlines(keepends=True) if line.startswith("| `"))
    named = re.findall(r"`(\w+)\.(\w+)`", rows)
    assert len(named) == 14
    for module, name in named:
        assert hasattr(importlib.import_module(f"vitjax.analysis.{module}"), name)
    drawn = {name for name in vars(plots) if name.startswith("plot_")}
    assert drawn == set(re.findall(r"`(plot_\w+)`", PAGE))
