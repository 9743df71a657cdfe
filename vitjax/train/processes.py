"""One process or a hundred: how they find each other, and that they run the same thing.

Everything else about several processes is in the shardings; a step does not know how many there
are.
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
    """A process that did not come, or that runs something else."""


def start(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, wait_seconds: int = 300
) -> bool:
    """Joins this process to the others, before anything else of jax is used.

    Without arguments it finds them by itself where a TPU pod, SLURM, Open MPI or Kubernetes tells
    of them, and runs alone elsewhere.

    Args:
      coordinator: "host:port" of process 0.
      num_processes, process_id: how many there are, and which this is.
      wait_seconds: how long to wait for the others.

    Returns:
      Whether there are others, or could be.

    Raises:
      ValueError: only some of the three are given, or they do not fit.
      ProcessError: names the processes that did not come in time.
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
    """Whether jax.distributed.initialize() will find who takes part."""
    env = os.environ
    tpu = pathlib.Path("/dev/accel0").exists() or pathlib.Path("/dev/vfio/0").exists()
    return (
        (tpu and env.get("JAX_PLATFORMS", "tpu") != "cpu")
        or int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        or int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
        or ("KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env)
    )


def wait_for_processes(host: str, port: int, count: int, me: int, seconds: float) -> None:
    """Returns once all processes are there. Process 0 listens at the coordinator's port until then.

    jax waits too, but it ends the process from within when time is up, and does not say for whom.

    Raises:
      ProcessError: names who is missing.
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
    """Whether this process writes reports."""
    return jax.process_index() == 0


def all_agree(good: bool) -> bool:
    """Whether it is so for every process; all must ask."""
    if jax.process_count() == 1:
        return good
    return bool(np.min(multihost_utils.process_allgather(np.array(good, np.int32))))


def from_lead(value: Any) -> Any:
    """Process 0's value (JSON) in every process."""
    if jax.process_count() == 1:
        return value
    return exchange(value)[0]


def exchange(value: Any) -> list[Any]:
    """Every process's value (JSON), by process."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array(text.size, np.int32)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: text.size] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, sizes.reshape(-1), strict=True)]


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Concatenate every process's rows, of which each may have another number."""
    if jax.process_count() == 1:
        return rows
    counts = exchange(len(rows))
    padded = np.zeros((max(counts), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    return np.concatenate([part[:n] for part, n in zip(gathered, counts, strict=True)])


def on_lead(action: Callable[[], Any]) -> Any:
    """What the action gives in process 0, and None in the others, which wait for it.

    Raises:
      ProcessError: in the others, if it failed there.
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
    """Compares what the processes are about to run, before they do.

    Args:
      what: named JSON values: the flattened config, versions, fingerprints.

    Raises:
      ProcessError: names what differs, in which process, with both values.
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
    """Jax's version, and a hash of this library's source as it lies on this host."""
    folder = pathlib.Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return {"jax": jax.__version__, "vitjax's source": digest.hexdigest()[:16]}
