"""Folders of the user."""

import os
import pathlib


def cache_folder() -> pathlib.Path:
    """Return the user's cache folder: XDG_CACHE_HOME, or ~/.cache; it may not be there."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
