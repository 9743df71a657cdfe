"""Choice of the accelerators that jax looks for, made before jax is imported.

With libtpu installed (the extra `plan` brings it), jax looks for a TPU on every machine. Without a
TPU, libtpu prints errors about accelerator type and worker hostnames. The compiler for GPUs (the
extra `plan-gpu`) prints one about CUDA wherever there is no GPU.
"""

import glob
import importlib.util
import os
import pathlib
import pkgutil
import sys
from collections.abc import Iterable, Mapping

GOOGLE = "0x1ae0"
"""Google's number among vendors of PCI devices."""
PCI = "sys/bus/pci/devices/*/vendor"
HARMLESS = ("TPU_SKIP_MDS_QUERY", "TPU_LIBRARY_PATH")
"""Variables that begin with TPU_ and do not say that there is a TPU."""
GPUS = ("cuda", "rocm")
"""Platforms of jax besides "cpu" and "tpu" that come as plugins."""


def leave_out_absent() -> None:
    """Keep jax from looking for a TPU or GPU where none is; sets JAX_PLATFORMS, unless it is set.

    Does nothing once jax is imported, where there may be a TPU, or where all that is installed may
    be there.
    """
    if "jax" in sys.modules or "JAX_PLATFORMS" in os.environ:
        return
    tpu = importlib.util.find_spec("libtpu") is not None
    folders = importlib.util.find_spec("jax_plugins")
    if not (tpu or folders) or (tpu and may_have_tpu(os.environ)):
        return
    from importlib import metadata  # costs as much as the rest of the command line

    if "PJRT_NAMES_AND_LIBRARY_PATHS" in os.environ:  # platforms by names of their own
        return
    plugins = [entry.name for entry in metadata.entry_points(group="jax_plugins")]
    if folders:
        plugins += [m.name for m in pkgutil.iter_modules(folders.submodule_search_locations)]
    platforms = platforms_of(plugins)
    if platforms is None:
        return
    there = ["cpu"] if not may_have_gpu() else platforms.split(",")
    if tpu or there != platforms.split(","):
        os.environ["JAX_PLATFORMS"] = ",".join(there)


def may_have_gpu(root: str = "/") -> bool:
    """Check for traces of a GPU: device files of NVIDIA, AMD, Jetson and WSL, or CUDA's driver.

    Args:
      root: the folder that holds `dev` and `usr`.
    """
    devices = ("nvidia*", "kfd", "dxg", "nvmap", "nvhost*")
    libraries = ("usr/lib*/libcuda.so*", "usr/lib/*/libcuda.so*", "usr/lib/wsl/lib/libcuda.so*")
    return _any(root, (*(f"dev/{name}" for name in devices), *libraries))


def may_have_tpu(environment: Mapping[str, str], root: str = "/") -> bool:
    """Check for traces of a TPU: its device files, its PCI device, its host's variables.

    Args:
      environment: variables of the process.
      root: the folder that holds `dev` and `sys`.
    """
    told = ("CLOUD_TPU_", "COLAB_TPU_", "TPU_")
    if "JAX_FORCE_TPU_INIT" in environment or any(
        name.startswith(told) and name not in HARMLESS for name in environment
    ):
        return True
    # Chips of v5e and later are numbered groups of VFIO, earlier ones have a driver of their own.
    if _any(root, ("dev/accel*", "dev/vfio/[0-9]*")):
        return True
    vendors = glob.glob(str(pathlib.Path(glob.escape(root)) / PCI))
    return any(_vendor(path) == GOOGLE for path in vendors)


def platforms_of(plugins: Iterable[str]) -> str | None:
    """List what jax would look for besides a TPU, as in JAX_PLATFORMS.

    Args:
      plugins: names of jax's plugins that are installed, such as "xla_cuda12".

    Returns:
      The platforms, GPUs first; None where a plugin is of another kind, so that jax has to choose.
    """
    found = []
    for plugin in plugins:
        platform = next((name for name in GPUS if name in plugin), None)
        if platform is None:
            return None
        found.append(platform)
    return ",".join([*dict.fromkeys(found), "cpu"])


def _any(root: str, patterns: Iterable[str]) -> bool:
    base = pathlib.Path(glob.escape(root))
    return any(glob.glob(str(base / pattern)) for pattern in patterns)


def _vendor(path: str) -> str:
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""
