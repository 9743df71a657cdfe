"""Report of a plan for people."""

from typing import TYPE_CHECKING, Any

from vitjax.console import format_bytes, table
from vitjax.plan.kernels import describe
from vitjax.train.defaults import RunConfig

if TYPE_CHECKING:
    from vitjax.plan.plan import Plan


def report(plan: "Plan") -> str:
    """Format a table, and remedies if the step does not fit."""
    r, c, t = plan.to_dict(), plan.compiled, plan.topology
    m = r["memory"]
    mesh = " × ".join(f"{k} {n}" for k, n in plan.mesh.items() if n > 1) or "one device"
    ema = f", EMA {format_bytes(m['ema'])}" if m["ema"] else ""
    chips = (
        f"{t.chips} GPU{'s' * (t.chips > 1)}"
        if t.gpus
        else f"{t.chips} chips, {len(t.devices)} devices"
    )
    rows = [
        ("model", f"{r['model']}, {plan.config.model['dtype']}, batch {r['batch_size']:,}"),
        ("topology", f"{t.name}: {chips}; mesh {mesh}"),
        ("parameters", f"{format_bytes(m['parameters'])} a device"),
        ("optimizer", format_bytes(m["optimizer"]) + ema),
    ]
    if c.overflow:
        asked, there = c.overflow
        free = f", {t.margin:.0%} being left free" if t.margin else ""
        rows += [
            (
                "does not fit",
                f"needs {format_bytes(asked)} of {format_bytes(there)}{free}: "
                f"{format_bytes(asked - there)} too much",
            ),
            ("would help", "; ".join(remedies(plan.config, len(t.devices)))),
        ]
    else:
        rows += [*_memory(plan, m), *_kernels(plan), *_time(plan, r)]
        rows.append(("compiled in", f"{c.seconds:,.0f} s, when it was first compiled"))
    return table(rows + [("note", note) for note in _notes(plan)])


def _memory(plan: "Plan", m: dict[str, Any]) -> list[tuple[str, str]]:
    """Format the memory of a device."""
    t = plan.topology
    room = f" of {format_bytes(t.capacity)}" if t.capacity else ""
    free = f"; {t.margin:.0%} are left free" if t.margin else ""
    return [
        ("activations", f"{format_bytes(m['temporaries'])} with gradients and other temporaries"),
        ("in all", f"{format_bytes(m['total'])}{room} a device{free}"),
    ]


def _kernels(plan: "Plan") -> list[tuple[str, str]]:
    """Format collectives, and the kernels of GPUs."""
    rows = []
    for x in plan.compiled.collectives:
        axes = " × ".join(x.axes) or "no axis of the mesh"
        size = format_bytes(x.bytes)
        rows.append((x.kind, f"{x.count} over {axes}, {size} a device and step"))
    for place, found in (plan.compiled.kernels or {}).items():
        rows.append(("attention" if place == "attention" else "the rest", describe(found)))
    return rows


def _time(plan: "Plan", r: dict[str, Any]) -> list[tuple[str, str]]:
    """Format the estimated time of a step and of the run, with the calibrated range if any."""
    e = plan.compiled.estimate
    if e is None:
        return []
    rates, mfu, hours = r["images_per_second"], r["mfu"], r["hours"]
    days, unit = r["core_days"], "GPU-days" if plan.topology.gpus else "core-days"
    rows = [
        ("work", f"{e.flops / 1e9:,.0f} GFLOP and {format_bytes(e.bytes)} a device and step"),
        (
            "step, roofline" if e.roofline else "step, estimate",
            f"{e.seconds * 1e3:,.1f} ms, of which {e.communication * 1e3:,.1f} on the "
            f"links; {e.compute_bound / e.seconds:.0%} of the time at peak FLOP/s, "
            f"{e.memory_bound / e.seconds:.0%} at peak bandwidth",
        ),
    ]
    if e.range is None:
        return [
            *rows,
            ("images a second", f"at most {rates[0]:,.0f}"),
            ("MFU", f"at most {mfu[0]:.0%}"),
            (f"{plan.steps:,} steps", f"at least {hours[0]:,.1f} hours, {days[0]:,.2f} {unit}"),
        ]
    low, high = e.range
    return [
        *rows,
        ("step, calibrated", f"{low * 1e3:,.1f} to {high * 1e3:,.1f} ms"),
        ("images a second", f"{rates[2]:,.0f} to {rates[1]:,.0f} (estimate {rates[0]:,.0f})"),
        ("MFU", f"{mfu[2]:.0%} to {mfu[1]:.0%} (estimate {mfu[0]:.0%})"),
        (
            f"{plan.steps:,} steps",
            f"{hours[1]:,.1f} to {hours[2]:,.1f} hours, {days[1]:,.2f} to {days[2]:,.2f} {unit}",
        ),
    ]


def _notes(plan: "Plan") -> list[str]:
    """List what a reader should know of the numbers."""
    notes, e = [], plan.compiled.estimate
    if plan.effort:
        notes.append(f"compiled with effort {plan.effort}: the real step differs")
    if plan.topology.margin:
        notes.append(
            "compiled without a GPU: cuDNN's workspaces and refusals are not known, and no kernel "
            "was chosen by timing it"
        )
    if e and not plan.compiled.overflow:
        notes.append(
            e.what if e.roofline else f"{e.what}; the range is that of published TPU v3 runs"
        )
    return notes


def remedies(config: RunConfig, devices: int) -> list[str]:
    """List flags that save memory, those that cost least first."""
    found, o, d = [], config.optimizer, config.data
    if not config.model.get("remat"):
        found.append("--config.model.remat=True (recompute blocks in the backward pass)")
    parts = 2 * o.accumulate
    if d.batch_size % (devices * parts) == 0:
        found.append(f"--config.optimizer.accumulate={parts} (the batch in {parts} parts)")
    if config.mesh.fsdp == 1 and devices > 1:
        found.append("--config.mesh.data=1 --config.mesh.fsdp=-1 (parameters and moments split)")
    if o.mu_dtype == "float32":
        found.append("--config.optimizer.mu_dtype=bfloat16")
    if config.model["dtype"] == "float32":
        found.append("--config.model.dtype=bfloat16")
    return [*found, "more devices, or --fit to search"]
