"""Contestants that take turns: each a process that runs steps when it is asked."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vitjax.allocator import with_keeping_allocator

HERE = pathlib.Path(__file__).parent
PACKAGE = HERE.parents[2]
"""The folder that holds vitjax, for the path of our own processes."""


class ContestantError(RuntimeError):
    """Error of a contestant's process; `short`: its memory was."""

    def __init__(self, text: str, short: bool = False) -> None:
        super().__init__(text)
        self.short = short


class Contestant(NamedTuple):
    """What a contestant's process runs; see `vitjax.tools.bench.worker`.

    Attributes:
      python: the interpreter; `path`: its PYTHONPATH besides.
    """

    file: pathlib.Path
    function: str
    arguments: Mapping[str, Any]
    python: str = sys.executable
    path: str = str(PACKAGE)


class Worker:
    """Running process of a contestant.

    Attributes:
      about: what it told of itself.
      times: seconds of a step, one for each turn.
      memory: its bytes at the end of the last turn.

    Raises:
      ContestantError: it does not run.
    """

    def __init__(self, contestant: Contestant, env: Mapping[str, str] | None = None) -> None:
        c = contestant
        command = [c.python, "-P", str(HERE / "worker.py"), str(c.file), c.function]
        # A pipe that nobody reads fills up.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as the process
        self._process = subprocess.Popen(
            [*command, json.dumps(c.arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # All have the allocator of a run.
            env=with_keeping_allocator({**os.environ, **_path(c.path), **(env or {})}),
        )
        self.times: list[float] = []
        self.value = 0.0
        self.memory: dict[str, Any] = {}
        try:
            self.about = self._answer()
        except BaseException:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = json.loads(line) if line else self._last_words()
        if "error" in found:
            kind = "" if found["kind"] in ("ValueError", "JaxRuntimeError") else found["kind"]
            raise ContestantError(": ".join(filter(None, (kind, found["error"]))), found["short"])
        return found

    def _last_words(self) -> dict[str, Any]:
        """Describe how a process ended that did not answer."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["it ended without a word"]
        killed = code == -signal.SIGKILL  # by the system, which has no memory left
        return {"error": "it was killed" if killed else lines[-1], "kind": "", "short": killed}

    def turn(self, steps: int, keep: bool = True) -> float:
        """Run steps, and return the seconds of one, which are appended to `times` if kept."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        found = self._answer()
        self.value, self.memory = found["value"], found["memory"]
        seconds = found["seconds"] / steps
        if keep:
            self.times.append(seconds)
        return seconds

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def is_busy() -> str:
    """Say that other programs use the processors; empty where they do not."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    return f"other programs run: a load of {load:.1f} on {cores} cores" if load > cores else ""


def _path(folder: str) -> dict[str, str]:
    """Return PYTHONPATH with a folder before what it has."""
    paths = filter(None, (folder, os.environ.get("PYTHONPATH", "")))
    return {"PYTHONPATH": os.pathsep.join(paths)}


def take_turns(
    workers: Sequence[Worker],
    rounds: int,
    seconds: float,
    tell: Callable[[int], None] = lambda done: None,
) -> None:
    """Let workers run in turn; `times` of each then has one entry a round.

    A first round, in which each wakes up, says how many steps of each take the given time.

    Args:
      rounds: how many turns each has.
      seconds: the least that a turn takes; 0 for one step.
      tell: is told how many rounds are done.
    """
    steps = []
    for worker in workers:
        once = worker.turn(1, keep=False)
        steps.append(max(1, min(1000, round(seconds / max(once, 1e-6)))))
    for done in range(1, rounds + 1):
        for worker, count in zip(workers, steps, strict=True):
            worker.turn(count)
        tell(done)
