"""Scripts that start a run on a cluster, filled in from the templates of the folder `launch`."""

import json
import math
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vitjax.names import check_choice, unknown

WORKER = "tpu_worker.sh"
"""What the hosts of a TPU run; it stands in the scripts that create one."""
HOLE = re.compile(r"@\{(\w+)(\?|=[^}]*)?\}")
"""A hole is `@{name}`, `@{name=default}`, or `@{name?}`, without which its line is left out."""
VALUE = re.compile(r"[\w.:/@,+=%\[\]-]+")
NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
INDEX = '"$SLURM_ARRAY_TASK_ID"'
COMPUTED = ("command", "command_json", "command_quoted", "element", "worker", "hosts")
"""Holes that are filled without being asked for."""
RUNTIMES = {
    **dict.fromkeys(("v2", "v3", "v4"), "tpu-ubuntu2204-base"),
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
"""Type of TPU → software of its VMs (cloud.google.com/tpu/docs/runtimes)."""


class Kind(NamedTuple):
    """A way to start a run: its template, and the program that takes the filled one."""

    template: str
    submit: tuple[str, ...]


KINDS = {
    "slurm": Kind("slurm.sbatch", ("sbatch",)),
    "slurm-array": Kind("slurm_array.sbatch", ("sbatch",)),
    "jobset-gpu": Kind("jobset-gpu.yaml", ("kubectl", "apply", "-f")),
    "jobset-tpu": Kind("jobset-tpu.yaml", ("kubectl", "apply", "-f")),
    "tpu-vm": Kind("tpu_vm.sh", ("bash",)),
    "queued-resources": Kind("queued_resources.sh", ("bash",)),
    "xpk": Kind("xpk.sh", ("bash",)),
    "sky": Kind("sky.yaml", ("sky", "jobs", "launch", "--yes")),
}


class Run(NamedTuple):
    """What is started: a training run, or a sweep, of which each element of an array runs a cell.

    Attributes:
      config: as `vitjax train` takes it.
      fields: field of the config → value.
      workdir: folder of the run, on a disk that all hosts share.
      sweep: the sweep's file, instead of all these.
    """

    config: str = ""
    fields: Mapping[str, str] = {}
    workdir: str = ""
    sweep: str = ""

    def words(self) -> list[str]:
        """Return the command of a training run."""
        fields = [f"--config.{name}={value}" for name, value in self.fields.items()]
        return ["vitjax", "train", f"--config={self.config}", *fields, f"--workdir={self.workdir}"]

    def element(self) -> str:
        """Return the command of an array's element: a cell, or a training run with its own seed."""
        if self.sweep:
            return f"{shlex.join(['vitjax', 'sweep', 'run', self.sweep, '--index'])} {INDEX}"
        words = shlex.join(self.words())
        return f"{words}/seed_{INDEX} --config.seed={INDEX}"


def fill(kind: str, run: Run, given: Mapping[str, str]) -> str:
    """Fill in the template of a kind.

    Args:
      given: hole → value.

    Raises:
      ValueError: the kind is unknown, it cannot start such a run, or a value is missing, unknown or
        not allowed.
    """
    check_choice("kind of launch", kind, KINDS)
    text = read_template(KINDS[kind].template)
    text = text.replace("@{worker}", read_template(WORKER).rstrip("\n"))
    holes = settings(text)
    for name, value in given.items():
        if name not in holes:
            raise ValueError(unknown(f"setting of {kind}", name, holes))
        _check_value(name, value)
    values = {name: value for name, value in holes.items() if value is not None} | {**given}
    _check_run(kind, run, text, values.get("mount", ""))
    words = shlex.join(run.words())
    values |= {
        "command": words,
        "command_json": json.dumps(run.words()),
        "command_quoted": shlex.quote(words),
        "element": run.element(),
    }
    _derive(values, text)
    if missing := [name for name in holes if name not in values and f"@{{{name}?}}" not in text]:
        raise ValueError(
            f"{kind} needs {', '.join(missing)}: --set {' '.join(f'{n}=…' for n in missing)}. "
            f"It takes {describe(holes)}."
        )
    lines = (_fill_line(line, values) for line in text.splitlines())
    return "\n".join(line for line in lines if line is not None) + "\n"


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    """Parse "name=value" of the command line.

    Raises:
      ValueError: one of them has another form.
    """
    for pair in pairs:
        if not re.fullmatch(r"\w+=.+", pair):
            raise ValueError(f"--set {pair!r} must be NAME=VALUE, as in --set nodes=4 gpus=8.")
    return dict(pair.split("=", 1) for pair in pairs)


def submit(kind: str, text: str) -> int:
    """Hand a filled template to the program that takes it, and return its exit code.

    Raises:
      ValueError: the program is not installed.
    """
    program, *arguments = KINDS[kind].submit
    if shutil.which(program) is None:
        raise ValueError(
            f"{program} is not installed here. With --dry-run > FILE, run `{program} "
            f"{' '.join([*arguments, 'FILE'])}` where it is."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / KINDS[kind].template
        path.write_text(text)
        return subprocess.run([program, *arguments, str(path)], check=False).returncode


def settings(text: str) -> dict[str, str | None]:
    """List the holes of a template that can be set, with their defaults."""
    found: dict[str, str | None] = {}
    for name, more in HOLE.findall(text):
        if name not in COMPUTED:
            found[name] = more[1:] if more.startswith("=") else found.get(name)
    return found


def describe(holes: Mapping[str, str | None]) -> str:
    """Format settings for a message."""
    return ", ".join(f"{n} ({v})" if v is not None else n for n, v in sorted(holes.items()))


def read_template(name: str) -> str:
    """Read a file of the folder `launch`."""
    places = (
        pathlib.Path(__file__).parents[1] / "launch" / name,  # in a wheel
        pathlib.Path(__file__).parents[2] / "launch" / name,  # in a checkout
    )
    return next(path for path in places if path.exists()).read_text()


def _check_value(name: str, value: str) -> None:
    if name == "name" and not NAME.fullmatch(value):
        raise ValueError(
            f"name={value!r} names jobs and hosts: at most 40 of a-z, 0-9 and -, a letter first."
        )
    if not VALUE.fullmatch(value):
        raise ValueError(
            f"{name}={value!r} has characters that scripts read in another way; letters, digits "
            "and .:/@,+=%[]_- are allowed."
        )


def _check_run(kind: str, run: Run, text: str, mount: str) -> None:
    if run.sweep:
        if "@{element}" not in text:
            raise ValueError(f"--sweep is for slurm-array; {kind} starts one run.")
        return
    if not run.workdir:
        raise ValueError("Where to? Give --workdir=FOLDER, on a disk that all hosts share.")
    if "@{element}" in text and "seed" in run.fields:
        raise ValueError(f"{kind} gives each element its own --config.seed; leave it out.")
    if mount and not pathlib.PurePosixPath(run.workdir).is_relative_to(mount):
        raise ValueError(
            f"--workdir={run.workdir} is not below {mount}, where the shared disk is mounted, and "
            f"would be lost with its host: --workdir={mount}/NAME, or --set mount=FOLDER."
        )


def _derive(values: dict[str, str], text: str) -> None:
    """Add what follows from other values: hosts of a topology, software of a TPU."""
    if "@{hosts}" in text and "topology" in values:
        sides = values["topology"].split("x")
        if not all(side.isdigit() for side in [*sides, values["chips"]]):
            raise ValueError(
                f"topology={values['topology']}, chips={values['chips']}: a topology is sides of a "
                "slice, such as 4x4 or 2x2x4, and chips are those of one host."
            )
        values["hosts"] = str(-(-math.prod(map(int, sides)) // int(values["chips"])))
    if "@{runtime}" in text and "runtime" not in values and "accelerator" in values:
        family = values["accelerator"].split("-")[0]
        check_choice("type of TPU VM (before its number)", family, RUNTIMES)
        values["runtime"] = RUNTIMES[family]


def _fill_line(line: str, values: Mapping[str, str]) -> str | None:
    """Fill the holes of a line; None if it has an optional one without a value."""
    for name, more in HOLE.findall(line):
        if more == "?" and name not in values:
            return None
    return HOLE.sub(lambda hole: values[hole.group(1)], line)
