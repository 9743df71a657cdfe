"""Report of a machine for a report of a fault: versions, processes, devices, and what is wrong."""

import os
import pathlib
import platform
import shutil
from importlib import metadata
from typing import Any

import vitjax
from vitjax.allocator import PRELOAD, with_keeping_allocator
from vitjax.console import format_bytes, table
from vitjax.folders import cache_folder
from vitjax.train import processes
from vitjax.train.cluster import Env, Machine, Place, find_place

PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "numpy",
            "opencv-python-headless", "tensorflow-datasets", "datasets", "torch")  # fmt: skip
SHOWN = (
    *("JAX_", "XLA_", "LIBTPU_", "TPU_", "MEGASCALE_", "CUDA_VISIBLE", "VITJAX_"),
    *("SLURM_STEP_", "SLURM_PROCID", "SLURM_LOCALID", "OMPI_COMM_WORLD_", "SKYPILOT_N"),
    *("NNODES", "NODE_RANK", "JOB_COMPLETION_INDEX", "WORLD_SIZE", "RANK", "MASTER_"),
)
"""How the names of variables begin that say how a run is spread."""


def doctor(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, connect: int = 0
) -> tuple[dict[str, Any], str]:
    """Collect versions, the place among processes, devices, and a first computation's result.

    Args:
      coordinator, num_processes, process_id: as `vitjax train` takes them.
      connect: seconds to wait for the other processes, and then to count everyone's devices; 0 to
        look at this process alone.

    Returns:
      JSON, and a table. "wrong" lists what would keep a run from working.
    """
    found: dict[str, Any] = {
        "vitjax": vitjax.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    env, machine = processes.look()
    found |= {name: value for name, value in sorted(env.items()) if name.startswith(SHOWN)}
    rows, place, wrong = _processes(env, machine, (coordinator, num_processes, process_id))
    found |= rows
    if connect and place and not place.alone:
        try:
            processes.start(coordinator, num_processes, process_id, connect)
        except processes.ProcessError as error:
            wrong.append(str(error))
            place = None
    found |= _devices(place, bool(connect), wrong)
    found["memory of the host"] = _memory()
    preloaded = with_keeping_allocator(os.environ).get(PRELOAD)
    found["allocator of a run"] = preloaded or "the C library's (docs/performance.md)"
    cache = cache_folder()
    near = next(path for path in (cache, *cache.parents) if path.exists())
    if not os.access(near, os.W_OK):
        wrong.append(f"{near} is not writable: set XDG_CACHE_HOME to a folder that is.")
    found["cache"] = f"{cache / 'vitjax'}, {format_bytes(shutil.disk_usage(near).free)} free"
    found["wrong"] = wrong
    shown = [(name, str(value)) for name, value in found.items() if name != "wrong"]
    return found, table(shown + [("wrong", text) for text in wrong or ["nothing was found"]])


def _processes(
    env: Env, machine: Machine, flags: tuple[str, int, int]
) -> tuple[dict[str, str], Place | None, list[str]]:
    """Describe the place among processes; None with the reason where a run would be refused."""
    try:
        place = find_place(env, machine, *flags)
    except ValueError as error:
        return {"environment": "see below", "processes": "refused"}, None, [str(error)]
    hosts = f" on {place.hosts} hosts" if place.hosts > 1 else ""
    count = "asked of Kubernetes" if place.asked else f"{place.count}{hosts}, this is {place.index}"
    rows = {
        "environment": place.launcher,
        "coordinator": place.coordinator or "none is needed",
        "processes": "1" if place.alone else count,
        "note": " ".join(place.notes),
    }
    return {name: text for name, text in rows.items() if text}, place, []


def _devices(place: Place | None, connected: bool, wrong: list[str]) -> dict[str, str]:
    """List the devices, and run a computation on the first."""
    if place is None:
        return {"devices": "not asked"}
    if not (place.alone or connected) and place.launcher.startswith("TPU"):
        return {
            "devices": "not asked: the chips of several hosts answer together; run `vitjax "
            "doctor --connect` on all of them"
        }
    try:
        import jax
        import jax.numpy as jnp

        if place.devices and not connected:  # as jax.distributed would restrict them
            for platform_name in ("cuda", "rocm"):
                jax.config.update(
                    f"jax_{platform_name}_visible_devices", ",".join(map(str, place.devices))
                )
        own = jax.local_devices()
        rows = {"devices per process": f"{len(own)} × {own[0].platform} {own[0].device_kind}"}
        if connected and not place.alone:
            rows["devices in all"] = f"{jax.device_count()}, of {jax.process_count()} processes"
        stats = own[0].memory_stats() or {}
        if limit := stats.get("bytes_limit"):
            rows["memory of a device"] = (
                f"{format_bytes(limit)}, {format_bytes(stats.get('bytes_in_use'))} in use"
            )
        total = float(jax.jit(lambda x: (x @ x).sum())(jnp.ones((8, 8))))
    except Exception as error:  # whatever a broken installation raises is what is asked for
        wrong.append(f"The devices do not work: {type(error).__name__}: {error}")
        return {"devices": "none", "computes": "no"}
    if total != 512:
        wrong.append(f"The first device computes wrongly: the sum of 8³ ones is {total:g}.")
    return {**rows, "computes": "yes" if total == 512 else "no"}


def _memory() -> str:
    path = pathlib.Path("/proc/meminfo")  # of Linux alone
    if not path.exists():
        return "unknown"
    rows = (line.split() for line in path.read_text().splitlines())
    kilobytes = {row[0]: int(row[1]) for row in rows if len(row) > 1}
    total, free = (1024 * kilobytes.get(name, 0) for name in ("MemTotal:", "MemAvailable:"))
    return f"{format_bytes(total)}, {format_bytes(free)} free"
