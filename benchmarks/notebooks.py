"""Write notebooks/*.ipynb from their sources, or execute them.

`python benchmarks/notebooks.py` writes each notebook of notebooks/*.py (jupytext, percent format),
without outputs. `python benchmarks/notebooks.py execute [NAME …]` runs all cells of each in a fresh
kernel and an empty folder, with a limit for each cell, prints the seconds of each notebook, and
writes it with its outputs and its last picture into build/notebooks/, where the documents' site
finds it. `make notebooks` does this with the network off.
"""

import argparse
import base64
import os
import pathlib
import tempfile
import time
from typing import Any

import jupytext
import nbformat

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
OUT = ROOT / "build" / "notebooks"
LIMIT = 170
"""Seconds that a cell may take."""
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read(path: pathlib.Path) -> Any:
    """Read a source as a notebook whose bytes follow from the source."""
    book = jupytext.read(path)
    for i, cell in enumerate(book.cells):
        cell.id = f"{path.stem}-{i}"
        cell.metadata = {}
    book.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    book.nbformat, book.nbformat_minor = 4, 5
    return book


def text(path: pathlib.Path) -> str:
    """Return the file of a source's notebook."""
    return nbformat.writes(read(path)) + "\n"


def execute(path: pathlib.Path) -> float:
    """Execute a notebook, write the result into OUT, and return the seconds it took.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed.
      nbclient.exceptions.CellTimeoutError: a cell took longer than the limit.
    """
    import nbclient
    from jupyter_client.manager import AsyncKernelManager

    book, began = read(path), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as place:
        # Files in place of ports: without a network there may be no loopback either.
        connection = os.path.join(place, "kernel.json")
        manager = AsyncKernelManager(transport="ipc", connection_file=connection)
        nbclient.NotebookClient(
            book, km=manager, timeout=LIMIT, resources={"metadata": {"path": folder}}
        ).execute()
    seconds = time.perf_counter() - began
    OUT.mkdir(parents=True, exist_ok=True)
    pictures = [
        o.data["image/png"]
        for cell in book.cells
        for o in cell.get("outputs", ())
        if "image/png" in o.get("data", {})
    ]
    assert pictures and "outputs" in book.cells[-1], f"{path.name} does not end in a picture"
    (OUT / f"{path.stem}.png").write_bytes(base64.b64decode(pictures[-1]))
    (OUT / f"{path.stem}.ipynb").write_text(nbformat.writes(book) + "\n")
    return seconds


def main() -> None:
    """Write or execute the notebooks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=("write", "execute"), default="write")
    parser.add_argument("names", nargs="*", metavar="NAME", help="those to execute; all if empty")
    options = parser.parse_args()
    stems = [path.stem for path in SOURCES]
    if wrong := [name for name in options.names if name not in stems or options.what == "write"]:
        parser.error(f"{', '.join(wrong)}: NAME chooses what to execute, of {', '.join(stems)}")
    if options.what == "write":
        for path in SOURCES:
            path.with_suffix(".ipynb").write_text(text(path))
        return
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    chosen = [p for p in SOURCES if not options.names or p.stem in options.names]
    for i, path in enumerate(chosen, 1):
        print(f"{i} of {len(chosen)}  {path.stem:22} {execute(path):4.0f} s", flush=True)


if __name__ == "__main__":
    main()
