"""`vitjax plan`: what a config will need on a topology: memory, collectives, time, core-days."""

import hashlib
import json
import os
import pathlib
import re
import time
from importlib import metadata
from typing import Any, NamedTuple

from vitjax.data.known import KNOWN, known_size
from vitjax.data.source import DataInfo
from vitjax.folders import cache_folder
from vitjax.plan import estimate as estimates
from vitjax.plan.collectives import Collective, collectives
from vitjax.plan.hlo import parse
from vitjax.plan.kernels import kernels
from vitjax.plan.report import report
from vitjax.plan.topology import Topology
from vitjax.train.compiler import compiler_options
from vitjax.train.defaults import RunConfig

EFFORTS = (
    "jax_exec_time_optimization_effort",
    "jax_memory_fitting_effort",
    "jax_optimization_level",
    "jax_memory_fitting_level",
)
"""Settings of the compiler's effort; jax 0.12 has levels alone."""


def effort_setting() -> tuple[str, float | str]:
    """Return the name of jax's setting of effort for a fast program, and that of a quick plan."""
    import jax

    return (EFFORTS[0], -1.0) if hasattr(jax.config, EFFORTS[0]) else (EFFORTS[2], "O1")


class Compiled(NamedTuple):
    """Results read off a compiled step, or the reason why there are none.

    Attributes:
      memory: bytes of a device: arguments, temporaries, and the rest of `memory_analysis()`.
      estimate: None where the chip's figures are not known.
      seconds: that compiling took (when it was first compiled).
      overflow: bytes asked for and bytes there, if it does not fit.
      kernels: of a step for GPUs, see `vitjax.plan.kernels`.
    """

    memory: dict[str, int]
    collectives: list[Collective]
    estimate: estimates.Estimate | None
    seconds: float
    overflow: tuple[float, float] | None = None
    kernels: dict[str, dict[str, int]] | None = None


class Plan(NamedTuple):
    """Needs of a run; `report()` for people, `to_dict()` for programs.

    Attributes:
      effort: of the compiler for a fast program, from -1 to 1 or a level; None is its own.
    """

    config: RunConfig
    topology: Topology
    mesh: dict[str, int]
    state: dict[str, int]
    compiled: Compiled
    steps: int
    macs: int
    effort: float | str | None = None

    @property
    def fits(self) -> bool:
        return self.compiled.overflow is None

    def to_dict(self) -> dict[str, Any]:
        """Convert the plan to a dict, in bytes and seconds."""
        c, t, d = self.compiled, self.topology, self.config.data
        result: dict[str, Any] = {
            "model": self.config.model["name"],
            "topology": t.name,
            "devices": len(t.devices),
            "chips": t.chips,
            "cores": t.cores,
            "mesh": self.mesh,
            "batch_size": d.batch_size,
            "steps": self.steps,
            "fits": self.fits,
            "compile_seconds": c.seconds,
            "compiler_effort": self.effort,
            "memory": {**self.state, **c.memory, "capacity": t.capacity, "left_free": t.margin},
            "collectives": [x._asdict() for x in c.collectives],
        }
        if c.overflow:
            result["overflow"] = {"asked": c.overflow[0], "there": c.overflow[1]}
        if c.kernels is not None:
            result["kernels"] = c.kernels
        if e := c.estimate:
            each = [e.seconds, *(e.range or ())]
            whole = [seconds * self.steps for seconds in each]
            result |= {
                "estimate": {
                    **e._asdict(),
                    "seconds": e.seconds,
                    "calibrated_seconds": e.range,
                    "what": e.what,
                },
                "images_per_second": [d.batch_size / s for s in each],
                "mfu": [self.mfu(s) for s in each],
                "hours": [s / 3600 for s in whole],
                "core_days": [s / 86400 * t.cores for s in whole],
            }
        return result

    def mfu(self, seconds: float) -> float:
        """Compute model FLOPs (six per multiply-add of the forward pass) over the chips' peak."""
        chip = self.topology.chip
        assert chip is not None
        work = 6 * self.macs * self.config.data.batch_size
        return work / (seconds * chip.flops * self.topology.chips)

    def report(self) -> str:
        """Format a table, and remedies if the step does not fit."""
        return report(self)


def make_plan(
    config: RunConfig,
    topology: Topology,
    *,
    images: int = 0,
    classes: int = 0,
    cache: bool = True,
    quick: bool = False,
) -> Plan:
    """Compile a config's training step for a topology and read the result.

    Args:
      images, classes: of the training data, if its name does not tell.
      cache: keep and reuse what was read off a step that was compiled before.
      quick: compile with the least effort for a fast program. Without it the effort is that of
        jax's own setting, which `train.py` compiles with too.
    """
    import jax

    from vitjax.analysis.cost import per_sample
    from vitjax.tasks import task_from_config
    from vitjax.train import sharding
    from vitjax.train.config import check_batches, count_steps
    from vitjax.train.program import compile_program

    images, classes = known_data(config, images, classes)
    steps = count_steps(config, images)
    mesh = sharding.make_mesh(config.mesh, topology.devices)
    check_batches(config, mesh.shape["data"] * mesh.shape["fsdp"])
    # Plans suppose one class an image; the weights for each of several are little of a batch.
    info = DataInfo(tuple(map(str, range(classes))), "")
    task = task_from_config(config, info, abstract=True)
    program = compile_program(config, task, mesh, steps)

    macs = per_sample(task.forward, program.state, program.batch_spec, program.key)
    state = {
        "parameters": _shard_bytes(program.state.params),
        "optimizer": _shard_bytes(program.state.opt_state),
        "ema": _shard_bytes((program.state.ema, program.state.ema_collections)),
        "other_state": _shard_bytes((program.state.collections, program.state.frozen)),
    }
    lowered = program.train_step.lower(program.state, program.batch_spec, program.key)
    axes = dict(mesh.shape)
    settings: Any = jax.config  # its fields are made when it is imported
    name, least = effort_setting()
    before = getattr(settings, name)
    effort = least if quick else before
    settings.update(name, effort)
    try:
        compiled = compile_step(lowered, topology, axes, cache, sum(state.values()))
    finally:
        settings.update(name, before)
    own = None if effort in (0, "UNKNOWN") else effort
    return Plan(config, topology, axes, state, compiled, steps, macs, own)


def known_data(config: RunConfig, images: int, classes: int) -> tuple[int, int]:
    """Find the numbers of training images and classes: as given, or by the data's name.

    Raises:
      ValueError: neither.
    """
    from vitjax.tasks import has_classes

    found = known_size(config.data.train)
    images, classes = images or found[0], classes or found[1]
    if not has_classes(config.task):
        classes = 0
    if (not classes and has_classes(config.task)) or not (images or config.steps):
        raise ValueError(
            f"How large is config.data.train={config.data.train!r}? A plan does not open the data: "
            f"give --images=N and --classes=N. Known by name: {', '.join(KNOWN)}."
        )
    return images, classes


OVERFLOWS = (  # how libtpu says that a program does not fit: bytes asked for, bytes there
    re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
    re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
)


def read_overflow(message: str, arguments: int) -> tuple[float, float] | None:
    """Parse bytes requested and available from the compiler's error; None for another error.

    Args:
      arguments: bytes of the step's, for a message that tells of its temporaries alone.
    """
    found = next((m for pattern in OVERFLOWS if (m := pattern.search(message))), None)
    if found is None:
        return None
    asked, there = (float(found[k]) * _unit(found[k + 1]) for k in (1, 3))
    return asked + arguments * ("required for HLO temporaries" in message), there


def compile_step(
    lowered: Any, topology: Topology, mesh: dict[str, int], cache: bool, arguments: int = 0
) -> Compiled:
    """Compile the step, or load what was read when the same program was compiled before."""
    path = _cache_file(lowered, topology, mesh)
    if cache and path.is_file():
        return _from_json(json.loads(path.read_text()))
    begin = time.perf_counter()
    try:
        executable = lowered.compile(compiler_options=topology.options)
    except Exception as error:  # the compiler's own kind, which is not public
        overflow = read_overflow(str(error), arguments)
        if overflow is None:
            raise
        result = Compiled({}, [], None, time.perf_counter() - begin, overflow)
    else:
        seconds, m = time.perf_counter() - begin, executable.memory_analysis()
        memory = {
            "arguments": int(m.argument_size_in_bytes),
            "temporaries": int(m.temp_size_in_bytes),
            "code": int(m.generated_code_size_in_bytes),
        }
        outputs = int(m.output_size_in_bytes - m.alias_size_in_bytes)
        memory["total"] = sum(memory.values()) + max(outputs, 0)
        program = parse(executable.as_text())
        found = collectives(program, mesh)
        cost = executable.cost_analysis() or {}
        guess = estimates.estimate(program, cost, found, topology)
        # XLA refuses to compile for TPUs what does not fit, and compiles anything for GPUs.
        room = (topology.capacity or 0.0) * (1 - topology.margin)
        misfit = topology.margin > 0 and memory["total"] > room
        overflow = (float(memory["total"]), room) if misfit else None
        own = kernels(program) if topology.gpus else None
        result = Compiled(memory, found, guess, seconds, overflow, own)
    if cache:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(result._asdict()))
        temporary.replace(path)
    return result


def _shard_bytes(tree: Any) -> int:
    """Count the bytes of a tree of arrays on one device."""
    import jax
    import numpy as np

    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
    )


def _cache_file(lowered: Any, topology: Topology, mesh: dict[str, int]) -> pathlib.Path:
    """Return the cache path, named by program, devices, compiler options and versions."""
    import jax

    versions = [metadata.version(name) for name in ("jax", "jaxlib")]
    if topology.devices[0].platform == "tpu":
        versions.append(metadata.version("libtpu"))
    elif topology.options is not None:
        versions += [d.version for d in metadata.distributions(name="jax-cuda12-plugin")]
    own = [p.read_bytes() for p in sorted(pathlib.Path(__file__).parent.glob("*.py"))]
    digest = hashlib.sha256(lowered.as_text().encode())
    # The program's text does not have them.
    settings: Any = jax.config
    efforts = [str(getattr(settings, name, None)) for name in EFFORTS]
    options = (compiler_options(topology.devices), topology.options, efforts)
    described = (topology.name, len(topology.devices), mesh, versions, options)
    for part in (repr(described).encode(), *own):
        digest.update(part)
    return cache_folder() / "vitjax" / "plan" / f"{digest.hexdigest()}.json"


def _from_json(found: dict[str, Any]) -> Compiled:
    found["collectives"] = [Collective(c[0], tuple(c[1]), *c[2:]) for c in found["collectives"]]
    if found["estimate"]:
        found["estimate"] = estimates.Estimate(*found["estimate"])
    if found["overflow"]:
        found["overflow"] = tuple(found["overflow"])
    return Compiled(**found)


def _unit(letter: str) -> float:
    return 1024.0 ** ("KMGT".index(letter) + 1) if letter else 1.0
