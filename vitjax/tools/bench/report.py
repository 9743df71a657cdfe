"""Rows of `vitjax bench` as a table for people, and as CSV."""

import pathlib
from collections.abc import Sequence

from vitjax.console import format_bytes
from vitjax.tools.bench.measure import PREFIX, RIVALS, Row
from vitjax.tools.tables import write_rows


def report(rows: Sequence[Row]) -> str:
    """Format each model's steps in a paragraph."""
    return "\n\n".join("\n".join(paragraph(row)) for row in rows)


def paragraph(row: Row) -> list[str]:
    """Format one model: its size, a line for each step, and what is to be known of them."""
    if row["figures"] == "failed":
        return [f"{row['model']}  failed: {row['notes']}"]
    head = f"{row['model']}  {row['param_count']:.2f} M parameters, {row['infer_gmacs']:.2f} GMACs"
    lines = [f"{head}; {row['dtype']}, {row['device']}; {row['versions']}"]
    for p in PREFIX.values():
        if f"{p}_batch_size" in row:
            lines.append(f"  {_step(row, p)}")
            lines += [f"    {text}" for text in _beside(row, p)]
    if row.get("peak_flops"):
        lines.append(f"  MFU is of {row['peak_flops'] / 1e12:g} TFLOP/s ({row['peak_source']})")
    elif row["figures"] == "measured":
        lines.append(f"  no MFU: the peak of {row['device']} is not known")
    return lines + ([f"  note: {row['notes']}"] if row["notes"] else [])


def _step(row: Row, p: str) -> str:
    """Format a step."""
    parts = [f"{p:<5}  batch {row[f'{p}_batch_size']} of {row[f'{p}_img_size']} px"]
    if row.get(f"{p}_step_time"):
        low, high = row[f"{p}_step_time_min"], row[f"{p}_step_time_max"]
        spread = f" ({low:,.1f} to {high:,.1f})" if low else ""
        parts += [
            f"{row[f'{p}_samples_per_sec']:,.1f} images/s",
            f"{row[f'{p}_step_time']:,.1f} ms{spread}"
            + (f" of {row['repeats']} turns" if "repeats" in row else " estimated"),
        ]
    if row.get(f"{p}_mfu"):
        parts.append(f"MFU {row[f'{p}_mfu']:.1%}")
    if row.get(f"{p}_peak_memory"):
        used = format_bytes(row[f"{p}_used_memory"])
        peak = format_bytes(row[f"{p}_peak_memory"])
        parts.append(f"memory of {row['memory_of']}: peak {peak}, then {used}")
    if row.get(f"{p}_planned_memory"):
        parts.append(f"{format_bytes(row[f'{p}_planned_memory'])} by the compiler")
    return ", ".join([*parts, f"compiled in {row[f'{p}_compile_time']:.1f} s"])


def _beside(row: Row, p: str) -> list[str]:
    """Format the other contestants of a step."""
    lines = []
    for name in RIVALS:
        rate, ratio = row.get(f"{p}_{name}_samples_per_sec"), row.get(f"{p}_{name}_ratio")
        if rate:
            low, high = row[f"{p}_{name}_ratio_min"], row[f"{p}_{name}_ratio_max"]
            pairs = f", {ratio:.2f} times our time ({low:.2f} to {high:.2f}, pair by pair)"
            lines.append(
                f"{name.replace('_', ', '):<14}  {rate:,.1f} images/s{pairs if ratio else ''}"
            )
    return lines


def write_csv(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Write rows to a file, with the columns of all of them."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_rows(path, columns, ([row.get(name) for name in columns] for row in rows))
