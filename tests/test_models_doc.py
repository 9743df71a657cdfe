"""The README's table of families is that of the families themselves."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]


def test_the_readmes_table_is_up_to_date(monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import models_table

    assert models_table.README.read_text() == models_table.readme(models_table.PAGE.read_text()), (
        "run python benchmarks/models_table.py --readme"
    )
