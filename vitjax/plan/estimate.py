"""Estimate of a step's time by the compiler's cost model, corrected, and a calibrated range.

The model is optimistic: it knows the peak of the chip and its memory, not the losses that keep both
from being reached, nor the links. The result is an estimate and a range calibrated by published
times, never a measurement.
"""

from typing import Any, NamedTuple

from vitjax.plan.collectives import Collective
from vitjax.plan.hlo import NO_COST, Program, moved_bytes, product_flops
from vitjax.plan.topology import Topology


class Published(NamedTuple):
    """Run whose time was published.

    Attributes:
      images_per_second: slowest and fastest that the published time allows.
      estimate: seconds of vitjax's step of that run, by this file (benchmarks/plan_calibration.py);
        so the factors hold even if ours is only as fast as theirs.
      batch: images of a step.
    """

    run: str
    source: str
    images_per_second: tuple[float, float]
    estimate: float
    batch: int

    @property
    def factors(self) -> tuple[float, float]:
        """Published over estimated time, least and largest."""
        slow, fast = self.images_per_second
        return self.batch / fast / self.estimate, self.batch / slow / self.estimate


PUBLISHED = (
    Published(
        "ViT-S/16, 90 epochs of ImageNet in 6 to 7 hours on a v3-8",
        "https://github.com/google-research/big_vision",
        (4576.0, 5338.0),
        0.1113,
        1024,
    ),
    Published(
        "Mixer-B/16, 300 epochs of ImageNet in 2 h 11 min on a v3-128",
        "https://github.com/google-research/big_vision/blob/main/big_vision/configs/mlp_mixer_i1k.py",
        (48_900.0, 48_900.0),
        0.0485,
        4096,
    ),
)
FACTORS = (
    min(p.factors[0] for p in PUBLISHED),
    max(p.factors[1] for p in PUBLISHED),
)
"""What the estimate is multiplied with for the calibrated range; both runs are on TPU v3."""


class Estimate(NamedTuple):
    """Estimate of one step.

    Attributes:
      compute: seconds, by the compiler's cost model where it has one.
      communication: seconds on the links, if nothing else happened meanwhile.
      flops: operations of a device, the turns of loops counted; `bytes`: to and from its memory.
      uncosted: instructions to which the cost model gives minus one second each; corrected.
      compute_bound, memory_bound: seconds of flops and of bytes alone, at the chip's peak.
    """

    compute: float
    communication: float
    flops: float
    bytes: float
    uncosted: int
    compute_bound: float
    memory_bound: float

    @property
    def seconds(self) -> float:
        """Seconds of computing plus communication; overlap of the two would reduce them."""
        return self.compute + self.communication

    @property
    def range(self) -> tuple[float, float]:
        """Calibrated range of seconds."""
        return self.seconds * FACTORS[0], self.seconds * FACTORS[1]


def estimate(
    program: Program, cost: dict[str, Any], found: list[Collective], topology: Topology
) -> Estimate | None:
    """Estimate the time of a compiled step, or return None for a chip whose figures are unknown.

    Args:
      cost: the executable's `cost_analysis()`; it counts the body of a loop once.
    """
    chip = topology.chip
    if chip is None:
        return None
    peak, bandwidth = chip.flops * topology.share, chip.bandwidth * topology.share
    once = whole = extra_flops = extra_bytes = 0.0
    for name, times in program.loops().items():
        flops, size, seconds = _roofline(program, name, peak, bandwidth)
        once += seconds
        whole += times * seconds
        extra_flops += (times - 1) * flops
        extra_bytes += (times - 1) * size
    raw = float(cost.get("optimal_seconds", 0.0))
    uncosted = 0
    if topology.devices[0].platform == "tpu":
        uncosted = max(0, round(once - raw))
        compute = raw + uncosted + whole - once
    else:
        compute = whole
    flops = float(cost.get("flops", 0.0)) + extra_flops
    size = float(cost.get("bytes accessed", 0.0)) + extra_bytes
    wire = sum(c.seconds(chip.links) for c in found)
    return Estimate(compute, wire, flops, size, uncosted, flops / peak, size / bandwidth)


def _roofline(
    program: Program, computation: str, peak: float, bandwidth: float
) -> tuple[float, float, float]:
    """Compute flops, bytes, and the seconds if each instruction took the slower of the two."""
    body = program.computations[computation]
    flops = size = seconds = 0.0
    for i in body.values():
        if i.opcode in NO_COST or i.opcode == "while" or i.opcode.endswith(("-start", "-done")):
            continue
        moved = moved_bytes(program, computation, i)
        work = product_flops(program, computation, i)
        flops += work
        size += moved
        seconds += max(work / peak, moved / bandwidth)
    return flops, size, seconds
