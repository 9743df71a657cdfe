"""Choice of the memory allocator of a process whose models run on the CPU.

XLA allocates the temporaries of every step anew. glibc gives blocks of that size back to the system
when they are freed, and the system clears every page at its next use: a fifth of a training step.
tcmalloc keeps what is freed. It has to be loaded before the program is, by a variable that is set
when the process starts.
"""

import os
import pathlib
import platform
import sys
from collections.abc import Mapping

from vitjax.accelerators import may_have_gpu, may_have_tpu

PRELOAD = "LD_PRELOAD"
NAMES = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
"""Files of tcmalloc, in Debian's packages libtcmalloc-minimal4 (from Ubuntu 24.04 on
libtcmalloc-minimal4t64) and libgoogle-perftools4."""
FOLDERS = ("usr/lib/{machine}-linux-gnu", "usr/lib64", "usr/lib", "usr/local/lib")


def use_keeping_allocator() -> None:
    """Start this command again with an allocator that keeps freed memory, if one is installed.

    To be called only by a command's own process, before it has done anything: the new program takes
    its place.
    """
    variables = with_keeping_allocator(os.environ)
    if variables != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], variables)


def with_keeping_allocator(environment: Mapping[str, str], root: str = "/") -> dict[str, str]:
    """Return the variables of a process that is to keep freed memory.

    They are unchanged beside an accelerator, where none of NAMES is installed, and where LD_PRELOAD
    is set, be it empty.

    Args:
      environment: variables now.
      root: the folder that holds `dev`, `sys` and `usr`.
    """
    asked = environment.get("JAX_PLATFORMS")
    cpu = asked == "cpu" if asked else not (may_have_gpu(root) or may_have_tpu(environment, root))
    library = find_library(root) if cpu and PRELOAD not in environment else None
    if library is None:
        return dict(environment)
    return {**environment, PRELOAD: library}


def find_library(root: str = "/") -> str | None:
    """Return the path of an allocator that keeps freed memory; None where none is installed."""
    if sys.platform != "linux":
        return None
    folders = [pathlib.Path(root, f.format(machine=platform.machine())) for f in FOLDERS]
    paths = (folder / name for name in NAMES for folder in folders)
    return next((str(path) for path in paths if path.is_file()), None)
