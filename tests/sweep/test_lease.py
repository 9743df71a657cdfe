"""Leases: one owner at a time, whoever else tries, and the next once a heartbeat is missing."""

import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from vitjax.sweep import lease


def test_a_cell_has_one_owner(tmp_path: pathlib.Path) -> None:
    held = lease.claim(tmp_path, seconds=60)
    assert held is not None and lease.claim(tmp_path, seconds=60) is None
    assert lease.owner(held.path)["pid"] == os.getpid()
    held.release()
    again = lease.claim(tmp_path, seconds=60)
    assert again is not None and again.path.name == "000002"
    again.release()


def test_one_of_many_takes_an_expired_lease(tmp_path: pathlib.Path) -> None:
    (tmp_path / "000001").touch()
    os.utime(tmp_path / "000001", (1, 1))
    with ThreadPoolExecutor(16) as pool:
        held = [x for x in pool.map(lambda _: lease.claim(tmp_path, 60), range(64)) if x]
    assert len(held) == 1
    held[0].release()


def test_the_heartbeat_keeps_a_lease_and_its_end_frees_it(tmp_path: pathlib.Path) -> None:
    held = lease.claim(tmp_path, seconds=0.6)
    assert held is not None
    time.sleep(1.5)
    assert lease.claim(tmp_path, seconds=0.6) is None
    held._over.set()  # as if the process were killed
    held._thread.join()
    time.sleep(0.7)
    other = lease.claim(tmp_path, seconds=0.6)
    assert other is not None
    other.release()


def test_a_worker_that_lost_its_cell_ends(tmp_path: pathlib.Path) -> None:
    code = (
        "import pathlib, time; from vitjax.sweep import lease; "
        f"p = pathlib.Path({str(tmp_path)!r}); lease.claim(p, 0.6); (p / '000002').touch(); "
        "time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 75
    assert "another worker has taken the cell" in done.stderr
