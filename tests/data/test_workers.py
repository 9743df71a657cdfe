import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.data.pictures import Numbered, eval_batches, train_batches
from vitjax.data import BadImage, workers

OPTIONS = {"batch_size": 4, "image_size": 8, "augment": "digits"}


class Troubled(Numbered):
    """Image 3 and image 7 cannot be read, and image 9 has a label that is no class."""

    def __getitem__(self, i):
        if i in (3, 7):
            raise BadImage(f"number {i}", "it is one of those")
        return super().__getitem__(i) | ({"label": 99} if i == 9 else {})


@pytest.fixture
def processes(monkeypatch):
    """Record the worker processes that are started."""
    started, popen = [], subprocess.Popen

    def start(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", start)
    return started


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            assert batch[key].dtype == other[key].dtype
            np.testing.assert_array_equal(batch[key], other[key])


def test_batches_are_those_of_one_process(processes):
    options = OPTIONS | {"start_step": 2, "rows": [1, 2]}
    here, there = (train_batches(Numbered(10), num_processes=n, **options) for n in (0, 3))
    assert_equal(itertools.islice(here, 7), itertools.islice(there, 7))
    there.close()
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * 3
    options = {"batch_size": 4, "image_size": 8}
    here, there = (list(eval_batches(Numbered(10), num_processes=n, **options)) for n in (0, 2))
    assert_equal(here, there)
    assert len(processes) == 5 and all(process.poll() is not None for process in processes)


def test_bad_images_of_all_processes_count_together(caplog):
    options = {"batch_size": 2, "image_size": 8, "num_processes": 2}
    with pytest.raises(BadImage, match=r"'number 3': it is one of those; .*on_bad_image='skip'"):
        list(eval_batches(Troubled(8), **options))
    (*batches,) = eval_batches(Troubled(8), on_bad_image="skip", **options)
    assert [batch["mask"].tolist() for batch in batches] == [[1, 1], [1, 0], [1, 1], [1, 0]]
    assert len(caplog.records) == 2
    limited = eval_batches(Troubled(8), on_bad_image="skip", max_bad_images=1, **options)
    with pytest.raises(BadImage, match=r"'number 7'.* number 2 of .*others are number 3"):
        list(limited)


def test_errors_are_those_of_one_process():
    options = {"batch_size": 2, "image_size": 8, "num_processes": 1, "on_bad_image": "skip"}
    batches = eval_batches(Troubled(10), **options)
    assert len(list(itertools.islice(batches, 4))) == 4
    with pytest.raises(ValueError, match="Image 'number 9': its label is 99") as error:
        next(batches)
    assert "in load_batch" in error.value.__notes__[0]


def test_a_process_that_is_killed_is_one_error(processes):
    batches = train_batches(Numbered(10), num_processes=2, **OPTIONS)
    next(batches)
    processes[1].kill()
    with pytest.raises(ChildProcessError, match=rf"pid {processes[1].pid}\) ended with SIGKILL.*"):
        list(batches)
    assert all(process.poll() is not None for process in processes)


def without_jax():
    def batch_at(step, take):
        return {"image": np.array(sorted({"jax", "tensorflow"} & sys.modules.keys()))}

    return batch_at


PROGRAM = """
import subprocess, sys
from tests.data.test_workers import without_jax
from vitjax.data import workers
popen, started = subprocess.Popen, []
subprocess.Popen = lambda *args, **options: started.append(popen(*args, **options)) or started[-1]
with workers.other_processes(without_jax, 0, sys.maxsize, 2) as batch_at:
    batch_at(0, print)
    print(*(process.pid for process in started), flush=True)
    sys.stdin.read()
"""


def test_processes_have_no_jax_and_end_with_their_parent():
    with workers.other_processes(without_jax, 0, 1, 1) as batch_at:
        assert batch_at(0, print)["image"].size == 0
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None and parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGTERM)  # told to the whole group: they leave it to their parent
    time.sleep(1.0)
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)
    parent.stdin.close()
    parent.stdout.close()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
