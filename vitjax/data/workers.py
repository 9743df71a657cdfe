"""Batches prepared by worker processes, for when one Python interpreter is too slow.

Each of n workers prepares every n-th batch and writes it into a pipe. A pipe leaves nothing behind,
blocks a worker that is ahead, and closes when the process at either end ends in any way. Workers
are fresh interpreters without jax, not forks of this one.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np

from vitjax.data.batch import Batch
from vitjax.data.source import BadImage

OnBadImage = Callable[[BadImage], None]
"""What is told of an image that cannot be read; it may raise."""
BatchAt = Callable[[int, OnBadImage], Batch]

_PIPE_BYTES = 1 << 20  # what may lie in a pipe; Linux's default is a sixteenth


@contextlib.contextmanager
def other_processes(
    make: Callable[[], BatchAt], start: int, stop: int, count: int
) -> Iterator[BatchAt]:
    """Start processes that prepare the batches start, start + 1, … before `stop`, in turn.

    Args:
      make: returns the function that prepares a batch; it must pickle, with all that it holds.
      start: the first batch.
      stop: the end, after the last batch.
      count: number of processes.

    Yields:
      A function that returns the batches, to be called for each in order. It raises the errors of
      the worker, and ChildProcessError if a process has died.
    """
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            workers.append(_Worker())
        job = pickle.dumps(make)
        for i, worker in enumerate(workers):
            worker.begin(pickle.dumps(range(start + i, stop, count)) + job)
        yield lambda step, report: workers[(step - start) % count].receive(report)
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """Worker process, and the parent's end of its pipe."""

    def __init__(self):
        reading, writing = os.pipe()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from vitjax.data.workers import serve; "
            f"serve({writing})"
        )
        # It inherits what is blocked here, from its first moment: this process saves its state when
        # it is told to stop, and ends its workers itself.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                pass_fds=(writing,),
                env={"OPENBLAS_NUM_THREADS": "1", **os.environ},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
        self._pipe = os.fdopen(reading, "rb")

    def begin(self, job: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(job)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def receive(self, on_bad_image: OnBadImage) -> Batch:
        head = self._read(np.empty(8, np.uint8))
        bad, arrays = pickle.loads(self._read(np.empty(int(head.view("<u8")[0]), np.uint8)).data)
        if isinstance(arrays, Exception):
            raise arrays
        batch: Any = {k: self._read(np.empty(shape, dtype)) for k, shape, dtype in arrays}
        for error in bad:
            on_bad_image(error)
        return batch

    def _read(self, array: np.ndarray) -> np.ndarray:
        if array.size and self._pipe.readinto(array.data.cast("B")) < array.nbytes:
            raise self._died()
        return array

    def _died(self) -> ChildProcessError:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        often = ", as the system does when memory is short: try fewer num_processes" * (code == -9)
        return ChildProcessError(
            f"A data process (pid {self._process.pid}) ended with {how}{often}. The batches up to "
            f"there were delivered."
        )

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._pipe.close()


def serve(number: int) -> None:
    """Run a worker: read its job from the standard input, and write batches to a descriptor.

    The worker exits when its parent does, because its standard input then ends.
    """
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    with os.fdopen(number, "wb") as pipe, contextlib.suppress(BrokenPipeError):
        try:
            steps, make = (pickle.load(sys.stdin.buffer) for _ in range(2))
            threading.Thread(target=_leave_with_parent, daemon=True).start()
            _deliver(make(), steps, pipe)
        except BrokenPipeError:
            raise
        except Exception as error:
            error.add_note(f"In data process {os.getpid()}: {traceback.format_exc()}")
            _send(pipe, [], _portable(error))
    os._exit(0)


def _deliver(batch_at: BatchAt, steps: Iterable[int], pipe: IO[bytes]) -> None:
    def make(step: int) -> tuple[Batch, list[BadImage]]:
        bad: list[BadImage] = []
        return batch_at(step, bad.append), bad

    with ThreadPoolExecutor(1) as pool:  # makes one batch while another one is written
        done = None
        for step in steps:
            made = pool.submit(make, step)
            if done:
                _send_batch(pipe, *done)
            done = made.result()
        if done:
            _send_batch(pipe, *done)


def _send_batch(pipe: IO[bytes], batch: Batch, bad: list[BadImage]) -> None:
    arrays: dict[str, Any] = dict(batch)
    _send(pipe, bad, [(k, array.shape, array.dtype.str) for k, array in arrays.items()])
    for array in arrays.values():
        pipe.write(np.ascontiguousarray(array).data)
    pipe.flush()


def _send(pipe: IO[bytes], bad: list[BadImage], arrays: Any) -> None:
    head = pickle.dumps((bad, arrays))
    pipe.write(len(head).to_bytes(8, "little") + head)
    pipe.flush()


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _leave_with_parent() -> None:
    os.read(0, 1)  # waits for the end
    os._exit(1)
