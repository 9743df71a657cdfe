"""Options of the compiler that a run sets for its training step."""

from collections.abc import Sequence
from typing import Any

VMEM = {"TPU v5 lite": 65_536}
"""Kind of device → KiB of its vector memory (v5e: 131,072) that one fusion may use, instead of
16,384. The rest prefetches operands from memory: with all of it the compiler copies arrays there
and back that are read once.
"""


def compiler_options(devices: Sequence[Any]) -> dict[str, str] | None:
    """For `jax.jit(compiler_options=…)`; None where nothing is set."""
    limit = VMEM.get(devices[0].device_kind)
    return None if limit is None else {"xla_tpu_scoped_vmem_limit_kib": str(limit)}
