"""Columns written as files: CSV, or Parquet."""

import csv
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

FORMATS = ("csv", "parquet")


def check_format(name: str) -> None:
    """Check that a library can write Parquet.

    Raises:
      ValueError: so it is.
    """
    if name == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "--format=parquet needs the extra: pip install 'vitjax[parquet]'; or take "
                "--format=csv."
            ) from error


def write_columns(path: pathlib.Path, columns: Mapping[str, Any]) -> pathlib.Path:
    """Write columns of equal length as the suffix says; NaN is an empty field of CSV."""
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        arrays = {name: pyarrow.array(plain(values)) for name, values in columns.items()}
        parquet.write_table(pyarrow.table(arrays), path)
        return path
    return write_rows(path, columns, zip(*(plain(v) for v in columns.values())))


def write_rows(
    path: pathlib.Path, header: Iterable[str], rows: Iterable[Iterable[Any]]
) -> pathlib.Path:
    """Write a CSV file in UTF-8, which spreadsheets read."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_matrix(path: pathlib.Path, names: Sequence[str], matrix: np.ndarray) -> pathlib.Path:
    """Write a square matrix with the names of its rows and columns."""
    rows = ([name, *row] for name, row in zip(names, matrix.tolist()))
    return write_rows(path, ["label \\ prediction", *names], rows)


def plain(values: Any) -> list[Any]:
    """Convert to Python's own values; None for NaN."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [None if isinstance(v, float) and np.isnan(v) else v for v in listed]


def records(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Convert columns to a list of rows, for JSON."""
    return [dict(zip(columns, row)) for row in zip(*map(plain, columns.values()))]
