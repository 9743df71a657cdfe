"""Detection of divergence: a loss that is not finite, or jumps, and how a run reacts.

All decisions are functions of the losses, step by step. So a resumed run decides like an
uninterrupted one: the window of past losses and the skipped ranges of data are saved with each
checkpoint.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

ACTIONS = ("stop", "rollback")
WINDOW, SETTLED = 100, 20
"""Losses whose median a spike is measured against, and how many there must be."""


@dataclasses.dataclass(frozen=True)
class DivergenceConfig:
    """Section `on_divergence`: what to do when the loss is not finite, or jumps."""

    action: str = "stop"  # or "rollback": to the last checkpoint, without the data since then …
    spike: float = 0.0  # a loss over so many times the usual one jumps; 0: none does
    max: int = 3  # … at most so many times


class DivergedError(RuntimeError):
    """Error: the loss is not finite, or has jumped."""


class History:
    """Past losses and skipped ranges of data.

    Attributes:
      skips: (step, batches): from this step on, the data is that of so many steps later. Skips add
        up.
    """

    def __init__(self, saved: dict[str, Any] | None = None) -> None:
        saved = saved or {}
        self.losses: list[float] = list(saved.get("losses", ()))
        self.skips = [(int(a), int(b)) for a, b in saved.get("skips", ())]

    def to_json(self) -> dict[str, Any]:
        return {"losses": self.losses, "skips": [list(s) for s in self.skips]}

    def data_step(self, step: int) -> int:
        """Return the step whose data `step` reads: later by all batches skipped so far."""
        return step + sum(batches for at, batches in self.skips if at <= step)

    def first_bad(
        self, first: int, losses: np.ndarray | Sequence[float], spike: float
    ) -> tuple[int, str] | None:
        """Record the losses of steps `first` and following, up to the first bad one.

        Args:
          spike: a loss above so many times the median of past losses is bad; 0 for never.

        Returns:
          The first bad step and the reason, or None.
        """
        for step, loss in enumerate(map(float, losses), first):
            if not math.isfinite(loss):
                return step, f"is {loss}"
            settled = len(self.losses) >= SETTLED
            if spike and settled and loss > spike * (usual := statistics.median(self.losses)):
                return step, f"is {loss:.4g}, over {spike:g} × the usual {usual:.4g},"
            self.losses = [*self.losses, loss][-WINDOW:]
        return None
