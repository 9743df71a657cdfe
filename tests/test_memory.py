"""Huge pages are asked for where they help, and a step then faults on few pages."""

import os
import pathlib
import subprocess
import sys

import pytest

from vitjax import memory
from vitjax.memory import HUGE, PAGES, TUNABLES, with_huge_pages

ROOT = pathlib.Path(__file__).parent.parent
STEPS = """
import resource, jax, jax.numpy as jnp
step = jax.jit(lambda x: jnp.sort(x, axis=0).sum())
x = jnp.ones((2_097_169, 3))
step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture
def root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Return the root of a machine without accelerators that gives huge pages to who asks."""
    monkeypatch.setattr(memory, "_knows", lambda: True)
    path = tmp_path / PAGES
    path.parent.mkdir(parents=True)
    path.write_text("always [madvise] never\n")
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, f"{HUGE}=1"),
        ({"JAX_PLATFORMS": "cpu"}, f"{HUGE}=1"),
        ({TUNABLES: "glibc.malloc.tcache_count=0"}, f"glibc.malloc.tcache_count=0:{HUGE}=1"),
        ({TUNABLES: f"{HUGE}=0"}, f"{HUGE}=0"),
        ({"JAX_PLATFORMS": "cuda,cpu"}, None),
        ({"TPU_WORKER_ID": "0"}, None),
    ],
)
def test_who_asks_for_huge_pages(
    root: pathlib.Path, before: dict[str, str], after: str | None
) -> None:
    found = with_huge_pages({"HOME": "/home/a", **before}, str(root))
    assert found.get(TUNABLES) == after
    assert {**found, TUNABLES: ""} == {"HOME": "/home/a", **before, TUNABLES: ""}


@pytest.mark.parametrize("pages", ["[always] madvise never\n", "always madvise [never]\n"])
def test_kernel_gives_to_all_or_none(root: pathlib.Path, pages: str) -> None:
    (root / PAGES).write_text(pages)
    assert TUNABLES not in with_huge_pages({}, str(root))


def test_other_systems(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "dev").mkdir()
    (root / "dev/nvidia0").touch()
    assert TUNABLES not in with_huge_pages({}, str(root))
    (root / "dev/nvidia0").unlink()
    assert TUNABLES in with_huge_pages({}, str(root))
    monkeypatch.setattr(memory, "_knows", lambda: False)
    assert TUNABLES not in with_huge_pages({}, str(root))
    assert TUNABLES not in with_huge_pages({}, str(root / "nothing"))


@pytest.mark.parametrize(
    ("text", "knows"),
    [("glibc 2.36", True), ("glibc 2.35", True), ("glibc 2.9", False), ("glibc 2.34.1", False)],
)
def test_versions(monkeypatch: pytest.MonkeyPatch, text: str, knows: bool) -> None:
    monkeypatch.setattr(os, "confstr_names", {"CS_GNU_LIBC_VERSION": 2}, raising=False)
    monkeypatch.setattr(os, "confstr", lambda name: text, raising=False)
    assert memory._knows() == knows


@pytest.mark.parametrize("command", [["-m", "vitjax.cli", "train"], [f"{ROOT / 'train.py'}"]])
def test_commands_start_again_once(tmp_path: pathlib.Path, command: list[str]) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        f"import os\nprint('told', os.environ.get('{TUNABLES}'))\n"
        "from configs.digits import get_config\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != TUNABLES}
    done = subprocess.run(
        [sys.executable, *command, f"--config={config}", "--show", "--config.steps=7"],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("told")] == [
        f"told {with_huge_pages(environment).get(TUNABLES)}"
    ]
    assert '  "steps": 7,' in lines


@pytest.mark.skipif(
    TUNABLES not in with_huge_pages({"JAX_PLATFORMS": "cpu"}), reason="no huge pages to ask for"
)
def test_a_step_faults_on_few_pages() -> None:
    small = {k: v for k, v in os.environ.items() if k != TUNABLES} | {"JAX_PLATFORMS": "cpu"}
    faults = [
        int(subprocess.check_output([sys.executable, "-c", STEPS], env=environment))
        for environment in (small, with_huge_pages(small))
    ]
    assert faults[0] > 10_000
    assert faults[1] < faults[0] / 3
