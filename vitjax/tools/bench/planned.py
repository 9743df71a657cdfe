"""Rows of `vitjax bench --topology`: the compiler's estimates, for devices that are not there."""

from typing import Any

import jax

from vitjax.abstract import abstract_init
from vitjax.analysis.cost import trace
from vitjax.plan.plan import compile_step, make_plan
from vitjax.plan.topology import PRESENT, Topology
from vitjax.tools.bench import ours
from vitjax.tools.bench.measure import BATCH, OPERATIONS, PREFIX, Row, Settings, side_of
from vitjax.train import sharding
from vitjax.train.compiler import compiler_options


def planned(model: str, settings: Settings, topology: Topology) -> Row:
    """Compile the steps of a model for a topology, and estimate what a row measures elsewhere.

    Times are None where the compiler's figures say nothing of them, or the step does not fit.
    """
    devices = len(topology.devices)
    batch = settings.batch or BATCH * devices
    dtype, size = settings.dtype or "bfloat16", side_of(model, settings.size)
    parameters, macs, _ = trace(ours.build(model, size, dtype), (1, size, size, 3))
    row: Row = {
        "model": model,
        "figures": "planned",
        "param_count": parameters / 1e6,
        "infer_gmacs": macs / 1e9,
        "dtype": dtype,
        "device": topology.name if topology.name in PRESENT else f"{topology.name}, not there",
        "versions": f"jax {jax.__version__}",
    }
    notes = []
    for direction in settings.directions:
        if direction == "train":
            config = ours.recipe(model, batch, size, dtype)
            classes = ours.CLASSES[getattr(ours.build(model, size, dtype), "output", "classes")]
            compiled = make_plan(config, topology, classes=classes).compiled
        else:
            compiled = _forward(model, batch, size, dtype, topology)
        p, e, chip = PREFIX[direction], compiled.estimate, topology.chip
        row |= {
            f"{p}_batch_size": batch,
            f"{p}_img_size": size,
            f"{p}_planned_memory": compiled.memory.get("total"),
            f"{p}_compile_time": compiled.seconds,
        }
        if compiled.overflow:
            asked, there = compiled.overflow
            notes.append(f"{p}: does not fit, {asked / 1e9:.1f} of {there / 1e9:.1f} GB")
        elif e and chip:
            work = OPERATIONS[direction] * macs * batch
            low, high = e.range or (None, None)
            row |= {
                f"{p}_samples_per_sec": batch / e.seconds,
                f"{p}_step_time": 1e3 * e.seconds,
                f"{p}_step_time_min": low and 1e3 * low,
                f"{p}_step_time_max": high and 1e3 * high,
                f"{p}_mfu": work / (e.seconds * chip.flops * topology.chips),
                "peak_flops": chip.flops * topology.share,
                "peak_source": chip.source,
            }
            notes.append(e.what)
    return {**row, "notes": "; ".join(dict.fromkeys(notes))}


def _forward(model: str, batch: int, size: int, dtype: str, topology: Topology) -> Any:
    """Compile the forward pass, the images split over all devices."""
    mesh = sharding.make_mesh(devices=topology.devices)
    module = ours.build(model, size, dtype)
    one = jax.ShapeDtypeStruct((1, size, size, 3), dtype)
    whole, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    variables = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=whole),
        abstract_init(module.init, jax.random.key(0), one),
    )
    images = jax.ShapeDtypeStruct((batch, size, size, 3), dtype, sharding=split)
    apply = jax.jit(module.apply, compiler_options=compiler_options(topology.devices))
    lowered = apply.lower(variables, images)
    return compile_step(lowered, topology, dict(mesh.shape), cache=True)
