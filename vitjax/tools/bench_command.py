"""The command `vitjax bench`."""

import argparse
import os
import pathlib
import sys
import time
from typing import Any

from vitjax.tools.commands import say


def bench(options: argparse.Namespace) -> tuple[Any, str]:
    """Measure how fast models run and train here: time, MFU, memory, and timm beside them.

      vitjax bench vit_s16                          the forward pass
      vitjax bench 'swin_*' --train --csv swin.csv  the training step too, as a table of rows
      vitjax bench vit_s16 "vit_s16(depth=6)"       what half of the blocks costs
      vitjax bench vit_b16 --train --against timm   PyTorch beside it, eager and compiled
      vitjax bench vit_b16 --train --topology v5e:2x2   the compiler's estimate for TPUs

    Columns have timm's names: infer_samples_per_sec, infer_step_time (ms), train_…, param_count
    (M), infer_gmacs. A time is the median of turns, each of as many steps as take --seconds; min
    and max of them stand beside it. Memory is in bytes: the peak of the device's allocator and what
    it holds after, on a CPU those of the process; planned_memory is what the compiler asks for.

    MFU is 2 operations for each multiply-add of the forward pass (6 for training) over the bfloat16
    peak of the device, which is printed with its source; of a CPU no peak is known. Where memory is
    short the batch is halved, and it is said. A loss that is no number is refused.
    A model that does not run costs its own row, and the exit code is then 2.

    Each model is measured in a process of its own, on one device. With --against timm the
    contestants take turns, and a ratio is theirs over ours pair by pair: above 1 we are faster.
    """
    from vitjax.plan.gpus import load_compiler, parse_gpus

    o = options
    if o.topology:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a described device is not to be looked for
        if parse_gpus(o.topology):
            load_compiler()
    from vitjax.tools.bench.measure import RIVALS, Settings, check_rivals

    if o.repeats < 5:
        raise ValueError(f"--repeats={o.repeats}: a median and a spread need 5 turns or more.")
    directions = [d for d, on in (("forward", not o.no_infer), ("train", o.train)) if on]
    if not directions:
        raise ValueError("--no-infer without --train leaves nothing to measure; add --train.")
    if o.topology and o.against:
        raise ValueError("--against measures, and --topology estimates; give one of them.")
    if o.against:
        check_rivals(o.torch_python)
    settings = Settings(
        directions, o.batch_size, o.image_size, o.dtype, o.repeats, o.seconds,
        tuple(RIVALS) if o.against else (), o.torch_python,
    )  # fmt: skip
    rows, text = _rows(_models(o.models), settings, o.topology, o.csv)
    o.code = 2 if any(row["figures"] == "failed" for row in rows) else 0
    return rows, text


def _models(patterns: list[str]) -> list[str]:
    """List the models that match patterns or names, each once."""
    from vitjax.models import list_models, model_spec
    from vitjax.tools.bench.measure import split_options

    found: dict[str, None] = {}
    for pattern in patterns:
        if "(" in pattern:  # a name with options
            model_spec(split_options(pattern)[0])
            found[pattern] = None
            continue
        names = list_models(pattern)
        if not names:
            model_spec(pattern)  # another library's name, or a ViT of any patch size; or an error
        found |= dict.fromkeys(names or [pattern])
    return list(found)


def _rows(models: list[str], settings: Any, topology: str, csv: pathlib.Path | None) -> Any:
    """Measure or plan the models, and tell each row when it is there."""
    from vitjax.console import clock
    from vitjax.tools.bench.measure import measure
    from vitjax.tools.bench.report import report, write_csv

    if topology:
        from vitjax.plan.topology import open_topology
        from vitjax.tools.bench.planned import planned

        there = open_topology(topology)
        found = (planned(model, settings, there) for model in models)
    else:
        found = measure(models, settings, say)
    rows, begin = [], time.perf_counter()
    for row in found:
        rows.append(row)
        left = (time.perf_counter() - begin) / len(rows) * (len(models) - len(rows))
        if left:
            say(f"{len(rows)} of {len(models)}: {row['model']}; ETA {clock(left)}")
        if csv:
            write_csv(csv, rows)
    return rows, report(rows)


def bench_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `bench`."""
    add = sub.add_argument
    add(
        "models",
        nargs="+",
        metavar="MODEL",
        help="names of `vitjax list`, or patterns such as 'vit_*16' (quote them)",
    )
    add("--train", action="store_true", help="measure the training step too")
    add("--no-infer", action="store_true", help="leave the forward pass out")
    add("--batch-size", type=int, default=0, metavar="N", help="images of a step (256; on CPUs 8)")
    add("--image-size", type=int, default=0, metavar="PX", help="their side (the model's own)")
    add("--dtype", choices=("bfloat16", "float32"), default="", help="(bfloat16; on CPUs float32)")
    add("--repeats", type=int, default=5, metavar="N", help="turns, 5 or more (5)")
    add("--seconds", type=float, default=0.5, help="the least that a turn takes (0.5)")
    add(
        "--against",
        choices=("timm",),
        help="run timm's model on PyTorch in turn: needs timm and the extra torch",
    )
    add(
        "--torch-python",
        default=sys.executable,
        metavar="PATH",
        help="the Python that has them (this one)",
    )
    add("--topology", default="", metavar="NAME", help="devices that are not there, as `vitjax "
        "plan` takes them: estimates instead of measurements")  # fmt: skip
    add("--csv", type=pathlib.Path, metavar="FILE", help="write the rows, after each model")
