"""Trains a model: `python train.py --config=configs/digits.py --workdir=runs/digits`.

The same command goes on where an interrupted run stopped, and shows the result of a finished one.

  --config=FILE[:ARGUMENT]   the run, a Python file with `get_config()`; see configs/
  --config.FIELD=VALUE       replaces one field, e.g. --config.model.name=vit_s16
                             --config.schedule.learning_rate=3e-4 --config.data.train=photos/
  --workdir=FOLDER           where checkpoints, metrics and plots go
  --show                     prints the resolved config and leaves

A run that is stopped by SIGTERM or Ctrl-C saves its state and exits with 75.
"""

import json
import logging
import pathlib
import sys
import time
from typing import Any

STOPPED = 75  # EX_TEMPFAIL: start the same command again


def run(config: Any, workdir: pathlib.Path) -> int:
    """Trains as the config says; returns the exit code."""
    import jax

    from vitjax.analysis.cost import count
    from vitjax.data import open_source, pipeline
    from vitjax.data.augment import parse_augmentation
    from vitjax.models import from_config
    from vitjax.tasks import classification, distillation
    from vitjax.teacher import open_teacher
    from vitjax.train import config as configs
    from vitjax.train import loop, optimizer, report, sharding
    from vitjax.train.checkpoint import Checkpoints
    from vitjax.train.setup import make_setup

    begin = time.perf_counter()
    d = config.data
    configs.check_choice(config, "loss.name", classification.LOSSES)
    configs.check_choice(config, "distillation.kind", distillation.KINDS)
    configs.check_choice(config, "optimizer.name", optimizer.OPTIMIZERS)
    configs.check_choice(config, "schedule.name", optimizer.SCHEDULES)
    parse_augmentation(d.augment)
    configs.check_choice(config, "data.on_bad_image", pipeline.ON_BAD_IMAGE)
    configs.check_choice(config, "model.dtype", ("float32", "bfloat16"))
    configs.check_choice(config, "optimizer.mu_dtype", ("float32", "bfloat16"))

    # Mesh and data.
    mesh = sharding.make_mesh(config.mesh)
    configs.check_batches(config, sharding.batch_parts(mesh))
    train_source = open_source(d.train, d.train_split)
    test_source = open_source(d.test or d.train, d.test_split)
    steps = configs.count_steps(config, len(train_source))

    # Task: model, loss, metrics.
    names = train_source.class_names
    model = from_config(config.model.to_dict(), len(names), d.image_size)
    teacher = open_teacher(config.distillation.teacher, names)
    task = classification.from_config(config, model, len(names), teacher)

    # State: from the seed, or from the last checkpoint.
    setup = make_setup(config, task, mesh, steps)
    cost = count(model, (1, d.image_size, d.image_size, 3))
    configs.claim_workdir(config, workdir, names)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep, headline=task.headline)
    start, state = checkpoints.restore(setup.state) or (0, setup.init(jax.random.key(config.seed)))

    rate = f"{config.optimizer.name}, {config.schedule.name} from {config.schedule.learning_rate:g}"
    epochs = steps * d.batch_size / len(train_source)
    summary = {
        "model": f"{config.model.name}, {cost.parameters:,} parameters, {config.model.dtype}",
        "compute": f"{cost.flops / 1e6:,.1f} MFLOP per image, {cost.macs / 1e6:,.1f} M "
        "multiply-adds",
        "devices": f"{mesh.size} × {jax.devices()[0].device_kind}",
        "data": f"{d.train}: {len(train_source):,} training and {len(test_source):,} test images, "
        f"{len(names)} classes, {d.image_size}×{d.image_size} pixels",
        "schedule": f"{steps:,} steps of {d.batch_size} images ({epochs:.1f} epochs), {rate}",
        "folder": f"{workdir}" + (f", going on from step {start:,}" if start else ""),
    }
    print(report.table(summary.items()), flush=True)

    def evaluate(state: Any) -> dict[str, float]:
        batches = pipeline.eval_batches(
            test_source, batch_size=d.eval_batch_size, image_size=d.image_size, crop=d.eval_crop,
            interpolation=d.interpolation, num_threads=d.num_threads, on_bad_image=d.on_bad_image,
            max_bad_images=d.max_bad_images,
        )  # fmt: skip
        sums = [
            setup.eval_step(state, b)
            for b in sharding.to_devices(batches, setup.batch_sharding, d.eval_batch_size)
        ]
        sums = jax.device_get(sums)
        total = {name: float(sum(s[name] for s in sums)) for name in sums[0]}
        images = total.pop("count")
        return {name: value / max(images, 1.0) for name, value in total.items()} | {
            "images": images
        }

    stop = loop.StopRequest()
    seen = report.Report(workdir, start=start, steps=steps, batch_size=d.batch_size)
    if start < steps:
        host_batches = pipeline.train_batches(
            train_source, batch_size=d.batch_size, image_size=d.image_size, augment=d.augment,
            seed=config.seed, repeats=d.repeats, start_step=start, num_threads=d.num_threads,
            on_bad_image=d.on_bad_image, max_bad_images=d.max_bad_images,
        )  # fmt: skip
        with stop.listening():
            state = loop.train(
                state, start=start, steps=steps, step=setup.train_step,
                batches=sharding.to_devices(host_batches, setup.batch_sharding, d.batch_size),
                evaluate=evaluate, checkpoints=checkpoints, report=seen, stop=stop,
                log_every=config.log_every, eval_every=config.eval_every,
                checkpoint_every=config.checkpoint_every,
            )  # fmt: skip
    seen.close()
    checkpoints.close()
    if stop.signal and int(state.step) < steps:
        print(
            f"Stopped by {stop.signal} at step {int(state.step)} of {steps}, saved. The same "
            f"command goes on."
        )
        return STOPPED
    summarise(workdir, config, begin)
    return 0


def summarise(workdir: pathlib.Path, config: Any, begin: float) -> None:
    """Prints the results, draws the curves, and says how to use the model."""
    from vitjax.train.report import clock, plot_curves, read_metrics, show, table

    rows = read_metrics(workdir / "metrics.jsonl")
    tests = [r for r in rows if r["split"] == "test"]
    best = max(tests, key=lambda r: (r.get("top1", -r["loss"]), r["step"]))
    measured = {"step", "split", "images"}

    def line(row: dict[str, Any]) -> str:
        return f"step {row['step']}  {show({k: v for k, v in row.items() if k not in measured})}"

    curves = plot_curves(workdir, f"{config.model.name} on {config.data.train}")
    print("\nResults on all", f"{tests[-1]['images']:.0f} test images")
    print(
        table(
            [
                ("last", line(tests[-1])),
                ("best", line(best)),
                ("time", f"{clock(time.perf_counter() - begin)} in this process"),
                ("curves", str(curves)),
                (
                    "metrics",
                    f"{workdir / 'metrics.jsonl'}, tensorboard --logdir={workdir / 'events'}",
                ),
                ("config", str(workdir / "config.json")),
                ("use it", f"vitjax predict --workdir={workdir} photo.png"),
            ]
        )
    )


def parse(arguments: list[str]) -> tuple[str, pathlib.Path, dict[str, str], bool]:
    """Config file, work folder, overrides, and whether to show the config alone."""
    from vitjax.train.config import ConfigError

    file, workdir, show, overrides = "", "", False, {}
    pending = list(arguments)
    while pending:
        flag, equals, value = pending.pop(0).partition("=")
        if flag == "--show":
            show = True
            continue
        if not flag.startswith("--config") and flag != "--workdir":
            raise ConfigError(f"Unknown argument {flag!r}; see python train.py --help.")
        if not equals:
            if not pending:
                raise ConfigError(f"{flag} needs a value: {flag}=…")
            value = pending.pop(0)
        if flag == "--config":
            file = value
        elif flag == "--workdir":
            workdir = value
        else:
            overrides[flag.removeprefix("--config.")] = value
    if not file:
        raise ConfigError("Which run? Give --config=FILE, e.g. --config=configs/digits.py.")
    if not workdir and not show:
        raise ConfigError("Where to? Give --workdir=FOLDER, e.g. --workdir=runs/first.")
    return file, pathlib.Path(workdir), overrides, show


def main(arguments: list[str]) -> int:
    """The command line; a user's mistake ends in one sentence and exit code 2."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    from vitjax.data import BadImage
    from vitjax.models import model_options
    from vitjax.train.checkpoint import CheckpointError
    from vitjax.train.config import load_config
    from vitjax.train.loop import DivergedError

    # Orbax logs, with a traceback, what it raises besides.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        file, workdir, overrides, show = parse(arguments)
        config = load_config(file, overrides, model_options)
        if show:
            print(json.dumps(config.to_dict(), indent=2))
            return 0
        return run(config, workdir)
    except (ValueError, OSError, BadImage) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (CheckpointError, DivergedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
