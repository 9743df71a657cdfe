"""Evaluation: measures summed over all batches."""

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
    tell: Callable[[Any], None] = lambda by_class: None,
) -> dict[str, float]:
    """Compute the metrics of all batches: `task.summarize` of the sums and rows of `add_up`.

    Args:
      tell: called with the result of `task.by_class`.
    """
    sums, rows = add_up(step, batches, alive)
    tell(task.by_class(sums))
    return task.summarize(sums, rows)


def add_up(
    step: Callable[[Any], tuple[Any, Any]],
    batches: Iterable[Any],
    alive: Callable[[], None] = lambda: None,
) -> tuple[Any, Any]:
    """Sum the measures of all batches, and gather their rows.

    Sums are added in float64 on the host. Rows that the masks of the batches exclude are left out.

    Args:
      step: batch → (sums, rows) on the devices; see `step.make_eval_step`.
      batches: on the devices.
      alive: called after each batch.

    Returns:
      Sums and rows, each None where there are none.
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
    return totals, together


def _local(array: jax.Array) -> np.ndarray:
    """Collect the rows on this process's devices, each once, in order."""
    pieces = {s.index[0].start or 0: s.data for s in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])
