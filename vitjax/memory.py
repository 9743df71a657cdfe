"""Huge pages for the arrays of a process whose models run on the CPU.

XLA allocates the temporaries of every step anew, and the system clears each page of 4 KiB when it
is first used: a fifth of the processor time of a training step of DeiT-Ti with 16 images. The C
library asks for pages of 2 MiB if a variable says so when the process starts.
"""

import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from vitjax.accelerators import may_have_gpu, may_have_tpu

TUNABLES = "GLIBC_TUNABLES"
HUGE = "glibc.malloc.hugetlb"
SINCE = (2, 35)
"""Version of glibc that knows it."""
PAGES = "sys/kernel/mm/transparent_hugepage/enabled"


def use_huge_pages() -> None:
    """Start this command again with the variable for huge pages, where it helps and is not set.

    To be called only by a command's own process, before it has done anything: the new program takes
    its place.
    """
    variables = with_huge_pages(os.environ)
    if variables != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], variables)


def with_huge_pages(environment: Mapping[str, str], root: str = "/") -> dict[str, str]:
    """Return the variables of a process that is to use huge pages.

    They are unchanged beside an accelerator, with another C library, where the kernel gives such
    pages to all or to none, and where the variable already says something about them.

    Args:
      environment: variables now.
      root: the folder that holds `dev` and `sys`.
    """
    tunables = environment.get(TUNABLES, "")
    asked = environment.get("JAX_PLATFORMS")
    cpu = asked == "cpu" if asked else not (may_have_gpu(root) or may_have_tpu(environment, root))
    if not cpu or HUGE in tunables or not _knows() or "[madvise]" not in _read(root):
        return dict(environment)
    return {**environment, TUNABLES: f"{tunables}:{HUGE}=1".lstrip(":")}


def _knows() -> bool:
    """Return whether the C library is a glibc that knows the variable."""
    names: Any = getattr(os, "confstr_names", {})
    text = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in names else None
    return text is not None and tuple(int(n) for n in text.split()[-1].split(".")) >= SINCE


def _read(root: str) -> str:
    try:
        return pathlib.Path(root, PAGES).read_text()
    except OSError:
        return ""
