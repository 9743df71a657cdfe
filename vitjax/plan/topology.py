"""Accelerators by name: figures of their chips, and described slices to compile for."""

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vitjax.names import unknown
from vitjax.plan.gpus import HOST, MARGIN, TARGETS, gpu_options, open_gpus, parse_gpus


class Chip(NamedTuple):
    """Figures of one chip.

    Attributes:
      cores: TensorCores (for a GPU 1).
      memory: bytes of HBM.
      flops: bfloat16 operations a second, dense.
      bandwidth: of the HBM, bytes a second.
      links: bytes a second that leave a chip over all its links, one direction.
      source: where the figures stand.
    """

    cores: int
    memory: float
    flops: float
    bandwidth: float
    links: float
    source: str


DOCS = "https://cloud.google.com/tpu/docs/"
GIB = 2.0**30
CHIPS = {
    # The links of v2 and v3 are those of Jouppi et al., "A domain-specific supercomputer for
    # training deep neural networks" (CACM 63(7), 2020): four of 496 and 656 Gbit/s.
    "v2": Chip(2, 16 * GIB, 46e12, 700e9, 248e9, f"{DOCS}v2; CACM 63(7)"),
    "v3": Chip(2, 32 * GIB, 123e12, 900e9, 328e9, f"{DOCS}v3; CACM 63(7)"),
    "v4": Chip(2, 32 * GIB, 275e12, 1200e9, 300e9, f"{DOCS}v4"),
    "v5e": Chip(1, 16 * GIB, 197e12, 819e9, 200e9, f"{DOCS}v5e"),
    "v5p": Chip(2, 95 * GIB, 459e12, 2765e9, 600e9, f"{DOCS}v5p"),
    "v6e": Chip(1, 32 * GIB, 918e12, 1640e9, 448e9, f"{DOCS}v6e"),
}
GPUS = {  # part of the device's name → its figures
    "A100": Chip(1, 80 * GIB, 312e12, 2039e9, 300e9, "NVIDIA A100 80GB SXM datasheet"),
    "H100": Chip(1, 80 * GIB, 989e12, 3350e9, 450e9, "NVIDIA H100 SXM datasheet"),
    "H200": Chip(1, 141e9, 989e12, 4800e9, 450e9, "NVIDIA H200 SXM datasheet"),
    "B200": Chip(1, 180e9, 2250e12, 8000e9, 900e9, "NVIDIA HGX B200 datasheet"),
    "L4": Chip(1, 24 * GIB, 121e12, 300e9, 32e9, "NVIDIA L4 datasheet"),
    "T4": Chip(1, 16 * GIB, 65e12, 320e9, 16e9, "NVIDIA T4 datasheet (float16)"),
}
TPUS = {  # device's kind → its chip
    "TPU v2": "v2",
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
}
BY_CORE = ("v2", "v3")
"""Chips whose cores are devices of their own."""
PRESENT = ("cpu", "gpu")


def device_peak(kind: str) -> tuple[float, str] | None:
    """Find the bfloat16 operations a second of a device, and their source, by the device's kind.

    None where they are unknown, as of a CPU.
    """
    if generation := TPUS.get(kind):
        chip = CHIPS[generation]
        return chip.flops / (chip.cores if generation in BY_CORE else 1), chip.source
    chip = gpu_chip(kind)
    return chip and (chip.flops, chip.source)


def gpu_chip(kind: str) -> Chip | None:
    """Find the figures of a GPU by its device's kind, such as "NVIDIA H100 80GB HBM3"."""
    return next((chip for word, chip in GPUS.items() if re.search(rf"\b{word}\b", kind)), None)


class Topology(NamedTuple):
    """Devices to compile for.

    Attributes:
      name: as asked for.
      devices: as JAX lists them; on v2, v3 each is a core.
      chips: how many chips they are.
      chip: its figures; None for a CPU, whose time nothing here estimates.
      margin: share of a device's memory that is to be left free.
      options: of the compiler, that a real run does without.
    """

    name: str
    devices: list[Any]
    chips: int
    chip: Chip | None
    margin: float = 0.0
    options: Mapping[str, Any] | None = None

    @property
    def share(self) -> float:
        """Part of a chip that a device is."""
        return self.chips / len(self.devices)

    @property
    def cores(self) -> int:
        return self.chips * (self.chip.cores if self.chip else 1)

    @property
    def capacity(self) -> float | None:
        """Bytes of memory of a device."""
        return self.chip.memory * self.share if self.chip else None

    @property
    def gpus(self) -> bool:
        return self.devices[0].platform == "gpu"


def parse_topology(name: str) -> tuple[str, tuple[int, ...]]:
    """Parse generation and chips per axis: "v3:4x4", or as Cloud counts them, "v3-32".

    Raises:
      ValueError: no such generation, or no shape.
    """
    match = re.fullmatch(r"(\w+?)(?::(\d+(?:x\d+){1,2})|-(\d+))", name)
    if not match or match[1] not in CHIPS:
        known = [f"{v}:{'2x2x1' if v in ('v4', 'v5p') else '4x4'}" for v in CHIPS]
        gpus = [f"{kind}x{HOST}" for kind in TARGETS]
        raise ValueError(unknown("topology", name, (*known, *gpus, *PRESENT)))
    generation, shape, number = match.groups()
    if shape:
        return generation, tuple(map(int, shape.split("x")))
    by_core = generation not in ("v5e", "v6e")  # Cloud counts cores there, chips here
    chips = int(number) // (2 if by_core else 1)
    rank = 3 if generation in ("v4", "v5p") else 2
    axes = [1] * rank
    while (size := axes[0] * axes[1] * (axes[2] if rank == 3 else 1)) < chips:
        axes[axes.index(min(axes))] *= 2
    if size != chips:
        raise ValueError(
            f"Topology {name!r}: slices have a power of two of chips; name another shape as "
            f"{generation}:{'x'.join(['4'] * rank)}."
        )
    return generation, tuple(sorted(axes))


def open_topology(name: str) -> Topology:
    """Open the devices present ("cpu", "gpu"), or described ones: a slice of TPUs, or GPUs.

    A slice needs libtpu, and no TPU; GPUs need JAX's plugin for CUDA, and no GPU.

    Raises:
      ValueError: no such topology.
      RuntimeError: the compiler is not installed, or refuses the shape.
    """
    import jax

    if name in PRESENT:
        devices = jax.devices(name)
        return Topology(name, devices, len(devices), gpu_chip(devices[0].device_kind))
    if gpus := parse_gpus(name):
        kind, devices = gpus[0], open_gpus(*gpus)
        chip = GPUS[kind.upper()]._replace(memory=float(TARGETS[kind].memory))
        return Topology(name, devices, len(devices), chip, MARGIN, gpu_options())
    generation, shape = parse_topology(name)
    if importlib.util.find_spec("libtpu") is None:
        raise RuntimeError(
            "The compiler for TPUs is not installed: pip install 'vitjax[plan]' (libtpu; no TPU "
            "is needed). --topology=cpu plans for this machine without it."
        )
    # A libtpu without a TPU otherwise asks the network who it is, and says at length that it got
    # no answer.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it only compiles here
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")  # any: the slice is described
    from jax.experimental import topologies

    options = {"chip_config_name": "megacore"} if generation == "v4" else {}
    described = f"{generation}:{'x'.join(map(str, shape))}"
    try:
        devices = list(topologies.get_topology_desc(described, "tpu", **options).devices)
    except Exception as error:  # what libtpu raises is not of one kind
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"libtpu does not know the slice {described}: {reason}") from error
    chips = len({(getattr(d, "slice_index", 0), tuple(d.coords)) for d in devices})
    return Topology(name, devices, chips, CHIPS[generation])
