"""What is said of a path that is not there."""

import difflib
import os

from vitjax.data.sources import remote


def check_folder(path: str) -> None:
    """Raises ValueError, with the nearest name that exists, unless `path` is a folder."""
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
