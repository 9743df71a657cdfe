"""Image files by files, folders, patterns, and names on the standard input."""

import glob
import os
import pathlib
import sys
from collections.abc import Collection, Iterable

from vitjax.data.codecs.image import ARRAYS, EXTENSIONS


def find_images(
    given: Iterable[str], extensions: Collection[str] = EXTENSIONS
) -> list[pathlib.Path]:
    """List image files in the order in which they are named.

    Args:
      extensions: of the files that are taken; those of videos, say.
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
                files += _of_folder(pathlib.Path(name), extensions) or [pathlib.Path(name)]
        else:
            path = pathlib.Path(text)
            files += _of_folder(path, extensions) or _of_pattern(text, extensions) or [path]
    if not files:
        raise ValueError("No image is named: the standard input has no lines.")
    return files


def _standard_input() -> list[str]:
    lines = sys.stdin.buffer.read().splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _of_folder(path: pathlib.Path, extensions: Collection[str]) -> list[pathlib.Path]:
    if not path.is_dir():
        return []
    files = sorted(path.rglob("*"))
    arrays = [p for p in files if _ends(p, ARRAYS)] if extensions is EXTENSIONS else []
    if found := [p for p in files if _ends(p, extensions)] or arrays:
        return found
    kind = "image" if extensions is EXTENSIONS else "video"
    raise ValueError(f"There is no {kind} file in the folder {str(path)!r}.")


def _of_pattern(text: str, extensions: Collection[str]) -> list[pathlib.Path]:
    if not glob.has_magic(text) or os.path.exists(text):
        return []
    every = (pathlib.Path(name) for name in sorted(glob.glob(text, recursive=True)))
    files = [path for path in every if path.is_file()]
    arrays = ARRAYS if extensions is EXTENSIONS else ()
    if found := [p for p in files if _ends(p, extensions) or _ends(p, arrays)]:
        return found
    kind = "image" if extensions is EXTENSIONS else "video"
    raise ValueError(
        f"No {kind} file matches {text!r}; `**` stands for folders of any depth, and {kind}s end "
        f"in {', '.join(sorted(extensions))}."
    )


def is_image(path: pathlib.Path) -> bool:
    """Return whether a file's name has the suffix of an image."""
    return _ends(path, EXTENSIONS)


def _ends(path: pathlib.Path, extensions: Collection[str]) -> bool:
    return path.suffix[1:].lower() in extensions
