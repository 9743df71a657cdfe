"""Operation count of a run, without a compiler: in seconds, where `make_plan` takes minutes."""

from typing import Any, NamedTuple

import jax

from vitjax.analysis.cost import per_sample
from vitjax.console import table
from vitjax.data.source import DataInfo
from vitjax.plan.plan import known_data
from vitjax.plan.topology import CHIPS
from vitjax.train.defaults import RunConfig

CHIP = "v3"
SHARES = (0.2, 0.4)
"""Shares of a chip's peak that training reaches: windowed models the lower, a ViT-B the upper one
(docs/plan.md)."""
BACKWARD = 3
"""Operations of a training step over those of its forward pass."""


class Count(NamedTuple):
    """Operation count of a run.

    Attributes:
      steps, batch_size: those of the schedule.
      macs: multiply-adds of one sample's forward pass, the loss included.
      parameters: number of trained parameters.
    """

    steps: int
    batch_size: int
    macs: int
    parameters: int

    @property
    def flops(self) -> float:
        """Operations of the whole run; a multiply-add is two."""
        return 2.0 * BACKWARD * self.macs * self.batch_size * self.steps

    @property
    def core_days(self) -> tuple[float, float]:
        """Days of a TPU v3 core, at the upper and the lower of SHARES."""
        chip = CHIPS[CHIP]
        days = self.flops / (chip.flops / chip.cores) / 86_400
        return days / SHARES[1], days / SHARES[0]

    def to_dict(self) -> dict[str, Any]:
        """Convert all values to a dict, for --json."""
        return {**self._asdict(), "flops": self.flops, "core_days": self.core_days}

    def report(self) -> str:
        """Format all values as a table."""
        low, high = self.core_days
        return table([
            ("schedule", f"{self.steps:,} steps of {self.batch_size:,} samples"),
            ("parameters", f"{self.parameters:,}"),
            ("forward pass", f"{self.macs / 1e9:,.2f} G multiply-adds a sample"),
            ("the run", f"{self.flops:.2e} FLOP"),
            ("core-days", f"{low:,.2f} to {high:,.2f} of TPU {CHIP}, at {SHARES[1]:.0%} to "
             f"{SHARES[0]:.0%} of its peak; counted, not compiled"),
        ])  # fmt: skip


def count(config: RunConfig, images: int = 0, classes: int = 0) -> Count:
    """Count the operations of a config's run.

    Args:
      images, classes: numbers of the training data, if its name is unknown.
    """
    from vitjax.tasks import task_from_config
    from vitjax.train import sharding
    from vitjax.train.config import count_steps
    from vitjax.train.program import compile_program

    images, classes = known_data(config, images, classes)
    steps = count_steps(config, images)
    task = task_from_config(config, DataInfo(tuple(map(str, range(classes))), ""), abstract=True)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    program = compile_program(config, task, mesh, steps)
    macs = per_sample(task.forward, program.state, program.batch_spec, program.key)
    parameters = sum(x.size for x in jax.tree.leaves(program.state.params))
    return Count(steps, config.data.batch_size, macs, parameters)
