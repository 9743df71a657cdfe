"""Compiler options of a run's programs, and the cache of what is compiled."""

from collections.abc import Sequence
from typing import Any

import jax

from vitjax.folders import cache_folder

VMEM = {"TPU v5 lite": 65_536}
"""Kind of device → KiB of its vector memory (v5e: 131,072) that one fusion may use, instead of
16,384. The rest prefetches operands from memory: with all of it the compiler copies arrays there
and back that are read once.
"""


MANY, FEW = 100, 10_000_000
"""Arrays from which, and parameters up to which, drawing first weights costs less than the
compiler's effort for it."""


def compiler_options(devices: Sequence[Any]) -> dict[str, str] | None:
    """Build the argument of `jax.jit(compiler_options=…)`; None where nothing is set."""
    limit = VMEM.get(devices[0].device_kind)
    return None if limit is None else {"xla_tpu_scoped_vmem_limit_kib": str(limit)}


def init_options(devices: Sequence[Any], sizes: Sequence[int]) -> dict[str, Any] | None:
    """Build the same argument for the program that draws the first weights, which runs once.

    On CPUs, LLVM optimises the generator of each array anew: for RANet's 300 arrays in 53 s of
    processor time, and without optimisation 13 s.

    Args:
      sizes: of the arrays.
    """
    plain = devices[0].platform == "cpu" and len(sizes) >= MANY and sum(sizes) <= FEW
    return {"xla_backend_optimization_level": 0} if plain else None


def keep_compiled() -> str:
    """Keep compiled programs in a cache for later processes, and return its folder.

    The folder is jax's own where it is set (JAX_COMPILATION_CACHE_DIR), else `vitjax/jax` in the
    user's cache folder (XDG_CACHE_HOME, or ~/.cache). JAX_ENABLE_COMPILATION_CACHE=false turns the
    cache off. The key of a program is its text, the compiler's version and options, and the
    devices.
    """
    settings: Any = jax.config  # its fields are made when it is imported
    if not settings.jax_enable_compilation_cache:
        return "none"
    if not settings.jax_compilation_cache_dir:
        folder = cache_folder() / "vitjax" / "jax"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return f"none, as {folder} cannot be made ({error.strerror})"
        settings.update("jax_compilation_cache_dir", str(folder))
    return settings.jax_compilation_cache_dir
