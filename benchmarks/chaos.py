"""Kill a run at random moments, damage its checkpoints, fill its disk, and compare the results.

`python benchmarks/chaos.py --kills=200` trains the default run (configs/digits.py, with fewer steps
and more saves, so that there is more to interrupt in less time) under a supervisor, again and
again. The run is killed by SIGKILL or SIGTERM while it starts and restores, takes a step, evaluates
or saves. Between two starts a file of the latest checkpoint may be truncated, deleted or changed in
one byte, and some starts find a full disk. A run is complete when the program ends with 0; its
parameters are then compared, bit by bit, with those of an uninterrupted run.

The full disk is simulated by a limit on the size of files, unless `--disk` names a small file
system that may be filled: `mount -t tmpfs -o size=300m tmpfs FOLDER`.

Compiled programs are kept in a cache between starts, unless `--cold` is given.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

EVAL, SAVE, LOG = 60, 20, 5
MOMENTS = ("start", "step", "save", "eval", "any")


class Supervisor:
    """Supervisor that starts the run, kills it, and damages its checkpoints."""

    def __init__(
        self, folder: pathlib.Path, steps: int, seed: int, cold: bool, small_disk: bool
    ) -> None:
        self.folder, self.steps, self.rng = folder, steps, random.Random(seed)
        self.small_disk = small_disk
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if not cold:
            self.environment |= {
                "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
        self.count: collections.Counter[str] = collections.Counter()
        self.startup = 10.0  # seconds to the first step, as last seen

    def launch(self, workdir: pathlib.Path, full_disk: bool = False) -> subprocess.Popen:
        """Start the run once; `full_disk` fills the disk, or limits files to 64 KiB."""
        command = [
            sys.executable, "train.py", "--config=configs/digits.py", f"--workdir={workdir}",
            "--config.epochs=0", f"--config.steps={self.steps}", f"--config.log_every={LOG}",
            f"--config.eval_every={EVAL}", f"--config.checkpoint_every={SAVE}",
        ]  # fmt: skip
        if full_disk and self.small_disk:
            self.fill_disk()
        elif full_disk:
            command = ["bash", "-c", 'ulimit -f 64 && exec "$0" "$@"', *command]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def fill_disk(self) -> None:
        """Fill the disk, and leave none or a random part of the room that a checkpoint needs."""
        with (self.folder / "filler").open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(1 << 16)):
                    pass
            file.truncate(max(file.tell() - self.rng.randrange(1 << 21), 0))

    def strike(self, workdir: pathlib.Path) -> int:
        """Start the run, try to kill it, and return the exit code."""
        moment = self.rng.choice(MOMENTS)
        number = self.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        full_disk = self.rng.random() < 0.05
        begin, process = time.monotonic(), self.launch(workdir, full_disk)
        lines: list[str] = []
        reader = threading.Thread(target=self._read, args=(process, lines), daemon=True)
        reader.start()

        first, wait = None, self.rng.random()
        fuse = begin + wait * self.startup if moment == "start" else None
        target = self.rng.randrange(1, 30)  # log lines to see first
        while process.poll() is None:
            now = time.monotonic()
            steps = [line for line in lines if line.startswith("step ")]
            if first is None and steps:
                first = now
                self.startup = now - begin
            if fuse is None and moment == "any" and steps:
                fuse = now + wait * 4
            if fuse is None and len(steps) >= target:
                saving = any(workdir.glob("checkpoints/*tmp*"))
                at = int(steps[-1].split()[1].split("/")[0])
                ready = {"step": True, "save": saving, "eval": at % EVAL == 0}.get(moment, False)
                fuse = now + wait * 0.02 if ready else None
            if fuse is not None and now >= fuse:
                process.send_signal(number)
                self.count[f"{number.name} during {moment}"] += 1
                fuse = float("inf")
            time.sleep(0.001)
        reader.join()
        (self.folder / "filler").unlink(missing_ok=True)
        text = "\n".join(lines)
        self.count["on a full disk"] += full_disk
        code = process.returncode
        fine = code in (0, 75, -signal.SIGKILL, -signal.SIGTERM) or (code in (1, 2) and full_disk)
        if not fine:
            raise SystemExit(f"The program ended with {code}:\n{text[-4000:]}")
        self.count["damaged checkpoints that were noticed"] += text.count(" is damaged:")
        return code

    @staticmethod
    def _read(process: subprocess.Popen, lines: list[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())

    def damage(self, workdir: pathlib.Path) -> None:
        """Damage a file of the latest checkpoint, if there is an earlier one."""
        steps = sorted(
            (
                p
                for p in workdir.glob("checkpoints/[0-9]*")
                if (p / "manifest" / "metadata").is_file()
            ),
            key=lambda p: int(p.name),
        )
        if len(steps) < 2:
            return
        files = [p for p in (steps[-1] / "state").rglob("*") if p.is_file() and p.stat().st_size]
        path, kind = self.rng.choice(files), self.rng.choice(["truncated", "deleted", "one byte"])
        data = bytearray(path.read_bytes())
        if kind == "truncated":
            path.write_bytes(data[: self.rng.randrange(len(data))])
        elif kind == "deleted":
            path.unlink()
        else:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            path.write_bytes(data)
        self.count[f"checkpoint files {kind}"] += 1


def digest(workdir: pathlib.Path) -> str:
    """Compute the SHA-256 of the last parameters."""
    from vitjax.train.checkpoint import SavedSteps
    from vitjax.train.state import sha256

    return sha256(SavedSteps(workdir / "checkpoints").read()[1]["params"])


def main() -> None:
    """Run until `--kills` is reached; print the figures, and write them to the file of --json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cold", action="store_true", help="compile anew at every start")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the figures")
    parser.add_argument("--disk", type=pathlib.Path, help="a small file system, to be filled")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="chaos", dir=options.disk))
    supervisor = Supervisor(
        folder, options.steps, options.seed, options.cold, options.disk is not None
    )
    process = supervisor.launch(folder / "whole")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    expected, runs, same, begin = digest(folder / "whole"), 0, 0, time.monotonic()

    def kills() -> int:
        return sum(n for what, n in supervisor.count.items() if what.startswith("SIG"))

    while kills() < options.kills:
        workdir = folder / f"run{runs}"
        while supervisor.strike(workdir) != 0:
            if supervisor.rng.random() < 0.15:
                supervisor.damage(workdir)
        runs += 1
        same += digest(workdir) == expected
        figures = {"runs": runs, "kills": kills(), "bit-identical": same,
                   "steps": options.steps, "minutes": round((time.monotonic() - begin) / 60, 1),
                   **dict(sorted(supervisor.count.items()))}  # fmt: skip
        print(json.dumps(figures), flush=True)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=2) + "\n")
        if digest(workdir) != expected:
            raise SystemExit(f"Another result: {workdir}, beside {folder / 'whole'}")
        shutil.rmtree(workdir)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
