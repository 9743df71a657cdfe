"""What commands print: tables, progress with an ETA, sizes and times."""

import sys
from collections.abc import Iterable, Mapping

import jax


def progress(text: str, last: bool = False) -> None:
    """A line that overwrites itself on a terminal, and a line of its own elsewhere."""
    if jax.process_index():  # the first process speaks for all
        return
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="\n" if last else "", flush=True)
    else:
        print(text, flush=True)


def clock(seconds: float) -> str:
    """75 → "1:15", 3675 → "1:01:15"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def show(metrics: Mapping[str, float]) -> str:
    """Put metrics into words: shares in percent."""
    return "  ".join(
        f"{name} {value:.2%}" if is_share(name) else f"{name} {value:.4g}"
        for name, value in metrics.items()
    )


def is_share(name: str) -> bool:
    """Whether a metric is a share, by its name; see `vitjax.task.Task`."""
    return name.startswith(("top", "acc", "miou", "ap"))


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns, the first as wide as it needs."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def format_bytes(size: float | None) -> str:
    """1_500_000 → "1.5 MB"."""
    if not size:
        return "0 MB"
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
