"""Rows of `vitjax bench`: models measured on the device at hand, alone or beside timm."""

import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from vitjax.console import Countdown
from vitjax.models import model_options, own_name
from vitjax.models.aliases import ALIASES, SAME_IN_TIMM
from vitjax.names import parse_call
from vitjax.plan.topology import device_peak
from vitjax.tools.bench.contest import (
    HERE,
    Contestant,
    ContestantError,
    Worker,
    is_busy,
    take_turns,
)

Row = dict[str, Any]
Say = Callable[[str], None]
PREFIX = {"forward": "infer", "train": "train"}
"""Direction → the beginning of its columns, which are timm's."""
OPERATIONS = {"forward": 2, "train": 6}
"""Operations of a step for each multiply-add of the forward pass."""
BATCH, BATCH_ON_CPU = 256, 8


class Settings(NamedTuple):
    """What is measured.

    Attributes:
      directions: keys of PREFIX.
      batch, size, dtype: 0 and "" for those of the device and the model.
      repeats: turns, of which the median is told; at least 5.
      seconds: the least that a turn takes.
      against: timm's contestants, of RIVALS.
      torch_python: the interpreter that has torch and timm.
      timm_names: model → timm's name, where it is not that of `name_in_timm`.
    """

    directions: Sequence[str] = ("forward",)
    batch: int = 0
    size: int = 0
    dtype: str = ""
    repeats: int = 5
    seconds: float = 0.5
    against: Sequence[str] = ()
    torch_python: str = sys.executable
    timm_names: Mapping[str, str] = MappingProxyType({})


RIVALS = {"timm": False, "timm_compiled": True}
"""Contestant → whether `torch.compile` compiles it."""


def split_options(model: str) -> tuple[str, dict[str, Any]]:
    """Split "vit_s16(depth=2)" into name and options; a name alone has none.

    Raises:
      ValueError: the text does not parse.
    """
    call = parse_call(model) if "(" in model else (model, {})
    if call is None:
        raise ValueError(
            f"Model {model!r} does not parse; write a name of `vitjax list`, or one with literal "
            "values: 'vit_s16(depth=2)'."
        )
    return call


def name_in_timm(model: str) -> str | None:
    """Find timm's name of one of our models, or None; of one with other options there is none."""
    if "(" in model:
        return None
    ours = own_name(model)
    if ours.startswith(SAME_IN_TIMM):
        return ours
    found = (name for name, alias in ALIASES.items() if alias == (ours, {}) and "/" not in name)
    return next(found, None)  # timm's stand first


def side_of(model: str, size: int) -> int:
    """Return the side of a model's images: as given, or its own."""
    name, options = split_options(model)
    own = {**model_options(name), **options}.get("image_size") or 224
    return size or (own if isinstance(own, int) else own[0])


def look() -> dict[str, Any]:
    """Ask a process of its own which device there is: this one must not hold it."""
    worker = Worker(Contestant(HERE / "ours.py", "device", {}))
    worker.close()
    return worker.about


def check_rivals(python: str) -> None:
    """Check that an interpreter has what timm's contestants need.

    Raises:
      ValueError: it has not, or is none.
    """
    code = "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
    try:
        done = subprocess.run([python, "-c", code, "torch", "timm"], check=False)
    except OSError as error:
        raise ValueError(f"--torch-python={python} does not run: {error.strerror}.") from error
    if done.returncode:
        raise ValueError(
            f"--against=timm needs torch and timm, which {python} does not have: pip install "
            "'vitjax[torch]' timm, or give a Python that has them by --torch-python=PATH."
        )


def measure(models: Sequence[str], settings: Settings, say: Say) -> Iterator[Row]:
    """Measure models one after the other, and yield a row for each.

    A row whose "figures" are "failed" says in its notes why; the others are measured all the same.

    Raises:
      ValueError, ContestantError: the only model does not run, of a batch of one image either, or
        its loss is no number.
    """
    there = look()
    cpu = there["platform"] == "cpu"
    busy = cpu and is_busy()
    if busy and settings.against:
        say(f"{busy}: ratios would mislead, and are left out. Wait until it is quiet.")
    if settings.against and there["platform"] == "tpu":
        raise ValueError("--against=timm runs PyTorch on the same device, which has none for TPUs.")
    settings = settings._replace(
        batch=settings.batch or (BATCH_ON_CPU if cpu else BATCH),
        dtype=settings.dtype or ("float32" if cpu else "bfloat16"),
    )
    for model in models:
        row: Row = {"model": model, "figures": "measured", "notes": [busy] if busy else []}
        try:
            for direction in settings.directions:
                row |= _direction(model, direction, settings, there, row["notes"], say)
        except (ValueError, ContestantError) as error:
            if len(models) == 1:
                raise
            row |= {"figures": "failed", "notes": [str(error)]}
        if busy:
            row = {name: None if "_ratio" in name else value for name, value in row.items()}
        row["notes"] = "; ".join(dict.fromkeys(row["notes"]))
        yield row


def _direction(
    model: str, direction: str, settings: Settings, there: Row, notes: list[str], say: Say
) -> Row:
    """Measure one direction, with half the batch as often as memory is short."""
    batch = settings.batch
    while True:
        try:
            return _at(model, direction, settings._replace(batch=batch), there, notes)
        except ContestantError as error:
            if not error.short or batch == 1:
                raise ContestantError(f"{model} {PREFIX[direction]}: {error}") from error
            text = f"{PREFIX[direction]}: {batch} images do not fit"
            notes.append(text)
            batch //= 2
            say(f"{model} {text}; trying {batch}.")


def _at(model: str, direction: str, settings: Settings, there: Row, notes: list[str]) -> Row:
    """Measure one direction with a given batch."""
    s = settings
    arguments = {"batch": s.batch, "size": side_of(model, s.size), "dtype": s.dtype}
    ours = Contestant(HERE / "ours.py", direction, {"model": model, **arguments})
    # Two processes share the card, of which jax would take three quarters at once.
    env = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if s.against else {}
    workers = {"": Worker(ours, env)}
    try:
        for rival in s.against:
            device = "cpu" if there["platform"] == "cpu" else "cuda"
            try:
                workers[rival] = _rival(model, direction, rival, device, arguments, s)
            except ContestantError as error:
                if error.short:
                    raise
                notes.append(f"{rival} does not run: {error}")
        meter = Countdown(s.repeats, f"turns of {model} {PREFIX[direction]}")
        take_turns(list(workers.values()), s.repeats, s.seconds, meter)
        return _figures(model, direction, s, workers, notes)
    finally:
        for worker in workers.values():
            worker.close()


def _rival(
    model: str, direction: str, rival: str, device: str, arguments: Row, settings: Settings
) -> Worker:
    """Start one of timm's contestants.

    Raises:
      ContestantError: timm has no such model, or it does not run.
    """
    name = settings.timm_names.get(model) or name_in_timm(model)
    if name is None:
        raise ContestantError(f"timm has no {model}")
    given = {**arguments, "model": name, "device": device, "compiled": RIVALS[rival]}
    path = ""  # of an environment that may have no vitjax
    return Worker(Contestant(HERE / "rivals.py", direction, given, settings.torch_python, path))


def _figures(
    model: str, direction: str, settings: Settings, workers: dict[str, Worker], notes: list[str]
) -> Row:
    """Compute a direction's columns from the workers' turns."""
    p, batch, ours = PREFIX[direction], settings.batch, workers[""]
    about, times = ours.about, ours.times
    for name, worker in workers.items():
        if not math.isfinite(worker.value):
            what = "loss" if direction == "train" else "mean of the outputs"
            raise ValueError(
                f"{name or 'vitjax'} {model} {p}: the {what} is {worker.value} after "
                f"{len(times)} turns, and times of such steps say nothing; try --dtype=float32."
            )
    seconds = statistics.median(times)
    row = {
        f"{p}_samples_per_sec": batch / seconds,
        f"{p}_step_time": 1e3 * seconds,
        f"{p}_batch_size": batch,
        f"{p}_img_size": about["size"],
        "param_count": about["parameters"] / 1e6,
        "infer_gmacs": about["macs"] / 1e9,
        f"{p}_step_time_min": 1e3 * min(times),
        f"{p}_step_time_max": 1e3 * max(times),
        f"{p}_mfu": None,
        f"{p}_peak_memory": ours.memory["peak"],
        f"{p}_used_memory": ours.memory["used"],
        f"{p}_planned_memory": about["planned"],
        f"{p}_compile_time": about["compile"],
        f"{p}_first_step_time": about["first"],
        "memory_of": ours.memory["of"],
        "dtype": about["dtype"],
        "device": about["device"],
        "peak_flops": None,
        "peak_source": "",
        "repeats": len(times),
        "versions": ", ".join(dict.fromkeys(w.about["version"] for w in workers.values())),
    }
    if peak := device_peak(about["device"]):
        work = OPERATIONS[direction] * about["macs"] * batch
        row |= {f"{p}_mfu": work / seconds / peak[0], "peak_flops": peak[0]}
        row["peak_source"] = peak[1]
    for name, worker in workers.items():
        if name:
            row |= _beside(f"{p}_{name}", batch, times, worker)
            if worker.about["parameters"] != about["parameters"]:
                theirs = worker.about["parameters"]
                notes.append(f"timm's has {theirs:,} parameters, ours {about['parameters']:,}")
    return row


def _beside(prefix: str, batch: int, times: Sequence[float], worker: Worker) -> Row:
    """Compute the columns of another contestant: ratios above 1 say that we are faster."""
    seconds = statistics.median(worker.times)
    ratios = [theirs / own for theirs, own in zip(worker.times, times, strict=True)]
    return {
        f"{prefix}_samples_per_sec": batch / seconds,
        f"{prefix}_step_time": 1e3 * seconds,
        f"{prefix}_ratio": statistics.median(ratios),
        f"{prefix}_ratio_min": min(ratios),
        f"{prefix}_ratio_max": max(ratios),
        f"{prefix}_peak_memory": worker.memory["peak"],
        f"{prefix}_first_step_time": worker.about["first"],
    }
