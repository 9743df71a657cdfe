"""Output of `vitjax predict`: rows of a table, written as they come, so that none is lost."""

import contextlib
import csv
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from vitjax.console import Countdown, table
from vitjax.tools.predict import Predictions, Shown

TABLES = (".csv", ".jsonl")
INTERRUPTED = 130
"""Exit code of what was ended by Ctrl-C, as shells have it."""


class Told(NamedTuple):
    """Result of a command.

    Attributes:
      result: for programs; `text`: for people.
      code: the exit code, 2 if a file could not be read.
    """

    result: Any
    text: str
    code: int


def split_outputs(paths: Sequence[pathlib.Path]) -> tuple[list[pathlib.Path], pathlib.Path | None]:
    """Separate table files from the folder of pictures.

    Raises:
      ValueError: a file that is no table, or several folders.
    """
    tables = [path for path in paths if path.suffix.lower() in TABLES]
    folders = [path for path in paths if path not in tables]
    wrong = [path for path in folders if path.is_file() or (path.suffix and not path.is_dir())]
    if wrong or len(folders) > 1:
        given = ", ".join(repr(str(path)) for path in wrong or folders)
        raise ValueError(
            f"--out takes tables (FILE.csv, FILE.jsonl) and one folder for pictures; got {given}."
        )
    return tables, folders[0] if folders else None


def report(found: Predictions, tables: Sequence[pathlib.Path], as_json: bool) -> Told:
    """Write each file's result as it comes, and report the progress.

    Args:
      tables: files for the rows; without any they go to the standard output.
      as_json: the result will be printed, and so nothing else is.
    """
    rows: list[Any] = []
    printing = not tables and not as_json
    meter = Countdown(found.total, "images", quiet=printing and sys.stdout.isatty())
    done, bad, code = 0, 0, 0
    with contextlib.ExitStack() as held:
        writers = [held.enter_context(_open(path, found.columns)) for path in tables]
        try:
            for done, shown in enumerate(found.every, 1):
                row = _row(shown, found.step)
                if shown.presented is None:
                    bad, code = bad + 1, 2
                    meter.say(_printable(f"error: {shown.error}"))
                elif printing:
                    print(_printable("\n".join(_lines(shown))), flush=True)
                for write in writers:
                    write(shown, row)
                if as_json and not tables:
                    rows.append(row)
                meter(done)
        except KeyboardInterrupt:
            meter.say(f"Stopped after {done:,} of {found.total:,} images.")
            code = INTERRUPTED
    if not tables:
        return Told(rows, "", code)
    names = [str(path) for path in tables]
    facts = {"images": done, "unreadable": bad, "step": found.step}
    shown = table([*((k, f"{v:,}") for k, v in facts.items()), ("written", ", ".join(names))])
    return Told({**facts, "written": names}, _printable(shown), code)


def _row(shown: Shown, step: int) -> dict[str, Any]:
    row = {"image": str(shown.path), "step": step}
    if shown.presented is None:
        return {**row, "error": shown.error}
    picture = {"picture": str(shown.picture)} if shown.picture else {}
    return {**row, **picture, **shown.presented.result}


def _lines(shown: Shown) -> list[str]:
    assert shown.presented is not None
    lines = [str(shown.path), *(f"  {line}" for line in shown.presented.lines)]
    return [*lines, f"  picture: {shown.picture}"] if shown.picture else lines


@contextlib.contextmanager
def _open(path: pathlib.Path, columns: Sequence[str]) -> Iterator[Callable[[Shown, Any], None]]:
    """Open a new table; each row is flushed to the disk when it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(
        "w", buffering=1, newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        if path.suffix.lower() == ".jsonl":
            yield lambda shown, row: print(json.dumps(row), file=file) and None
            return
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "step", *(columns or ["result"]), "picture", "error"])

        def write(shown: Shown, row: dict[str, Any]) -> None:
            picture, cells = str(shown.picture or ""), [""] * (len(columns) or 1)
            if shown.presented is not None and columns:
                cells = [shown.presented.cells.get(name, "") for name in columns]
            elif shown.presented is not None:
                cells = [json.dumps(shown.presented.result)]
            writer.writerow([row["image"], row["step"], *cells, picture, shown.error])

        yield write


def _printable(text: str) -> str:
    """Remove what no terminal can print: bytes of a name that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
