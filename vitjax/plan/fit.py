"""`vitjax plan --fit`: the fastest mesh, rematerialisation and accumulation that fit."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from vitjax.models import model_options
from vitjax.plan.plan import Plan
from vitjax.plan.topology import Topology
from vitjax.train.defaults import RunConfig

Flags = dict[str, Any]


def meshes(devices: int) -> list[Flags]:
    """List meshes: data parallel, parameters split within parts of the devices, split over all."""
    part = 2 ** round(math.log2(devices) / 2)
    sizes = sorted({1, part, devices})
    return [{"mesh.data": devices // n, "mesh.fsdp": n, "mesh.tensor": 1} for n in sizes]


def ladder(batch: int, devices: int, remat: bool) -> Iterator[Flags]:
    """Yield flags that save memory, the cheapest first.

    Accumulating costs another pass over the parameters for each part, recomputing the blocks a
    third more work.
    """
    parts = [n for n in (1, 2, 4, 8, 16) if batch % (devices * n) == 0]
    for recompute in (False, True) if remat else (False,):
        for n in parts:
            flags: Flags = {"optimizer.accumulate": n}
            yield {**flags, "model.remat": recompute} if remat else flags


def fit(
    plan: Callable[[Flags], Plan], batch: int, devices: int, remat: bool
) -> list[tuple[Flags, Plan]]:
    """Compile combinations of flags; for each mesh, the ladder ends at the first that fits.

    Args:
      plan: flags → the plan with them.
      remat: the model can recompute its blocks.

    Returns:
      (flags, plan) of all that were compiled, the fastest that fits first, misfits last.
    """
    tried = []
    for mesh in meshes(devices):
        least = 1
        for rung in ladder(batch, devices, remat):
            if rung["optimizer.accumulate"] < least and not rung.get("model.remat"):
                continue
            flags = {**mesh, **rung}
            result = plan(flags)
            tried.append((flags, result))
            if result.fits:
                break
            asked, there = result.compiled.overflow or (0.0, 1.0)
            fixed = sum(result.state.values())
            if fixed >= there:
                break  # the state alone is too large: only another mesh helps
            # All but the state shrinks with the number of parts.
            least = math.ceil(rung["optimizer.accumulate"] * (asked - fixed) / (there - fixed))

    def order(found: tuple[Flags, Plan]) -> float:
        e = found[1].compiled.estimate
        return e.seconds if found[1].fits and e else math.inf

    return sorted(tried, key=order)


def search(
    config: RunConfig, topology: Topology, plan: Callable[[dict[str, str]], Plan]
) -> tuple[Any, str]:
    """Find the fastest flags that fit; return them, their plan, and a report of what was tried.

    The report is what `--fit` prints.

    Args:
      plan: fields of the config, as text → the plan with them.

    Raises:
      ValueError: nothing fits.
    """
    remat = "remat" in model_options(config.model["name"])
    tried = fit(
        lambda flags: plan({key: str(value) for key, value in flags.items()}),
        config.data.batch_size,
        len(topology.devices),
        remat,
    )
    best_flags, best = tried[0]
    lines = []
    for flags, result in tried:
        e = result.compiled.estimate
        asked, there = result.compiled.overflow or (0.0, 0.0)
        verdict = f"{(asked - there) / 1e9:.1f} GB too much" if asked else "fits"
        verdict = f"{e.seconds * 1e3:,.1f} ms (estimate)" if e else verdict
        lines.append(f"  {words(flags)}: {verdict}")
    if not best.fits:
        raise ValueError(
            f"Nothing that was tried fits on {topology.name}; take a larger slice or a smaller "
            "batch. Tried:\n" + "\n".join(lines)
        )
    result = {
        "flags": best_flags,
        "plan": best.to_dict(),
        "tried": [
            {
                "flags": flags,
                "fits": r.fits,
                "seconds": e.seconds if (e := r.compiled.estimate) else None,
            }
            for flags, r in tried
        ],
    }
    text = "\n".join([best.report(), "", "tried", *lines, "", "flags", "  " + words(best_flags)])
    return result, text


def words(flags: Flags) -> str:
    """Format flags as on the command line."""
    return " ".join(f"--config.{key}={value}" for key, value in flags.items())
