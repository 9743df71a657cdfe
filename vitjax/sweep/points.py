"""Points of a sweep for fits and plots: what its finished cells measured."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from vitjax.console import is_share
from vitjax.names import unknown
from vitjax.sweep import lease, work
from vitjax.sweep.cells import Cell

AXES = ("D", "images")


class Points(NamedTuple):
    """Measured cells, M of them.

    Attributes:
      n, d, flops: parameters, samples seen or different images, counted operations of a run.
      loss: what is fitted; of a metric that is a share, the odds of an error, (1 - p) / p, whose
        logarithm is the log-odds.
      value: the metric itself.
      group: cells of the same inputs, which differ in their seeds, have the same number.
      ids: of the cells.
      excluded: cells that are left out, and why.
    """

    n: Float64[np.ndarray, "M"]
    d: Float64[np.ndarray, "M"]
    flops: Float64[np.ndarray, "M"]
    loss: Float64[np.ndarray, "M"]
    value: Float64[np.ndarray, "M"]
    group: Int[np.ndarray, "M"]
    ids: list[str]
    excluded: dict[str, str]

    def means(self) -> "Points":
        """Average the logarithms of the loss, and the metric, over the seeds of each group."""
        first, counts = np.unique(self.group, return_index=True)[1], np.bincount(self.group)
        loss = np.exp(np.bincount(self.group, np.log(self.loss)) / counts)
        value = np.bincount(self.group, self.value) / counts
        return self._replace(
            n=self.n[first], d=self.d[first], flops=self.flops[first], loss=loss, value=value,
            group=np.arange(len(first)), ids=[self.ids[i] for i in first],
        )  # fmt: skip


def gather(
    cells: Sequence[Cell],
    rows: Sequence[Mapping[str, Any]],
    folder: pathlib.Path,
    metric: str = "test/loss",
    axis: str = "D",
) -> Points:
    """Gather the finished cells of a sweep.

    Args:
      metric: EVALUATION/METRIC, of the last step.
      axis: "D", samples seen, or "images", different training images.

    Raises:
      ValueError: no cell has the metric.
    """
    name, _, measure = metric.partition("/")
    trunks = {cell.trunk for cell in cells}
    found, excluded, known = [], {}, set()
    now = lease.file_time(folder)
    for cell, row in zip(cells, rows):
        result = work.read_result(folder / cell.id, cell.id)
        if result is None:
            state = work.state_of(cell, folder, now, lease.SECONDS)
            excluded[cell.id] = f"{state.name}: {state.why}".rstrip(": ")
            continue
        known |= {f"{e}/{m}" for e, metrics in result["metrics"].items() for m in metrics}
        value = result["metrics"].get(name, {}).get(measure)
        why = _unfit(cell, trunks, metric, value)
        if why:
            excluded[cell.id] = why
            continue
        loss = (1 - value) / value if is_share(measure) else value
        found.append((row["N"], row[axis], row["flops"], loss, value, cell.id))
    if known and metric not in known:
        raise ValueError(unknown("metric", metric, sorted(known)))
    if not found:
        raise ValueError(f"No cell of {folder} can be fitted yet: {_count(excluded)}.")
    *columns, ids = zip(*found)
    numbers = np.array(columns, float)
    group = np.unique(numbers[:3], axis=1, return_inverse=True)[1].reshape(-1)
    n, d, flops, loss, value = numbers
    return Points(n, d, flops, loss, value, group, list(ids), excluded)


def _unfit(cell: Cell, trunks: set[str], metric: str, value: float | None) -> str:
    """Say why a finished cell is left out; empty if it is not."""
    if cell.id in trunks:
        return "trunk: its learning rate has not cooled down"
    if value is None:
        return f"it has no {metric}"
    share = is_share(metric.partition("/")[2])
    if not math.isfinite(value) or value <= 0 or (share and value >= 1):
        return f"its {metric} is {value:g}, which has no logarithm" + (" of odds" * share)
    return ""


def _count(excluded: Mapping[str, str]) -> str:
    kinds = [why.partition(":")[0] for why in excluded.values()]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
