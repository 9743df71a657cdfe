"""Export of trained models for programs without vitjax.

The result is a folder with the model, its preprocessing, its classes, and a short program that uses
it. Each format is a file here, which writes its files into a folder.
"""

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from vitjax.console import format_bytes, table
from vitjax.names import check_choice
from vitjax.tools.export import hub, onnx, stablehlo, torch
from vitjax.tools.export.given import Given, open_given

FORMATS: dict[str, Callable[[Given, pathlib.Path], dict[str, Any]]] = {
    "stablehlo": stablehlo.write,
    "onnx": onnx.write,
    "torch": torch.write,
    "hub": hub.write,
}
"""Name → what writes it and gives what is worth saying."""


def export(text: str, to: str, folder: pathlib.Path) -> tuple[dict[str, Any], str]:
    """Write a trained model into a new folder.

    Args:
      text: a run's folder, or published weights as `open_trained` takes them.
      to: a name of FORMATS.
      folder: new, or empty. It is there once it is whole.

    Returns:
      What was written, as JSON and as a table.

    Raises:
      ValueError: an unknown format, a folder that holds something, no such model, or one that the
        format does not have.
    """
    check_choice("format", to, FORMATS)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{str(folder)!r} is there and not empty; give a new folder.")
    result = write(open_given(text), to, folder)
    rows = {k: str(v) for k, v in result.items() if k != "files"}
    rows |= {name: format_bytes(size) for name, size in result["files"].items()}
    return result, table(rows.items())


def write(given: Given, to: str, folder: pathlib.Path) -> dict[str, Any]:
    """Write an opened model into a new folder; arguments and errors are those of `export`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        new = pathlib.Path(temporary) / "new"
        new.mkdir()
        said = FORMATS[to](given, new)
        new.replace(folder)  # whole or not at all
    files = sorted(folder.iterdir())
    return {"model": given.name, "format": to, "folder": str(folder), **said,
            "files": {path.name: path.stat().st_size for path in files}}  # fmt: skip
