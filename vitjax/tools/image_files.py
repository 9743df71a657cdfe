"""Image files by files, folders, patterns, and names on the standard input."""

import glob
import os
import pathlib
import sys
from collections.abc import Iterable

from vitjax.data.codecs.image import ARRAYS, EXTENSIONS


def find_images(given: Iterable[str]) -> list[pathlib.Path]:
    """List image files in the order in which they are named.

    Args:
      given: of each the first that it is: "-" for names on the standard input, one a line; a
        folder, whose image files, also those of folders in it, are taken in the order of their
        names, or its `.npy` arrays if it has no others; a pattern, such as "photos/**/*.jpg",
        where no file has this very name; else a file, which need not be there.

    Raises:
      ValueError: a folder or a pattern has no image files, or nothing is named.
    """
    files: list[pathlib.Path] = []
    for text in given:
        if text == "-":
            for name in _standard_input():
                files += _of_folder(pathlib.Path(name)) or [pathlib.Path(name)]
        else:
            files += _of_folder(pathlib.Path(text)) or _of_pattern(text) or [pathlib.Path(text)]
    if not files:
        raise ValueError("No image is named: the standard input has no lines.")
    return files


def _standard_input() -> list[str]:
    lines = sys.stdin.buffer.read().splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _of_folder(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        return []
    files = sorted(path.rglob("*"))
    arrays = [p for p in files if p.suffix[1:].lower() in ARRAYS]
    if found := [p for p in files if is_image(p)] or arrays:
        return found
    raise ValueError(f"There is no image file in the folder {str(path)!r}.")


def _of_pattern(text: str) -> list[pathlib.Path]:
    if not glob.has_magic(text) or os.path.exists(text):
        return []
    every = (pathlib.Path(name) for name in sorted(glob.glob(text, recursive=True)))
    files = [path for path in every if path.is_file()]
    if found := [p for p in files if is_image(p) or p.suffix[1:].lower() in ARRAYS]:
        return found
    raise ValueError(
        f"No image file matches {text!r}; `**` stands for folders of any depth, and images end in "
        f"{', '.join(sorted(EXTENSIONS))}."
    )


def is_image(path: pathlib.Path) -> bool:
    """Return whether a file's name has the suffix of an image."""
    return path.suffix[1:].lower() in EXTENSIONS
