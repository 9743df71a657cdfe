"""Several processes: how they connect, exchange values, and check that they run the same thing.

Everything else about several processes is in the shardings; a step does not depend on their number.
"""

import glob
import hashlib
import importlib.util
import json
import os
import pathlib
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vitjax.train.cluster import NO_PROXY, PROXIES, Machine, find_place


class ProcessError(RuntimeError):
    """Error: a process is missing, or runs something else."""


def start(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, wait_seconds: int = 0
) -> bool:
    """Connect this process to the others; must be called before any other use of jax.

    Without arguments it finds the others as `vitjax.train.cluster` describes, and runs alone where
    there are none.

    Args:
      coordinator: "host:port" of process 0.
      num_processes, process_id: number of processes, and the index of this one.
      wait_seconds: how long to wait for the others; 0 for `default_wait`.

    Returns:
      Whether there are, or could be, other processes.

    Raises:
      ValueError: the place among the others cannot be found, see `find_place`.
      ProcessError: names the processes that did not connect in time.
    """
    place = find_place(*look(), coordinator, num_processes, process_id)
    for note in place.notes if place.index == 0 else ():
        print(note, file=sys.stderr, flush=True)
    if place.alone:
        return False
    seconds = wait_seconds or default_wait(place.count)
    if place.asked:
        jax.distributed.initialize(
            cluster_detection_method=place.asked, initialization_timeout=seconds
        )
        return True
    host, _, port = place.coordinator.rpartition(":")
    wait_for_processes(host.strip("[]"), int(port), place.count, place.index, seconds)
    leave_out_proxy(host.strip("[]"))
    jax.distributed.initialize(
        place.coordinator,
        place.count,
        place.index,
        place.devices,
        cluster_detection_method="deactivate",  # it would give each task of SLURM one device
        initialization_timeout=seconds,
    )
    return True


def default_wait(count: int) -> int:
    """Return how many seconds to wait for so many processes; 0: it is not known how many.

    After a preemption the hosts of a large pod come back within tens of minutes of each other.
    """
    return 300 if 0 < count < 16 else 1800


def leave_out_proxy(host: str) -> None:
    """Connect to a host without a proxy: gRPC does not reach it through one for web pages."""
    if any(os.environ.get(name) for name in PROXIES):
        known = os.environ.get(NO_PROXY) or os.environ.get("no_proxy", "")
        os.environ[NO_PROXY] = f"{known},{host}".lstrip(",")
        jax.config.update("jax_check_proxy_envs", False)  # a warning of what was just mended


def look() -> tuple[dict[str, str], Machine]:
    """Collect what `find_place` reads: the variables, and what there is of this machine."""
    env = dict(os.environ)
    if path := env.get("TPU_PROCESS_ADDRESSES_PATH"):
        env["TPU_PROCESS_ADDRESSES"] = pathlib.Path(path).read_text().strip()
    library = "TPU_LIBRARY_PATH" in env or importlib.util.find_spec("libtpu") is not None
    chips = any(glob.glob(pattern) for pattern in ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*"))
    machine = Machine(
        tpu=chips and library,
        gpus=len(glob.glob("/dev/nvidia[0-9]*")),
        kubernetes=importlib.util.find_spec("kubernetes") is not None,
        hostname=socket.gethostname(),
        metadata=_metadata,
        resolve=_resolve,
    )
    return env, machine


def _metadata(key: str) -> str | None:
    """Read an attribute of this machine at Google's metadata server, which is never far."""
    address = os.environ.get("GCE_METADATA_IP", "169.254.169.254")
    url = f"http://{address}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(3):
        try:
            with opener.open(request, timeout=2) as answer:
                return answer.read().decode() if answer.headers["Metadata-Flavor"] else None
        except urllib.error.HTTPError:
            return None  # it is there, and has no such attribute
        except OSError:
            time.sleep(0.5)
    return None


def _resolve(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError:
        return ""


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
