"""Errors for paths that are missing, and the choice of a folder's validation split."""

import difflib
import os

from vitjax.data.sources import remote

VALIDATION = ("val", "validation", "valid")
"""Names of the split by which checkpoints are chosen, beside `train` and `test`."""


def validation_beside_test(uri: str) -> str | None:
    """Return the validation split of a folder that has `train`, `test` and one of these.

    None where the URI is of another source, names a split itself, or has fewer.
    """
    scheme, separator, rest = uri.partition("://")
    path, _, options = (rest if separator else uri).partition("?")
    if (separator and scheme != "folder") or "split=" in options:
        return None
    root = os.path.expanduser(path)
    check_folder(root)
    parts = {name for name, size in remote.listing(root) if size is None}
    if not {"train", "test"} <= parts:
        return None
    return next((name for name in VALIDATION if name in parts), None)


def find_root(path: str) -> str:
    """Return the folder of a path, without `~` and a slash at its end.

    Raises:
      ValueError: see `check_folder`.
    """
    root = os.path.expanduser(path)
    root = root.rstrip("/") or root
    check_folder(root)
    return root


def check_folder(path: str) -> None:
    """Raise ValueError, with the nearest name that exists, unless `path` is a folder."""
    if remote.is_remote(path):
        files, inner = remote.filesystem(path)
        if not files.isdir(inner):
            raise ValueError(f"Folder {path!r} does not exist, or may not be read; check the path.")
        return
    if os.path.isdir(path):
        return
    if not path:
        raise ValueError("A folder has no path; write folder:///photos or folder://photos.")
    if os.path.exists(path):
        raise ValueError(f"{path!r} is a file; give the folder that holds the classes' folders.")
    parent, missing = os.path.split(os.path.abspath(path))
    while not os.path.isdir(parent):
        parent, missing = os.path.split(parent)
    folders = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    near = difflib.get_close_matches(missing, folders, n=1, cutoff=0.5)
    hint = f"did you mean {os.path.join(parent, near[0])!r}?" if near else "check the path."
    raise ValueError(f"Folder {path!r} does not exist: {parent!r} has no {missing!r}; {hint}")
