"""Programs and commands in the README and the documents: they run, or are at least understood."""

import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import pytest

import vitjax
from vitjax.cli import parse
from vitjax.training import load_config

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Lines that call vitjax, in fenced or indented blocks; continued lines are joined."""
    indented = "\n".join(re.findall(r"^ {4}(.*)$", text, re.MULTILINE))
    shown = "\n".join([body for kind, body in blocks(text) if kind != "python"] + [indented])
    lines = (line.strip() for line in shown.replace("\\\n", " ").splitlines())
    ours = (line for line in lines if re.match(r"(srun )?(vitjax|python train\.py) ", line))
    return [line for line in ours if "…" not in line]  # which shortens


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_are_understood(page: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each parses; configs exist, and have the fields that are set."""
    monkeypatch.chdir(ROOT)
    found = commands(page.read_text())
    if page.name in ("README.md", "look.md", "scaling.md", "pods.md"):
        assert len(found) > 2
    for line in found:
        words = shlex.split(line, comments=True)
        start = words.index("vitjax") if "vitjax" in words else 1
        told = parse(["train", *words[2:]] if words[0] == "python" else words[start + 1 :])
        config = getattr(told, "config", "")
        if config and config != "FILE":
            load_config(config, told.fields)


def test_the_first_program_of_the_readme_trains() -> None:
    source = next(body for kind, body in blocks(README) if kind == "python")
    small = source.replace("range(300)", "range(2)").replace("depth=4", "depth=1")
    assert "range(2)" in small and "depth=1" in small
    names: dict = {}
    exec(compile(small, "README.md", "exec"), names)
    assert 1 < names["value"] < 5  # about log(10)


@pytest.mark.slow
def test_the_second_program_of_the_readme_runs() -> None:
    _, source = (body for kind, body in blocks(README) if kind == "python")
    small = source.replace('"vit_s16", num', '"vit_s16", width=16, depth=1, num_heads=2, num')
    assert small != source
    images = jnp.ones((2, 160, 224, 3))
    names: dict = {"vitjax": vitjax, "key": jax.random.key(0), "images": images}
    exec(compile(small, "README.md", "exec"), names)
    assert names["features"].shape == (2, 10, 14, 16)
    assert names["logits"].shape == (2, 10) and names["extras"]["intermediates"]
