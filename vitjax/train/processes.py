"""Several processes: how they connect, exchange values, and check that they run the same thing.

Everything else about several processes is in the shardings; a step does not depend on their number.
"""

import hashlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


class ProcessError(RuntimeError):
    """Error: a process is missing, or runs something else."""


def start(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, wait_seconds: int = 300
) -> bool:
    """Connect this process to the others; must be called before any other use of jax.

    Without arguments it finds the others on TPU pods, SLURM, Open MPI and Kubernetes, and runs
    alone elsewhere.

    Args:
      coordinator: "host:port" of process 0.
      num_processes, process_id: number of processes, and the index of this one.
      wait_seconds: how long to wait for the others.

    Returns:
      Whether there are, or could be, other processes.

    Raises:
      ValueError: only some of the three are given, or they do not fit.
      ProcessError: names the processes that did not connect in time.
    """
    if not (coordinator or num_processes or process_id >= 0):
        if _in_cluster():
            jax.distributed.initialize(initialization_timeout=wait_seconds)
            return True
        return False
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdigit() and 0 <= process_id < num_processes):
        raise ValueError(
            f"--coordinator={coordinator or '?'} --num_processes={num_processes} "
            f"--process_id={process_id}: several processes need all three, as in "
            "--coordinator=10.0.0.1:8476 --num_processes=4 --process_id=0, with another id, from "
            "0 to 3, for each."
        )
    wait_for_processes(host, int(port), num_processes, process_id, wait_seconds)
    jax.distributed.initialize(
        coordinator, num_processes, process_id, initialization_timeout=wait_seconds
    )
    return True


def _in_cluster() -> bool:
    """Return whether jax.distributed.initialize() will find the other processes."""
    env = os.environ
    tpu = pathlib.Path("/dev/accel0").exists() or pathlib.Path("/dev/vfio/0").exists()
    return (
        (tpu and env.get("JAX_PLATFORMS", "tpu") != "cpu")
        or int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        or int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
        or ("KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env)
    )


def wait_for_processes(host: str, port: int, count: int, me: int, seconds: float) -> None:
    """Wait for all processes; process 0 listens at the coordinator's port until then.

    jax waits too, but it kills the process at its timeout, without naming the missing ones.

    Raises:
      ProcessError: names the missing processes.
    """
    end, where = time.monotonic() + seconds, f"{host}:{port}"
    if me == 0:
        _listen(port, count, end, seconds, where)
        return
    while True:
        try:
            with socket.create_connection((host, port), max(end - time.monotonic(), 0.1)) as link:
                link.settimeout(max(end - time.monotonic(), 0.1) + 5)
                link.sendall(f"{me}\n".encode())
                answer = link.makefile().readline().strip()
            if answer == "go":
                return
            if answer:
                raise ProcessError(answer)
        except OSError:
            pass  # process 0 is not there yet
        if time.monotonic() > end:
            raise ProcessError(
                f"Process 0 did not answer at {where} within {seconds:g} s (this is process {me} "
                f"of {count}). Is it started, and is the address right?"
            )
        time.sleep(0.1)


def _listen(port: int, count: int, end: float, seconds: float, where: str) -> None:
    here: dict[int, socket.socket] = {}
    with socket.create_server(("", port)) as server:
        while len(here) < count - 1 and (left := end - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                link, _ = server.accept()
                link.settimeout(5)
                here[int(link.makefile().readline())] = link
            except (OSError, ValueError):
                continue
        missing = [i for i in range(1, count) if i not in here]
        words = f"process {missing[0]}" if len(missing) == 1 else f"processes {missing}"
        text = f"Of {count} processes, {words} did not come to {where} within {seconds:g} s."
        for link in here.values():
            link.sendall(f"{text if missing else 'go'}\n".encode())
            link.close()
    if missing:
        raise ProcessError(text)


def is_lead() -> bool:
    """Return whether this process writes reports."""
    return jax.process_index() == 0


def all_agree(good: bool) -> bool:
    """Return whether `good` is true in every process; all processes must call this."""
    if jax.process_count() == 1:
        return good
    return bool(np.min(multihost_utils.process_allgather(np.array(good, np.int32))))


def from_lead(value: Any) -> Any:
    """Return process 0's value (JSON) in every process."""
    if jax.process_count() == 1:
        return value
    return exchange(value)[0]


def exchange(value: Any) -> list[Any]:
    """Return the values (JSON) of all processes, by process."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array(text.size, np.int32)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: text.size] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, sizes.reshape(-1), strict=True)]


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Concatenate the rows of all processes, whose numbers may differ."""
    if jax.process_count() == 1:
        return rows
    counts = exchange(len(rows))
    padded = np.zeros((max(counts), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    return np.concatenate([part[:n] for part, n in zip(gathered, counts, strict=True)])


def on_lead(action: Callable[[], Any]) -> Any:
    """Run an action in process 0 and return its result there, and None in the others, which wait.

    Raises:
      ProcessError: in the others, if the action failed in process 0.
    """
    result, error = None, None
    if is_lead():
        try:
            result = action()
        except (ValueError, OSError) as failure:
            error = failure
    words = from_lead(str(error) if error else "")
    if error is not None:
        raise error
    if words:
        raise ProcessError(f"Process 0: {words}")
    return result


def check_same_everywhere(what: Mapping[str, Any]) -> None:
    """Check that all processes are about to run the same thing.

    Args:
      what: named JSON values: the flattened config, versions, fingerprints.

    Raises:
      ProcessError: names the differing keys, with both values and the process.
    """
    everyone = exchange(dict(what))
    for number, theirs in enumerate(everyone):
        differing = [
            f"{key} ({everyone[0].get(key)!r} in process 0, {theirs.get(key)!r} in process "
            f"{number})"
            for key in sorted(everyone[0].keys() | theirs.keys())
            if everyone[0].get(key) != theirs.get(key)
        ]
        if differing:
            raise ProcessError(
                f"Processes run different things: {'; '.join(differing[:5])}"
                f"{' …' if differing[5:] else ''}. Start all with the same files and flags."
            )


def code_version() -> dict[str, str]:
    """Compute the version of the code: that of jax, and a hash of this library's source here."""
    folder = pathlib.Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return {"jax": jax.__version__, "vitjax's source": digest.hexdigest()[:16]}
