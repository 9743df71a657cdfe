"""Leases on a file system: which worker has a cell, without a server.

The files of a cell's leases are numbered. A lease is alive while the time of its file is recent:
its owner touches it again and again (the heartbeat). Whoever finds the latest one expired makes the
file of the next number, which the file system lets only one do (O_EXCL). No file is renamed or
deleted, so that no two workers can both take an expired lease. A released lease has the time 0.

Times are compared with that of a file touched now, and not with a clock: hosts' clocks differ, and
the file system has one.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from typing import Any

from vitjax.train.signals import STOPPED

SECONDS = 60.0
"""After which a lease without a heartbeat has expired."""
BEATS = 6
"""Heartbeats in that time."""


class Lease:
    """Lease of this process, with a heartbeat until it is released.

    If it expired all the same, say as the process stood still, and another worker has taken the
    cell, the process ends: two may not write one run.
    """

    def __init__(self, path: pathlib.Path, seconds: float) -> None:
        self.path, self._seconds, self._over = path, seconds, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the cell back at once."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.utime(self.path, (0, 0))

    def _beat(self) -> None:
        while not self._over.wait(self._seconds / BEATS):
            with contextlib.suppress(OSError):  # a file system that is away for a moment
                if latest(self.path.parent) != self.path:
                    print(
                        f"error: The lease {self.path} expired, and another worker has taken the "
                        f"cell. This worker ends; a longer --lease-seconds allows for pauses.",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(STOPPED)
                os.utime(self.path)


def claim(folder: pathlib.Path, seconds: float = SECONDS) -> Lease | None:
    """Take the lease of a cell; None if another worker has it.

    Args:
      folder: of the cell's leases, which is made.
      seconds: without a heartbeat, after which another's lease has expired.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = latest(folder)
    if last is not None and is_alive(last, file_time(folder), seconds):
        return None
    path = folder / f"{int(last.name) + 1 if last else 1:06}"
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    try:
        with path.open("x") as file:
            json.dump(owner, file)
    except FileExistsError:
        return None
    return Lease(path, seconds)


def latest(folder: pathlib.Path) -> pathlib.Path | None:
    """Find the file of the latest lease."""
    names = [p.name for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    return folder / max(names, key=int) if names else None


def is_alive(lease: pathlib.Path, now: float, seconds: float = SECONDS) -> bool:
    """Return whether a lease had a heartbeat in the last seconds before `now`, a `file_time`."""
    return now - lease.stat().st_mtime < seconds


def file_time(folder: pathlib.Path) -> float:
    """Read the file system's time, that of a file made now."""
    probe = folder / f".now-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def owner(lease: pathlib.Path) -> dict[str, Any]:
    """Read who has a lease: host, pid, since; empty if its owner ended while writing it."""
    try:
        return json.loads(lease.read_text())
    except ValueError:
        return {}
