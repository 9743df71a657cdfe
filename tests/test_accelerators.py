"""jax looks for no TPU or GPU where none is, and for one wherever there may be one."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import types
from importlib import metadata

import pytest

from vitjax import accelerators
from vitjax.accelerators import (
    leave_out_absent,
    may_have_gpu,
    may_have_tpu,
    platforms_of,
)

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize(
    "file",
    ["dev/accel0", "dev/vfio/0", "dev/vfio/17"],
)
def test_device_files_tell_a_tpu(tmp_path: pathlib.Path, file: str) -> None:
    assert not may_have_tpu({}, str(tmp_path))
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.touch()
    assert may_have_tpu({}, str(tmp_path))


def test_the_pci_bus_tells_a_tpu(tmp_path: pathlib.Path) -> None:
    (tmp_path / "dev" / "vfio").mkdir(parents=True)
    (tmp_path / "dev" / "vfio" / "vfio").touch()  # the driver alone
    for vendor, there in (("0x10de", False), ("0x1ae0", True)):
        device = tmp_path / "sys" / "bus" / "pci" / "devices" / vendor
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        assert may_have_tpu({}, str(tmp_path)) == there


@pytest.mark.parametrize(
    ("variable", "there"),
    [
        ("TPU_WORKER_HOSTNAMES", True),
        ("TPU_ACCELERATOR_TYPE", True),
        ("CLOUD_TPU_TASK_ID", True),
        ("COLAB_TPU_ADDR", True),
        ("JAX_FORCE_TPU_INIT", True),
        ("TPU_SKIP_MDS_QUERY", False),
        ("TPU_LIBRARY_PATH", False),
        ("HOME", False),
    ],
)
def test_variables_tell_a_tpu(tmp_path: pathlib.Path, variable: str, there: bool) -> None:
    assert may_have_tpu({variable: "1"}, str(tmp_path)) == there


def test_other_platforms_stay() -> None:
    assert platforms_of([]) == "cpu"
    assert platforms_of(["xla_cuda12", "jax_plugins.xla_cuda12"]) == "cuda,cpu"
    assert platforms_of(["xla_rocm7"]) == "rocm,cpu"
    assert platforms_of(["xla_cuda12", "metal"]) is None


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine with libtpu and no TPU, and jax not yet imported."""
    environment: dict[str, str] = {}
    monkeypatch.setattr(accelerators, "os", types.SimpleNamespace(environ=environment))
    monkeypatch.setattr(accelerators, "sys", types.SimpleNamespace(modules={}))
    monkeypatch.setattr(accelerators, "may_have_tpu", lambda environment: False)
    monkeypatch.setattr(accelerators, "may_have_gpu", lambda: True)
    spec = types.SimpleNamespace(submodule_search_locations=[])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    return environment


def test_an_absent_tpu_is_left_out(bare: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_absent()
    assert bare == {"JAX_PLATFORMS": "cpu"}
    bare.clear()
    entry = types.SimpleNamespace(name="xla_cuda12")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])
    leave_out_absent()
    assert bare == {"JAX_PLATFORMS": "cuda,cpu"}


def test_an_absent_gpu_is_left_out(
    bare: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = types.SimpleNamespace(name="xla_cuda12")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])
    folder = types.SimpleNamespace(submodule_search_locations=[])
    without_tpu = {"libtpu": None, "jax_plugins": folder}
    monkeypatch.setattr(importlib.util, "find_spec", without_tpu.get)
    leave_out_absent()
    assert bare == {}  # it may be there
    monkeypatch.setattr(accelerators, "may_have_gpu", lambda: False)
    leave_out_absent()
    assert bare == {"JAX_PLATFORMS": "cpu"}
    assert not may_have_gpu(str(tmp_path))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert may_have_gpu(str(tmp_path))


def test_nothing_is_decided_for_others(
    bare: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was said, where there may be a TPU, and where nobody would look for one."""
    bare["JAX_PLATFORMS"] = ""
    leave_out_absent()
    assert bare.pop("JAX_PLATFORMS") == ""
    with monkeypatch.context() as patch:
        patch.setattr(accelerators, "may_have_tpu", lambda environment: True)
        leave_out_absent()
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        leave_out_absent()
    with monkeypatch.context() as patch:
        patch.setattr(accelerators, "sys", types.SimpleNamespace(modules={"jax": None}))
        leave_out_absent()
    bare["PJRT_NAMES_AND_LIBRARY_PATHS"] = "own:/lib/own.so"
    leave_out_absent()
    assert list(bare) == ["PJRT_NAMES_AND_LIBRARY_PATHS"]


def test_every_command_decides_before_jax(tmp_path: pathlib.Path) -> None:
    library = "def get_library_path(): return '/nowhere/libtpu.so'\n"
    (tmp_path / "libtpu.py").write_text(library)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TPU_"))}
    environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), str(ROOT)))
    code = (
        "import os, sys, vitjax.accelerators as a; a.may_have_tpu = lambda environment: False; "
        "from vitjax.cli import main; assert 'jax' not in sys.modules; main(['list', 'vit_ti16']); "
        "print(os.environ['JAX_PLATFORMS'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    name, platforms = run.stdout.split()
    assert name == "vit_ti16" and platforms.split(",")[-1] == "cpu"
    assert run.stderr == ""
