"""Where a run's wall time went, read from `metrics.jsonl` alone: its share of productive time.

Each row says when it was written. A process begins with a row that says when it was started, and
ends with one, unless it was killed. The time between two rows is that of what the later one tells.
"""

import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vitjax.console import clock

PROCESS = "process"
"""Split of the rows with which a process begins and ends."""
BUCKETS = {
    "productive": "training steps that were kept",
    "data": "devices idle, waiting for data",
    "evaluation": "evaluations, and compiling theirs",
    "checkpoint": "saving and restoring",
    "initialisation": "starting, restoring, compiling the step, and closing",
    "lost": "work after the last checkpoint, done again",
    "stopped": "between two processes, and from a killed one's last row",
}
WORK = ("productive", "data", "evaluation", "checkpoint")
"""What is lost when a run goes back behind it."""


def spent(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sum the seconds of a run by bucket; they add up to its wall time so far.

    Args:
      rows: of `metrics.jsonl`. Those of runs without times give zeros.
    """
    totals, last, fresh = dict.fromkeys(BUCKETS, 0.0), None, False
    for row in rows:
        if "time" not in row:
            continue
        for name, seconds in row.get("carried", {}).items():
            totals[name] += seconds
        last, fresh = row.get("until", last), fresh and "until" not in row
        began = row.get("began")
        if began is not None:
            last = began if last is None else last
            totals["stopped"] += max(began - last, 0.0)
            totals["initialisation"] += row["time"] - max(began, last)
        elif last is not None:
            for name, seconds in _shares(row, row["time"] - last, fresh).items():
                totals[name] += seconds
        last, fresh = row["time"], began is not None
    return totals


def _shares(row: Mapping[str, Any], elapsed: float, fresh: bool) -> dict[str, float]:
    """Split the time since the row before this one.

    Args:
      fresh: the row before is the first one of a process.
    """
    if row["split"] == "train":  # what is not of its steps came before them
        data = row["data_wait"] * row["seconds"]
        before = "initialisation" if fresh else "checkpoint"
        return {
            "data": data,
            "productive": row["seconds"] - data,
            before: elapsed - row["seconds"],
        }
    if row["split"] == PROCESS:
        return {"checkpoint": row["saving"], "initialisation": elapsed - row["saving"]}
    if row["split"] == "rollback":
        before = elapsed - row["seconds"] if fresh else 0.0
        return {"lost": elapsed - before, "initialisation": before}
    return {"evaluation": elapsed}


def carried(
    kept: Sequence[Mapping[str, Any]], dropped: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Summarise rows that a run drops when it goes back, as fields of its next row.

    Args:
      kept, dropped: rows up to the step from which it goes on, and those after it.
    """
    times = [row["time"] for row in dropped if "time" in row]
    if not times:
        return {}
    before, after = spent(kept), spent([*kept, *dropped])
    seconds = {name: after[name] - before[name] for name in BUCKETS}
    lost = seconds["lost"] + sum(seconds[name] for name in WORK)
    rest = {name: seconds[name] for name in ("initialisation", "stopped")}
    return {"carried": {"lost": lost, **rest}, "until": times[-1]}


def describe(totals: Mapping[str, float]) -> str:
    """Format buckets: "82% of 1:02:03 productive; data 3%, evaluation 5%"."""
    wall = sum(totals.values())
    if not wall:
        return ""
    rest = [f"{name} {s / wall:.1%}" for name, s in totals.items() if s / wall >= 0.0005]
    shown = ", ".join(text for text in rest if not text.startswith("productive"))
    return f"{totals['productive'] / wall:.1%} of {clock(wall)} productive; {shown}".rstrip("; ")


def process_began() -> float:
    """Return when this process was started, in seconds since 1970."""
    stat = pathlib.Path("/proc/self/stat")  # of Linux alone
    try:
        ticks = int(stat.read_text().rpartition(")")[2].split()[19])
        up = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return time.time()
    return time.time() - up
