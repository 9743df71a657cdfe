"""Commands that run on CPUs start with an allocator that keeps freed memory, where there is one."""

import os
import pathlib
import platform
import subprocess
import sys

import pytest

from vitjax.allocator import NAMES, PRELOAD, find_library, with_keeping_allocator

ROOT = pathlib.Path(__file__).parent.parent
STEPS = """
import resource, jax, jax.numpy as jnp
step = jax.jit(lambda x: x + 1)
x = jnp.ones((60_013, 241))  # beyond the 32 MB up to which glibc keeps blocks
for _ in range(5):
    step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture
def library(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return the file of an allocator on a machine whose root is `tmp_path`."""
    path = tmp_path / f"usr/lib/{platform.machine()}-linux-gnu" / NAMES[0]
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.mark.parametrize("variables", [{}, {"JAX_PLATFORMS": "cpu"}])
def test_allocator_is_loaded_on_cpus(
    tmp_path: pathlib.Path, library: pathlib.Path, variables: dict[str, str]
) -> None:
    found = with_keeping_allocator(variables, str(tmp_path))
    assert found == {**variables, PRELOAD: str(library)}
    assert with_keeping_allocator(found, str(tmp_path)) == found  # once


@pytest.mark.parametrize(
    "variables",
    [
        {PRELOAD: ""},
        {PRELOAD: "libother.so"},
        {"JAX_PLATFORMS": "cuda,cpu"},
        {"TPU_WORKER_ID": "0"},
    ],
)
def test_allocator_is_left_alone(
    tmp_path: pathlib.Path, library: pathlib.Path, variables: dict[str, str]
) -> None:
    assert with_keeping_allocator(variables, str(tmp_path)) == variables


def test_allocator_is_for_cpus(tmp_path: pathlib.Path, library: pathlib.Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert with_keeping_allocator({}, str(tmp_path)) == {}
    assert PRELOAD in with_keeping_allocator({"JAX_PLATFORMS": "cpu"}, str(tmp_path))


def test_which_allocator(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_library(str(tmp_path)) is None
    assert with_keeping_allocator({}, str(tmp_path)) == {}
    (tmp_path / "usr/lib64").mkdir(parents=True)
    for name in reversed(NAMES):  # the first of them wins
        (tmp_path / "usr/lib64" / name).touch()
        assert find_library(str(tmp_path)) == str(tmp_path / "usr/lib64" / name)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert find_library(str(tmp_path)) is None


@pytest.mark.parametrize("command", [["-m", "vitjax.cli", "train"], [f"{ROOT / 'train.py'}"]])
def test_commands_start_again_once(tmp_path: pathlib.Path, command: list[str]) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        f"import os\nprint('told', os.environ.get('{PRELOAD}'))\n"
        "from configs.digits import get_config\n"
    )
    variables = {k: v for k, v in os.environ.items() if k != PRELOAD}
    done = subprocess.run(
        [sys.executable, *command, f"--config={config}", "--show", "--config.steps=7"],
        env={**variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    told = [line for line in lines if line.startswith("told")]
    assert told == [f"told {with_keeping_allocator(variables).get(PRELOAD)}"]
    assert '  "steps": 7,' in lines


@pytest.mark.skipif(find_library() is None, reason="tcmalloc is not installed")
def test_a_step_faults_on_few_pages() -> None:
    plain = {**os.environ, "JAX_PLATFORMS": "cpu", PRELOAD: ""}
    kept = with_keeping_allocator({k: v for k, v in plain.items() if k != PRELOAD})
    faults = [
        int(subprocess.check_output([sys.executable, "-c", STEPS], env=environment))
        for environment in (plain, kept)
    ]
    assert faults[0] > 10_000
    assert faults[1] < faults[0] / 10
