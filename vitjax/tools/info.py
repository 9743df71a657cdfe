"""Cost of a model, layer by layer, and progress of a run."""

import pathlib
from typing import Any

from vitjax.analysis.cost import count, layers
from vitjax.console import show, table
from vitjax.layers.maps import by_sides
from vitjax.models import create_model, model_options, preprocessing_of
from vitjax.models.protocols import input_shape
from vitjax.runs import open_run
from vitjax.train.goodput import describe, spent
from vitjax.train.report import read_metrics
from vitjax.train.state import sha256


def model_info(
    name: str, image_size: int | tuple[int, int] = 0, depth: int = 2, channels: int = 3
) -> tuple[Any, str]:
    """Count a model's parameters and operations.

    Args:
      image_size: pixels per side, or rows and columns; 0 for the model's own.
      depth: levels of layers.
      channels: of the image.

    Returns:
      JSON, and a table.
    """
    options = model_options(name)
    size = image_size or options.get("image_size") or 224
    taken: dict[str, Any] = {"image_size": size} if "image_size" in options else {}
    model: Any = create_model(name, **taken)
    height, width = (size, size) if isinstance(size, int) else size
    shape = input_shape(model, size, channels)
    cost, rows = count(model, shape), layers(model, shape, depth)
    shown = preprocessing_of(name)
    result = {
        "model": name,
        "image_size": [height, width],
        "channels": channels,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "flops": cost.flops,
        "preprocessing": shown._asdict(),
        "layers": [row._asdict() for row in rows],
    }
    head = {
        "model": name,
        "image": by_sides(shape[1:-1]) + (f", channels: {channels}" if channels != 3 else ""),
        "parameters": f"{cost.parameters:,}",
        "multiply-adds": f"{cost.macs / 1e9:,.3f} G (convolutions and matrix products)",
        "FLOPs": f"{cost.flops / 1e9:,.3f} G (compiled forward pass)",
        "published for": f"{shown} ({shown.source})",
    }
    wide = max(len(row.path) for row in rows)
    body = [f"  {r.path:<{wide}}  {r.kind:<20} {r.shape:>18} {r.parameters:>13,}" for r in rows]
    title = f"  {'layer':<{wide}}  {'kind':<20} {'output':>18} {'parameters':>13}"
    return result, "\n".join([table(head.items()), "", title, *body])


def run_info(workdir: pathlib.Path) -> tuple[Any, str]:
    """Report how far a run has come.

    Returns:
      JSON, and a table.
    """
    run = open_run(workdir)
    step, variables = run.checkpoints.read()
    best = run.checkpoints.best()
    seconds = spent(read_metrics(workdir / "metrics.jsonl"))
    result = {
        "workdir": str(workdir),
        "model": run.config.model["name"],
        "step": step,
        "metrics": run.checkpoints.metrics(step),
        "best": {"step": best[0], **best[1]} if best else None,
        "sha256": sha256(variables["params"]),
        "checkpoints": run.checkpoints.steps(),
        "seconds": seconds,
    }
    rows = {
        "model": result["model"],
        "step": str(step),
        "measured there": show(result["metrics"]) or "nothing",
        "best": f"step {best[0]}  {show(best[1])}" if best else "nothing evaluated yet",
        "SHA-256": result["sha256"],
        "checkpoints": ", ".join(map(str, result["checkpoints"])),
        "goodput": describe(seconds) or "unknown",
    }
    return result, table(rows.items())
