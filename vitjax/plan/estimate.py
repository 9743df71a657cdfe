"""Estimate of a step's time by the compiler's cost model, corrected, and a calibrated range.

The model is optimistic: it knows the peak of the chip and its memory, not the losses that keep both
from being reached, nor the links. The result is an estimate and a range calibrated by published
times, never a measurement. For GPUs there is no such model: theirs is a roofline.
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


BY_TPU = "an estimate by the TPU compiler's cost model, not a measurement"
ROOFLINE = (
    "a roofline, not a measurement: each kernel's counted operations or bytes at the GPU's peak, "
    "whichever take longer; kernels are slower"
)


class Estimate(NamedTuple):
    """Estimate of one step.

    Attributes:
      compute: seconds, by the compiler's cost model where it has one.
      communication: seconds on the links, if nothing else happened meanwhile.
      flops: operations of a device, the turns of loops counted; `bytes`: to and from its memory.
      uncosted: instructions to which the cost model gives minus one second each; corrected.
      compute_bound, memory_bound: seconds of flops and of bytes alone, at the chip's peak.
      roofline: nothing but counted operations and bytes, as the compiler costs nothing.
    """

    compute: float
    communication: float
    flops: float
    bytes: float
    uncosted: int
    compute_bound: float
    memory_bound: float
    roofline: bool = False

    @property
    def seconds(self) -> float:
        """Seconds of computing plus communication; overlap of the two would reduce them."""
        return self.compute + self.communication

    @property
    def range(self) -> tuple[float, float] | None:
        """Calibrated range of seconds; None of a roofline, for which nothing was published."""
        return None if self.roofline else (self.seconds * FACTORS[0], self.seconds * FACTORS[1])

    @property
    def what(self) -> str:
        """Words for what the estimate is."""
        return ROOFLINE if self.roofline else BY_TPU


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
    wire = sum(c.seconds(chip.links) for c in found)
    bodies = [
        (times, *_roofline(program, name, peak, bandwidth))
        for name, times in program.loops().items()
    ]
    once = sum(seconds for _, _, _, seconds in bodies)
    whole = sum(times * seconds for times, _, _, seconds in bodies)
    if topology.gpus:
        flops, size = (sum(body[0] * body[k] for body in bodies) for k in (1, 2))
        return Estimate(whole, wire, flops, size, 0, flops / peak, size / bandwidth, True)
    raw = float(cost.get("optimal_seconds", 0.0))
    uncosted = max(0, round(once - raw))
    compute = raw + uncosted + whole - once
    extra = [sum((body[0] - 1) * body[k] for body in bodies) for k in (1, 2)]
    flops = float(cost.get("flops", 0.0)) + extra[0]
    size = float(cost.get("bytes accessed", 0.0)) + extra[1]
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
