"""A config file to run and to change."""

import pathlib

import pytest

FILE = """
def get_config(arg="none"):
    return dict(epochs=2.0, model=dict(name="vit_s16", width=17), data=dict(augment=arg))
"""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "run.py"
    path.write_text(FILE)
    return str(path)
