"""Report of an evaluation, as text, JSON and files."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from vitjax.console import is_share, table
from vitjax.data.benchmarks import CORRUPTED, corruption_errors
from vitjax.tools.evaluate import Measured
from vitjax.tools.plots import plot_confusion, plot_reliability
from vitjax.tools.tables import plain, records, write_columns, write_matrix

COUNTS = ("images", "skipped", "unlabelled", "pixels", "predicted")
SHOWN = 20
"""So many classes have their own line on a terminal; of more, those that are worst."""


def report(
    name: str, parts: Mapping[str, Measured], out: pathlib.Path | None, suffix: str, title: str
) -> tuple[dict[str, Any], str]:
    """Format the results of one evaluation, and write its files.

    Args:
      name: of the evaluation.
      parts: its own, by that name; or those of ImageNet-C.
      out: the folder of its files; None for none.
      suffix: of the file of images, "csv" or "parquet".
      title: of the pictures.

    Returns:
      JSON, and the lines of a terminal.
    """
    if len(parts) == 1:
        ((part, measured),) = parts.items()
        files = write_files(out / part, measured, suffix, _short(f"{title}, {part}")) if out else {}
        result = {**measured.metrics, "classes": records(measured.findings.classes)}
        result |= {"files": {key: str(path) for key, path in files.items()}} if files else {}
        result |= {"bins": len(measured.bins["images"])} if measured.bins else {}
        rows = [*_shown(measured.metrics), *((k, str(path)) for k, path in files.items())]
        return result, "\n".join([part, table(rows), *_class_lines(measured)])
    errors = {part: 1 - measured.metrics["top1"] for part, measured in parts.items()}
    each, mean = corruption_errors(errors)
    columns = {
        "part": list(parts),
        "top1_error": list(errors.values()),
        **{k: [m.metrics[k] for m in parts.values()] for k in ("loss", "ece", "images")},
    }
    result = {"mce": mean, "ce": each, "parts": records(columns)}
    rows = [(f"CE {corruption}", f"{value:.2%}") for corruption, value in each.items()]
    rows += [("mCE", f"{mean:.2%}")] if mean is not None else []
    if out:
        (out / CORRUPTED).mkdir(parents=True, exist_ok=True)
        path = write_columns(out / CORRUPTED / "parts.csv", columns)
        result["files"] = {"parts": str(path)}
        rows.append(("parts", str(path)))
    rows += [(f"top-1 error {part}", f"{error:.2%}") for part, error in errors.items()]
    return result, "\n".join([name, table(rows)])


def write_files(
    folder: pathlib.Path, measured: Measured, suffix: str, title: str
) -> dict[str, pathlib.Path]:
    """Write tables and pictures of the findings; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    found, files = measured.findings, {"metrics": folder / "metrics.json"}
    files["metrics"].write_text(json.dumps(measured.metrics, indent=2) + "\n")
    if found.samples:
        files["images"] = write_columns(folder / f"images.{suffix}", found.samples)
    if found.classes:
        files["classes"] = write_columns(folder / "classes.csv", found.classes)
    if found.confusion is not None:
        names, matrix = list(found.classes["class"]), found.confusion
        files["confusion"] = write_matrix(folder / "confusion.csv", names, matrix)
        files["confusion_plot"] = plot_confusion(
            folder / "confusion.png", names, matrix, found.counted, title
        )
    if measured.bins is not None:
        files["calibration"] = write_columns(folder / "calibration.csv", measured.bins)
        files["calibration_plot"] = plot_reliability(
            folder / "calibration.png", measured.bins, measured.metrics["ece"], title
        )
    return files


def _short(title: str, length: int = 56) -> str:
    """Cut a title at its beginning, which names folders."""
    return title if len(title) <= length else f"…{title[1 - length :]}"


def _shown(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Format metrics; shares are in percent."""
    return [(name, _show(name, value)) for name, value in metrics.items()]


def _show(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name in COUNTS:
        return f"{int(value):,}"
    share = is_share(name) or name in ("ece", "iou", "precision")
    return f"{value:.2%}" if share else f"{value:.4g}"


def _class_lines(measured: Measured) -> list[str]:
    """Format a table of the classes, or of the worst of many."""
    columns = {name: plain(values) for name, values in measured.findings.classes.items()}
    if not columns:
        return []
    first, by = next(iter(columns)), "iou" if "iou" in columns else "accuracy"
    order, count = list(range(len(columns[first]))), len(columns[first])
    title = "Classes"
    if count > SHOWN:
        known = [i for i in order if columns[by][i] is not None]
        order = sorted(known, key=lambda i: columns[by][i])[:SHOWN]
        title = f"The {len(order)} classes of {count:,} with the lowest {by}"
    cells = [[_show(k, v[i]) if k != first else v[i] for k, v in columns.items()] for i in order]
    rows = [list(columns), *cells]
    widths = [max(len(row[k]) for row in rows) for k in range(len(columns))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    return ["", title, *(f"  {line}" for line in lines)]
