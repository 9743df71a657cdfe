"""Evaluation: measures of all batches, added up."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from vitjax.task import Task
from vitjax.train import processes

IN_FLIGHT = 2
"""Batches that the host may be ahead of the devices, so that no more than these take memory."""


def evaluate(
    step: Callable[[Any], tuple[Any, Any]],
    batches: Iterable[Any],
    task: Task,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Measure all batches.

    Sums are added in float64 on the host, and rows gathered from all of them, without those that
    the batches' masks leave out.

    Args:
      step: batch → (sums, rows) on the devices; see `step.make_eval_step`.
      batches: on the devices.
      alive: called for each batch that has been measured.

    Returns:
      What `task.summarize` gives.
    """
    totals: Any = None
    rows: list[Any] = []
    pending: deque[Any] = deque()

    def take() -> None:
        nonlocal totals
        sums, own, mask = pending.popleft()
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(sums))
        totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
        if own is not None:
            kept = _local(mask) > 0
            rows.append(jax.tree.map(lambda x: _local(x)[kept], own))
        alive()

    for batch in batches:
        pending.append((*step(batch), batch["mask"]))
        if len(pending) > IN_FLIGHT:
            take()
    while pending:
        take()
    together = None
    if rows:
        together = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
        together = jax.tree.map(processes.gather_rows, together)
    return task.summarize(totals, together)


def _local(array: jax.Array) -> np.ndarray:
    """Give the rows on this process's devices, each once, in their order."""
    pieces = {s.index[0].start or 0: s.data for s in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])
