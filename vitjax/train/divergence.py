"""When the loss is no number, or jumps: where, and what a run does then.

Everything here is a function of the losses step by step, so that a resumed run decides as one that
was not interrupted: the window of past losses and the stretches of data that were left out are
saved with each checkpoint.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

ACTIONS = ("stop", "rollback")
WINDOW, SETTLED = 100, 20
"""Losses whose median a spike is measured against, and how many there must be."""


class DivergedError(RuntimeError):
    """The loss is no longer a number, or has jumped."""


class History:
    """Past losses and stretches of data left out.

    Attributes:
      skips: (step, batches): from this step on, data is that of so many steps later; they add up.
    """

    def __init__(self, saved: dict[str, Any] | None = None) -> None:
        saved = saved or {}
        self.losses: list[float] = list(saved.get("losses", ()))
        self.skips = [(int(a), int(b)) for a, b in saved.get("skips", ())]

    def to_json(self) -> dict[str, Any]:
        return {"losses": self.losses, "skips": [list(s) for s in self.skips]}

    def data_step(self, step: int) -> int:
        """The step whose data a run without trouble would have taken `step`'s for."""
        return step + sum(batches for at, batches in self.skips if at <= step)

    def first_bad(
        self, first: int, losses: np.ndarray | Sequence[float], spike: float
    ) -> tuple[int, str] | None:
        """Takes up the losses of steps `first` and following, to the first that is not good.

        Args:
          spike: a loss above so many times the median of those before it is bad; 0 for never.

        Returns:
          That step, and what is wrong with it.
        """
        for step, loss in enumerate(map(float, losses), first):
            if not math.isfinite(loss):
                return step, f"is {loss}"
            settled = len(self.losses) >= SETTLED
            if spike and settled and loss > spike * (usual := statistics.median(self.losses)):
                return step, f"is {loss:.4g}, over {spike:g} × the usual {usual:.4g},"
            self.losses = [*self.losses, loss][-WINDOW:]
        return None
