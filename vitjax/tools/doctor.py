"""Report of a machine's versions and devices, for a report of a fault."""

import os
import pathlib
import platform
import shutil
from importlib import metadata
from typing import Any

import vitjax
from vitjax.console import format_bytes, table

PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "numpy",
            "opencv-python-headless", "tensorflow-datasets", "datasets", "torch")  # fmt: skip


def doctor() -> tuple[dict[str, Any], str]:
    """Collect versions, devices and the result of a first computation on them.

    Returns:
      JSON, and a table.
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
    found |= {name: value for name, value in sorted(os.environ.items()) if _counts(name)}
    found["devices"], found["computes"] = _devices()
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    near = next(path for path in (cache, *cache.parents) if path.exists())
    free = format_bytes(shutil.disk_usage(near).free)
    writable = "" if os.access(near, os.W_OK) else ", not writable"
    found["cache"] = f"{cache / 'vitjax'}, {free} free{writable}"
    return found, table((name, str(value)) for name, value in found.items())


def _counts(name: str) -> bool:
    return name.startswith(("JAX_", "XLA_", "LIBTPU_", "TPU_", "CUDA_VISIBLE", "VITJAX_"))


def _devices() -> tuple[str, str]:
    """List the devices and run a computation on the first."""
    try:
        import jax
        import jax.numpy as jnp

        devices = jax.devices()
        kinds = f"{len(devices)} × {devices[0].platform} {devices[0].device_kind}"
        total = float(jax.jit(lambda x: (x @ x).sum())(jnp.ones((8, 8))))
    except Exception as error:  # whatever a broken installation raises is what is asked for
        return "none", f"no: {type(error).__name__}: {error}"
    return kinds, "yes" if total == 512 else f"no: 8³ is {total:g}"
