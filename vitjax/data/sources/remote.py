"""Folders and files, on a disk or on what fsspec reads: `gs://bucket/photos`, `s3://…`."""

import os
from collections.abc import Iterator
from typing import Any

_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "abfs": "adlfs",
             "az": "adlfs", "http": "aiohttp", "https": "aiohttp"}  # fmt: skip


def is_remote(path: str) -> bool:
    """Return whether a path is read by fsspec."""
    return "://" in path


def filesystem(path: str) -> tuple[Any, str]:
    """Open the fsspec file system of a path; return it with the path's name there.

    Raises:
      ValueError: fsspec, or its package for this kind of store, is not installed.
    """
    scheme = path.partition("://")[0]
    try:
        import fsspec

        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        packages = f"fsspec {_PACKAGES.get(scheme, '')}".strip()
        raise ValueError(
            f"{path!r} is read through fsspec; install what it needs: pip install {packages} "
            f"({error})."
        ) from error
    except ValueError as error:
        raise ValueError(f"fsspec reads no {scheme}:// such as {path!r} ({error}).") from error


def read(path: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read the bytes of a remote file, or a part of them."""
    files, inner = filesystem(path)
    return files.cat_file(inner, start=start, end=end)


def listing(path: str) -> Iterator[tuple[str, int | None]]:
    """List names and sizes in a folder; a folder's size is None, an unknown one -1."""
    if is_remote(path):
        files, inner = filesystem(path)
        for entry in files.ls(inner, detail=True, refresh=True):
            name = entry["name"].rstrip("/")
            if name.strip("/") != inner.strip("/"):  # some stores list the folder itself
                size = None if entry["type"] == "directory" else entry["size"]
                yield name.rpartition("/")[2], size
        return
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                yield entry.name, None if entry.is_dir() else entry.stat().st_size
            except OSError:  # a link to nowhere: reading it says so
                yield entry.name, -1
