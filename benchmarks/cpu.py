"""Measure how fast models run and train on this CPU, beside timm on PyTorch and ONNX Runtime.

  python benchmarks/cpu.py                         # prints the table of docs/performance.md
  --models=deit_tiny,swin_tiny --directions=forward,train --contestants=vitjax,timm
  --models=segformer_b0 --directions=dense --contestants=vitjax,transformers
  --rounds=5 --json=FILE
  --profile=swin_tiny:train                        # instead: operations by their time, as text

Each contestant is a separate process. Those of a row take turns, one step each, so that other load
on the machine affects all alike. A ratio is the median over rounds of a contestant's time over
ours; above 1 we are faster. If other programs already use the processors, only times are printed,
and no ratios. "dense" is a training step of segmentation at 512 pixels, or of restoration at 128,
two images. `torch`, `timm` and `onnxruntime` may be in another environment (`--torch-python=PATH`).
Needs the extra `torch`, timm, and onnx and onnxruntime for their column.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time
from typing import Any

from cpu_worker import DENSE

from vitjax.tools.bench.contest import (
    HERE,
    Contestant,
    ContestantError,
    Worker,
    is_busy,
    take_turns,
)
from vitjax.tools.bench.measure import name_in_timm

MODELS = ("deit_tiny", "vit_s16", "swin_tiny", "pvt_v2_b2", "volo_d1")
BATCH = {"forward": 8, "train": 16, "dense": 2}


def contestant(name: str, direction: str, model: str, python: str) -> Contestant | None:
    """Find what a contestant's process runs; None where it does not have the direction."""
    ours, side = direction in ("forward", "train"), DENSE.get(model, 224)
    given: dict[str, Any] = {"model": model, "batch": BATCH[direction]}
    if name == "vitjax":
        given |= {"size": side, "dtype": "float32"}
        return Contestant(HERE / "ours.py", "train" if direction == "dense" else direction, given)
    if name in ("timm", "compiled") and ours and (name == "timm" or direction == "forward"):
        given |= {"model": name_in_timm(model), "size": side, "dtype": "float32"}
        given |= {"device": "cpu", "compiled": name == "compiled"}
        return Contestant(HERE / "rivals.py", direction, given, python, "")
    own = pathlib.Path(__file__).parent / "cpu_worker.py"
    if name == "onnx" and direction == "forward":
        given["model"] = name_in_timm(model)
        return Contestant(own, "onnx_forward", given, python, "")
    if name == "transformers" and direction == "dense":
        return Contestant(own, "transformers_train", given, python, "")
    return None


def row(model: str, direction: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one model in one direction: median seconds, ratios to ours, time to first step."""
    workers: dict[str, Worker] = {}
    failed: dict[str, str] = {}
    for name in args.contestants:
        found = contestant(name, direction, model, args.torch_python)
        if found is None:
            continue
        try:
            workers[name] = Worker(found, {"JAX_PLATFORMS": "cpu"})
        except ContestantError as error:
            failed[name] = str(error)
            print(f"{model} {direction}: {name} does not run: {error}", file=sys.stderr)
    take_turns(list(workers.values()), args.rounds, 0.0)
    for worker in workers.values():
        worker.close()
    ours = workers["vitjax"].times if "vitjax" in workers else None
    return {
        "model": model,
        "direction": direction,
        "seconds": {n: statistics.median(w.times) for n, w in workers.items()},
        "first_step": {n: w.about["first"] for n, w in workers.items()},
        "versions": {n: w.about["version"] for n, w in workers.items()},
        "failed": failed,
        "ratios": ours
        and {
            n: statistics.median(theirs / own for theirs, own in zip(w.times, ours))
            for n, w in workers.items()
            if n != "vitjax"
        },
    }


def table(rows: list[dict[str, Any]], contestants: list[str], quiet: bool) -> str:
    """Format a Markdown table: our time in ms, ratios of the others, seconds to the first step."""
    others = [c for c in contestants if c != "vitjax"]
    head = ["model", "direction", "ours (ms)", *others, "first step: ours (s)", "timm (s)"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for r in rows:
        cells = [r["model"], r["direction"], f"{1e3 * r['seconds'].get('vitjax', 0):,.0f}"]
        for other in others:
            seconds, ratio = r["seconds"].get(other), (r["ratios"] or {}).get(other)
            shown = "" if seconds is None else f"{1e3 * seconds:,.0f} ms"
            cells.append(f"{ratio:.2f} ({shown})" if quiet and ratio else shown)
        cells += [
            f"{r['first_step'][n]:.1f}" if n in r["first_step"] else "" for n in ("vitjax", "timm")
        ]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def profile(model: str, direction: str, rows: int = 30) -> str:
    """Profile a step, and format its time by place in the model and by compiled operation.

    A place is the operation's path without the numbers of layers. A fused operation is at the place
    of its root.
    """
    import jax

    from vitjax.tools.bench import ours

    build = ours.forward_step if direction == "forward" else ours.train_step
    once, program, _ = build(model, BATCH[direction], DENSE.get(model, 224), "float32")
    ours.repeat(once, 1)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            ours.repeat(once, 3)
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    named = re.findall(r"%(\S+) = .*op_name=\"([^\"]*)\"", program.as_text())
    paths = {name: re.sub(r"jit\(\w+\)/|_\d+|\d+", "", path) for name, path in named}
    places, operations = collections.Counter(), collections.Counter()
    for event in (e for plane in data.planes for line in plane.lines for e in line.events):
        if "hlo_op" in dict(event.stats):
            ms = event.duration_ns / 3e6
            places[paths.get(event.name, "?"), re.sub(r"[.\d]+$", "", event.name)] += ms
            operations[event.name] += ms
    total = sum(operations.values())
    lines = [f"{total:,.1f} ms of processor time a step, in {len(operations)} operations"]
    lines += [
        f"{ms:9.2f} ms {ms / total:6.1%}  {place}  ({kind})"
        for (place, kind), ms in places.most_common(rows)
    ]
    lines += [
        f"{ms:9.2f} ms {ms / total:6.1%}  {name}  {paths.get(name, '')}"
        for name, ms in operations.most_common(rows // 2)
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the table, or the profile."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--directions", default="forward,train")
    parser.add_argument("--contestants", default="vitjax,timm,compiled,onnx")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--profile")
    args = parser.parse_args()
    if args.profile:
        model, _, direction = args.profile.partition(":")
        print(profile(model, direction or "train"))
        return 0
    args.contestants = args.contestants.split(",")
    if busy := is_busy():
        print(
            f"{busy[0].upper()}{busy[1:]}. Ratios would mislead; times follow without them. Wait "
            "until it is quiet.",
            file=sys.stderr,
        )
    rows, begin = [], time.perf_counter()
    pairs = [(m, d) for m in args.models.split(",") for d in args.directions.split(",")]
    for model, direction in pairs:
        if direction == "dense" and model not in DENSE:
            parser.error(f"dense has the models {', '.join(DENSE)}, and not {model}.")
    for i, (model, direction) in enumerate(pairs):
        rows.append(row(model, direction, args))
        left = (time.perf_counter() - begin) / (i + 1) * (len(pairs) - i - 1)
        print(f"{model} {direction}: {rows[-1]['seconds']}, ETA {left:.0f} s", file=sys.stderr)
    print(table(rows, args.contestants, quiet=not busy))
    versions = sorted({v for r in rows for v in r["versions"].values()})
    print(f"\n{os.cpu_count()} cores, Python {sys.version.split()[0]}, {', '.join(versions)}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
