"""GPUs that are described and not there: the compiler is told what it would ask a driver.

XLA compiles for a GPU from a description of it (`GpuTargetConfigProto`). Without a card no kernel
is timed, so that the compiler takes its first choice of each; cuDNN's own refusals and workspaces
are not seen either.
"""

import os
import re
from importlib import metadata
from typing import Any, NamedTuple

from vitjax.kernels import cudnn
from vitjax.names import unknown

HOST = 8
"""GPUs of a host, and the most that its links join."""
MARGIN = 0.1
"""Share of a GPU's memory that a plan leaves free: for cuDNN's workspaces, what the driver and NCCL
hold, and the gaps of the allocator, none of which the compiler counts."""


class Target(NamedTuple):
    """Properties of a GPU that the compiler reads, in units of the driver.

    Attributes:
      capability: compute capability, major and minor.
      accelerated: instructions of this capability alone may be used ("sm_90a").
      cores: streaming multiprocessors; `units` of float32 in each.
      shared: bytes of shared memory of a core; `block`: of them for one block of threads.
      cache: bytes of the second-level cache.
      clock: GHz.
      bandwidth, memory: bytes a second and bytes, as the driver tells them.
    """

    name: str
    capability: tuple[int, int]
    accelerated: bool
    cores: int
    units: int
    shared: int
    block: int
    cache: int
    clock: float
    bandwidth: int
    memory: int


TARGETS = {  # figures: openxla/xla, xla/backends/gpu/target_config/specs/*.txtpb
    "a100": Target("NVIDIA A100-SXM4-80GB", (8, 0), False, 108, 64, 167_936, 166_912,
                   41_943_040, 1.41, 2_039_040_000_000, 85_100_068_864),
    "h100": Target("NVIDIA H100 80GB HBM3", (9, 0), True, 132, 128, 233_472, 232_448,
                   52_428_800, 1.98, 3_352_320_000_000, 84_942_979_072),
    "h200": Target("NVIDIA H200", (9, 0), True, 132, 128, 233_472, 232_448,
                   52_428_800, 1.98, 4_800_000_000_000, 151_397_597_184),
    "b200": Target("NVIDIA B200", (10, 0), True, 148, 128, 233_472, 232_448,
                   132_644_864, 1.965, 7_672_320_000_000, 191_514_411_008),
}  # fmt: skip
LIMITS = {  # of all of them: CUDA C++ programming guide, "Technical Specifications per …"
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49_152,
    "threads_per_core_limit": 2048,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65_535,
    "block_dim_limit_z": 65_535,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
    "registers_per_core_limit": 65_536,
    "registers_per_block_limit": 65_536,
}
CUDA, CUDNN = "12.8.0", (9, 10, 0)
"""Versions that the compiler supposes."""


def parse_gpus(name: str) -> tuple[str, int, int] | None:
    """Parse a kind, hosts and GPUs of each: "h100x16" is two hosts of eight; None for other names.

    Raises:
      ValueError: more than a host's GPUs, and not whole hosts; or none.
    """
    match = re.fullmatch(r"([a-z]\d{3})(?:x(\d+))?", name)
    if not match:
        return None
    kind, number = match[1], int(match[2] or 1)
    if kind not in TARGETS:
        raise ValueError(unknown("GPU", kind, TARGETS))
    if number < 1 or (number > HOST and number % HOST):
        raise ValueError(
            f"Topology {name!r}: a host has 1 to {HOST} GPUs, and several hosts {HOST} each; give "
            f"{kind}x{max(1, number // HOST) * HOST} or another multiple of {HOST}."
        )
    hosts = max(1, number // HOST)
    return kind, hosts, number // hosts


def open_gpus(kind: str, hosts: int, each: int) -> list[Any]:
    """Return described GPUs, as JAX lists devices.

    Raises:
      RuntimeError: the compiler is not installed, or refuses the description.
    """
    load_compiler()
    from jax._src.cudnn import fused_attention_stablehlo
    from jax.experimental import topologies

    cudnn.planned = TARGETS[kind].capability
    # Attention is lowered for a version of cuDNN that JAX asks the library for.
    major, minor, patch = CUDNN
    version = 10_000 * major + 100 * minor + patch
    fused_attention_stablehlo.check_cudnn_version = lambda: version

    shape = f"1x{hosts}x{each}"  # slices, hosts, GPUs of each
    try:
        described = topologies.get_topology_desc(
            kind, "cuda", topology=shape, target_config=describe(TARGETS[kind])
        )
    except Exception as error:  # what the plugin raises is not of one kind
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"The compiler refuses {hosts} × {each} {kind}: {reason}") from error
    return list(described.devices)


def load_compiler() -> None:
    """Load JAX's plugin for CUDA, without its many words on that there is no driver.

    Raises:
      RuntimeError: it is not installed.
    """
    if not any("cuda" in plugin.name for plugin in metadata.entry_points(group="jax_plugins")):
        raise RuntimeError(
            "The compiler for GPUs is not installed: pip install 'vitjax[plan-gpu]' (no GPU and no "
            "driver is needed). --topology=cpu plans for this machine without it."
        )
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # they are written by C++, past sys.stderr
    try:
        import jax

        jax.devices("cpu")  # plugins are loaded with the first backend
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def describe(gpu: Target) -> str:
    """Write a GPU's properties as the text of a `GpuTargetConfigProto`."""
    capability = f"major: {gpu.capability[0]} minor: {gpu.capability[1]}"
    feature = "ACCELERATED_FEATURES" if gpu.accelerated else "NONE"
    fields = {
        **LIMITS,
        "core_count": gpu.cores,
        "fpus_per_core": gpu.units,
        "shared_memory_per_core": gpu.shared,
        "shared_memory_per_block_optin": gpu.block,
        "l2_cache_size": gpu.cache,
        "clock_rate_ghz": gpu.clock,
        "memory_bandwidth": gpu.bandwidth,
        "device_memory_size": gpu.memory,
        "runtime_version": f'"{CUDA}"',
        "dnn_version": f'"{".".join(map(str, CUDNN))}"',
    }
    device = " ".join(f"{name}: {value}" for name, value in fields.items())
    device += f" cuda_compute_capability {{ {capability} feature_extension: {feature} }}"
    dnn = " ".join(f"{k}: {v}" for k, v in zip(("major", "minor", "patch"), CUDNN, strict=True))
    return (
        f'platform_name: "CUDA" device_description_str: "{gpu.name}"\n'
        f"gpu_device_info {{ {device} }}\ndnn_version_info {{ {dnn} }}\n"
    )


def gpu_options() -> dict[str, Any]:
    """Return the compiler's options for described GPUs.

    XLA of jax 0.10 writes products in Triton only for tiles that it has timed on a card.
    """
    old = tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 11)
    return {"xla_gpu_enable_triton_gemm": False} if old else {}
