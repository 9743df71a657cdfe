"""Console output of commands: tables, progress with an ETA, sizes and times."""

import sys
import time
from collections.abc import Iterable, Mapping

import jax


def progress(text: str, last: bool = False) -> None:
    """Print a line that overwrites itself on a terminal, and its own line elsewhere."""
    if jax.process_index():  # the first process speaks for all
        return
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="\n" if last else "", flush=True)
    else:
        print(text, flush=True)


class Countdown:
    """Progress of a known number of items: count, speed, and remaining time.

    It writes to the standard error, whose other lines go through `say`: on a terminal one line that
    is overwritten, elsewhere a line now and then. What is done within seconds prints nothing.

    Args:
      total: how many there are.
      what: their name.
      quiet: say nothing of it.
    """

    PATIENCE, OFTEN, SELDOM = 3.0, 0.5, 10.0

    def __init__(self, total: int, what: str, quiet: bool = False):
        self._total, self._what, self._quiet = total, what, quiet
        self._begin = self._told = time.perf_counter()
        self._first, self._open = 0, False

    def __call__(self, done: int) -> None:
        """Record that so many are done."""
        now, terminal = time.perf_counter(), sys.stderr.isatty()
        if not self._first:  # what came before was compilation
            self._first, self._begin = done, now
        if done == self._total:
            self._clear()
        elif not self._quiet and now - self._told > (self.OFTEN if terminal else self.SELDOM):
            pace = (now - self._begin) / max(done - self._first, 1)
            if pace * (self._total - self._first) < self.PATIENCE:
                return
            rate = 1 / max(pace, 1e-9)
            text = f"{done:,} of {self._total:,} {self._what}  {rate:,.3g} {self._what}/s  "
            text += f"ETA {clock(pace * (self._total - done))}"
            self._clear()
            print(text, end="" if terminal else "\n", file=sys.stderr, flush=True)
            self._told, self._open = now, terminal

    def say(self, text: str) -> None:
        """Print another line without breaking the progress line."""
        self._clear()
        print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._open = False


def clock(seconds: float) -> str:
    """Format seconds: 75 is "1:15", 3675 is "1:01:15"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def show(metrics: Mapping[str, float]) -> str:
    """Format metrics; shares are in percent."""
    return "  ".join(
        f"{name} {value:.2%}" if is_share(name) else f"{name} {value:.4g}"
        for name, value in metrics.items()
    )


def is_share(name: str) -> bool:
    """Return whether a metric is a share, by its name; see `vitjax.task.Task`."""
    return name.startswith(("top", "acc", "miou", "ap", "ar_", "mask_a"))


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Format two columns, the first as wide as its longest entry."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def format_bytes(size: float | None) -> str:
    """Format a number of bytes: 1_500_000 is "1.5 MB"."""
    if not size:
        return "0 MB"
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
