"""Several real processes on one machine: the same run as one, stopped together, told apart."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.train import detect_in_processes
from vitjax.train.checkpoint import SavedSteps
from vitjax.train.processes import ProcessError, exchange, from_lead, start, wait_for_processes
from vitjax.train.report import read_metrics
from vitjax.train.state import named_leaves

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
    "--config=configs/digits.py", "--config.model.name=vit_ti4", "--config.model.width=16",
    "--config.model.depth=1", "--config.model.num_heads=2", "--config.data.batch_size=64",
    "--config.data.eval_batch_size=128", "--config.epochs=0", "--config.steps=60",
    "--config.schedule.warmup_steps=5", "--config.log_every=4", "--config.eval_every=20",
    "--config.checkpoint_every=10", "--config.optimizer.name=sgd",
]  # fmt: skip


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def launch(
    workdir: pathlib.Path,
    count: int,
    *flags: str,
    only: str = "",
    devices: int = 1,
    cluster: Callable[[int, int], dict[str, str]] | None = None,
) -> list:
    """`count` processes of one run, of so many devices; `only` is a flag of the last one alone.

    They are told of each other by flags, or by what `cluster` gives for (process, port).
    """
    port, processes = free_port(), []
    for i in range(count):
        several = [f"--coordinator=localhost:{port}", f"--num_processes={count}"]
        several += [f"--process_id={i}", "--wait_seconds=60"]
        extra = [only] if only and i == count - 1 else []
        told = cluster(i, port) if cluster else {}
        processes.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "train.py",
                    *TINY,
                    f"--workdir={workdir}",
                    *flags,
                    *extra,
                    *(several if count > 1 and not cluster else []),
                ],
                cwd=ROOT,
                env={**os.environ, "JAX_PLATFORMS": "cpu", **_devices(devices), **told},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    return processes


def _devices(count: int) -> dict[str, str]:
    flag = f" --xla_force_host_platform_device_count={count}" if count > 1 else ""
    return {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + flag}


def slurm(process: int, port: int) -> dict[str, str]:
    """Build the environment of `srun --ntasks=2`; jax derives the port from the job's number."""
    return {
        "SLURM_JOB_ID": str(port % 4096),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }


def open_mpi(process: int, port: int) -> dict[str, str]:
    """Build the environment of `mpirun -np 2` of Open MPI 4."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{port % 4096 * 4096}.0;tcp://127.0.0.1:1",
        "OMPI_VERSION": "4.1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(process),
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
    }


def finish(processes: list) -> tuple[list[int], list[str]]:
    outputs = [p.communicate(timeout=400)[0] for p in processes]
    return [p.returncode for p in processes], outputs


def compare(workdir: pathlib.Path, other: pathlib.Path) -> None:
    """Parameters and every loss within 1e-6."""
    (step, found), (last, expected) = (
        SavedSteps(w / "checkpoints").read() for w in (workdir, other)
    )
    assert step == last == 60
    pairs = zip(named_leaves(found["params"]).items(), named_leaves(expected["params"]).values())
    for (path, a), b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6, err_msg=path)
    found, same = (read_metrics(w / "metrics.jsonl") for w in (workdir, other))
    tests = {r["step"]: r for r in same if r["split"] == "test"}
    assert [r["step"] for r in found if r["split"] == "test"] == list(tests)
    for row in found:
        if row["split"] == "test":
            assert row["images"] == 360
            assert row["top1"] == pytest.approx(tests[row["step"]]["top1"], abs=1e-6)
            assert row["loss"] == pytest.approx(tests[row["step"]]["loss"], abs=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("alone") / "work"
    codes, outputs = finish(launch(workdir, 1))
    assert codes == [0], outputs
    return workdir


@pytest.mark.slow
def test_two_processes_under_slurm_are_stopped_together_and_one_goes_on(
    alone: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "work"
    processes = launch(workdir, 2, "--config.mesh.fsdp=2", cluster=slurm)
    for line in processes[0].stdout:
        if line.startswith("step 12/"):
            processes[1].send_signal(signal.SIGTERM)
            break
    begin = time.monotonic()
    codes, outputs = finish(processes)
    assert codes == [75, 75], outputs
    assert time.monotonic() - begin < 15
    assert "Stopped by SIGTERM at step" in outputs[0]
    assert "step " not in outputs[1], "only the first process reports"
    stopped = SavedSteps(workdir / "checkpoints").steps()[-1]
    assert 12 < stopped < 60
    codes, outputs = finish(launch(workdir, 1))
    assert codes == [0], outputs
    assert f"going on from step {stopped}" in outputs[0]
    compare(workdir, alone)


@pytest.mark.slow
def test_one_process_is_stopped_and_two_under_open_mpi_go_on(
    alone: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "work"
    (process,) = launch(workdir, 1)
    for line in process.stdout:
        if line.startswith("step 24/"):
            process.send_signal(signal.SIGTERM)
            break
    assert finish([process])[0] == [75]
    codes, outputs = finish(
        launch(workdir, 2, "--config.mesh.tensor=2", devices=2, cluster=open_mpi)
    )
    assert codes == [0, 0], outputs
    assert "4 × cpu (data 2 × tensor 2), 2 processes" in outputs[0]
    compare(workdir, alone)


@pytest.mark.slow
def test_detections_of_two_processes_are_those_of_one(tmp_path: pathlib.Path) -> None:
    """Each image once, without those that pad a batch, whichever process has seen it."""
    port, file = free_port(), tmp_path / "rows.json"
    command = [sys.executable, "-m", detect_in_processes.__name__, str(file)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipes: dict[str, Any] = dict(text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    codes, outputs = finish(
        [subprocess.Popen(command, cwd=ROOT, env=env | slurm(i, port), **pipes) for i in range(2)]
    )
    assert codes == [0, 0], outputs
    found, alone = json.loads(file.read_text()), detect_in_processes.evaluate()
    assert (found.pop("processes"), found.pop("own")) == (2, 2)
    assert (alone.pop("processes"), alone.pop("own")) == (1, 4)
    assert found.pop("metrics") == alone.pop("metrics")
    for rows, order in ((found, [0, 1, 4, 2, 3]), (alone, [0, 1, 2, 3, 4])):
        assert rows["index"] == rows["truth"] == order
    for name, rows in alone.items():
        assert [found[name][found["index"].index(i)] for i in range(5)] == rows, name
    np.testing.assert_allclose(np.array(alone["boxes"])[:, 0], alone["objects"], atol=1e-5)


@pytest.mark.slow
def test_another_config_in_one_process_is_caught_before_the_first_step(
    tmp_path: pathlib.Path,
) -> None:
    codes, outputs = finish(launch(tmp_path / "work", 2, only="--config.seed=1"))
    assert codes == [1, 1]
    for output in outputs:
        assert "error: Processes run different things: seed (0 in process 0, 1 in process 1)" in (
            output
        )
    assert not (tmp_path / "work" / "checkpoints").exists()


def roll(port: int, processes: Sequence[int], seconds: float) -> list[str]:
    """What each of four processes, played by threads, is told when it waits for the others."""

    def wait(me: int) -> str:
        try:
            wait_for_processes("localhost", port, 4, me, seconds)
        except ProcessError as error:
            return str(error)
        return "all here"

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(wait, processes))


def test_who_does_not_come_is_named() -> None:
    port = free_port()
    for told in roll(port, (0, 2), 1):
        assert f"Of 4 processes, processes [1, 3] did not come to localhost:{port}" in told
    assert roll(port, range(4), 60) == ["all here"] * 4


def test_a_first_process_that_does_not_answer() -> None:
    port = free_port()
    with pytest.raises(ProcessError, match=f"Process 0 did not answer at localhost:{port} within"):
        wait_for_processes("localhost", port, 2, 1, 0.5)


def test_one_process_needs_nobody() -> None:
    assert start() is False
    assert from_lead([1, "a"]) == [1, "a"]
    assert exchange({"a": 1}) == [{"a": 1}]
    with pytest.raises(ValueError, match="several processes need all three"):
        start("localhost:1234", 2)
