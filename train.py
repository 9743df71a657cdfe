"""Trains a model: `python train.py --config=configs/digits.py --workdir=runs/digits`.

The same command goes on where an interrupted run stopped, and shows the result of a finished one.

  --config=FILE[:ARGUMENT]   the run, a Python file with `get_config()`; see configs/
  --config.FIELD=VALUE       replaces one field, e.g. --config.model.name=vit_s16
                             --config.schedule.learning_rate=3e-4 --config.data.train=photos/
  --workdir=FOLDER           where checkpoints, metrics and plots go; shared by all processes
  --show                     prints the resolved config and leaves

Several processes find each other on TPU pods, SLURM, Open MPI and Kubernetes; elsewhere say it:
  --coordinator=HOST:PORT --num_processes=N --process_id=I [--wait_seconds=300]

A run that is stopped by SIGTERM or Ctrl-C saves its state and exits with 75: start the same command
again. 76: it stalled. 2: a mistake in the command or the data. 1: the run itself failed.
"""

import contextlib
import json
import logging
import pathlib
import sys
import time
from typing import Any


def run(config: Any, workdir: pathlib.Path, held: contextlib.ExitStack) -> int:
    """Trains as the config says; returns the exit code. `held` closes what it is given."""
    import jax

    from vitjax.analysis.cost import trace
    from vitjax.data import open_source, pipeline
    from vitjax.data.transforms.augment import parse_augmentation
    from vitjax.data.label_maps import open_label_maps
    from vitjax.models import from_config, read_config
    from vitjax.tasks import classification, distillation, token_labels
    from vitjax.teacher import open_teacher
    from vitjax.train import config as configs
    from vitjax.train import layer_decay, loop, optimizer, processes, report, sharding, signals
    from vitjax.train.checkpoint import Checkpoints
    from vitjax.train.compiler import keep_compiled
    from vitjax.train.divergence import ACTIONS, History
    from vitjax.train.setup import make_setup
    from vitjax.train.state import with_variables
    from vitjax.train.workdir import claim_workdir

    begin = time.perf_counter()
    kept = keep_compiled()
    d = config.data
    configs.check_choice(config, "loss.name", classification.LOSSES)
    configs.check_choice(config, "distillation.kind", distillation.KINDS)
    configs.check_choice(config, "token_labels.class_target", token_labels.CLASS_TARGETS)
    configs.check_choice(config, "token_labels.scores", token_labels.SCORES)
    configs.check_choice(config, "optimizer.name", optimizer.OPTIMIZERS)
    configs.check_choice(config, "schedule.name", optimizer.SCHEDULES)
    configs.check_choice(config, "optimizer.layer_decay_style", layer_decay.STYLES)
    parse_augmentation(d.augment)
    pipeline.check_view(d.eval_crop, d.interpolation)
    configs.check_choice(config, "data.on_bad_image", pipeline.ON_BAD_IMAGE)
    configs.check_choice(config, "model.dtype", ("float32", "bfloat16"))
    configs.check_choice(config, "on_divergence.action", ACTIONS)
    configs.check_choice(config, "optimizer.mu_dtype", ("float32", "bfloat16"))

    # Mesh and data.
    mesh = sharding.make_mesh(config.mesh)
    configs.check_batches(config, sharding.batch_parts(mesh))
    train_source = open_source(d.train, d.train_split)
    test_source = open_source(d.test or d.train, d.test_split)
    steps = configs.count_steps(config, len(train_source))
    token_maps = config.token_labels.maps
    maps = open_label_maps(token_maps, train_source) if token_maps else None

    # Task: model, loss, metrics.
    names = train_source.class_names
    model = from_config(config.model.to_dict(), len(names), d.image_size)
    teacher = open_teacher(config.distillation.teacher, names)
    task = classification.from_config(config, model, len(names), teacher)

    # State: from the seed, or from the last checkpoint.
    map_shape = maps.shape if maps else ()
    samples = classification.samples(config, len(names), train_source.multi_label, map_shape)
    setup = make_setup(config, task, mesh, steps, samples)
    parameters, macs, _ = trace(model, (1, d.image_size, d.image_size, 3))
    sources: dict[str, Any] = {"training": train_source, "test": test_source}
    sources |= {"label maps": maps} if maps else {}
    data = {k: {"fingerprint": s.fingerprint, "images": len(s)} for k, s in sources.items()}
    processes.check_same_everywhere(
        {**configs.flat_config(config), **processes.code_version(), "data": data}
    )
    processes.on_lead(
        lambda: held.enter_context(claim_workdir(config, workdir, names, data)) and None
    )
    checkpoints = Checkpoints(
        workdir / "checkpoints", keep=config.keep, headline=task.headline,
        regular=lambda step: loop.is_regular(config, step),
    )  # fmt: skip

    def begin_at(step: int) -> Any:
        if step:
            return checkpoints.restore_step(step, setup.state)
        state = setup.init(key)
        if not config.init:
            return state
        from vitjax.weights.load import load_pretrained  # only such a run pays for it

        options = read_config(config.model.to_dict(), d.image_size)
        _, weights = load_pretrained(options[0], config.init, len(names), **options[1])
        return with_variables(state, weights)

    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=setup.key.sharding)()
    start, state = checkpoints.restore(setup.state) or (0, begin_at(0))
    history = History(checkpoints.history(start) if start else None)

    rate = f"{config.optimizer.name}, {config.schedule.name} from {config.schedule.learning_rate:g}"
    epochs = steps * d.batch_size / len(train_source)
    summary = {
        "model": f"{config.model.name}, {parameters:,} parameters, {config.model.dtype}",
        "compute": f"{macs / 1e6:,.1f} M multiply-adds per image",
        "devices": sharding.describe(mesh),
        "data": f"{d.train}: {len(train_source):,} training and {len(test_source):,} test images, "
        f"{len(names)} classes, {d.image_size}×{d.image_size} pixels",
        "schedule": f"{steps:,} steps of {d.batch_size} images ({epochs:.1f} epochs), {rate}",
        "folder": f"{workdir}" + (f", going on from step {start:,}" if start else ""),
        "compiled": f"programs are kept in {kept}",
    }
    if processes.is_lead():
        print(report.table(summary.items()), flush=True)

    def rows(batch_size: int) -> list[int]:
        return sharding.own_rows(setup.batch_sharding, batch_size)

    def evaluate(state: Any) -> dict[str, float]:
        batches = pipeline.eval_batches(
            test_source, batch_size=d.eval_batch_size, image_size=d.image_size, crop=d.eval_crop,
            interpolation=d.interpolation, num_threads=d.num_threads, num_processes=d.num_processes,
            on_bad_image=d.on_bad_image,
            max_bad_images=d.max_bad_images, rows=rows(d.eval_batch_size),
        )  # fmt: skip
        sums = []
        for batch in sharding.to_devices(batches, setup.batch_sharding, d.eval_batch_size):
            sums.append(setup.eval_step(state, batch))
            watchdog.alive()
        sums = jax.device_get(sums)
        total = {name: float(sum(s[name] for s in sums)) for name in sums[0]}
        images = total.pop("count")
        return {name: value / max(images, 1.0) for name, value in total.items()} | {
            "images": images
        }

    def batches(start: int) -> Any:
        host_batches = pipeline.train_batches(
            train_source, batch_size=d.batch_size, image_size=d.image_size, augment=d.augment,
            seed=config.seed, repeats=d.repeats, start_step=start,
            num_threads=d.num_threads, num_processes=d.num_processes,
            on_bad_image=d.on_bad_image, max_bad_images=d.max_bad_images,
            rows=rows(d.batch_size), label_maps=maps,
        )  # fmt: skip
        return sharding.to_devices(host_batches, setup.batch_sharding, d.batch_size)

    stop, watchdog = signals.StopRequest(), signals.Watchdog(config.stall_seconds)
    seen = report.Report(workdir, start=start, steps=steps, batch_size=d.batch_size)
    held.callback(watchdog.close)
    held.callback(seen.close)
    if start < steps:
        with stop.listening():
            state = loop.train(
                state, config, start=start, steps=steps, batches=batches,
                step=lambda state, batch: setup.train_step(state, batch, key),
                evaluate=evaluate, restore=begin_at, history=history, checkpoints=checkpoints,
                report=seen, stop=stop, watchdog=watchdog,
            )  # fmt: skip
    checkpoints.close()
    stopped = stop.signal and int(state.step) < steps
    if processes.is_lead() and stopped:
        print(
            f"Stopped by {stop.signal} at step {int(state.step)} of {steps}, saved. The same "
            f"command goes on."
        )
    elif processes.is_lead():
        seen.settle()
        summarise(workdir, config, begin)
    return signals.STOPPED if stopped else 0


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


FLAGS = ("--config", "--workdir", "--show", "--help", "--coordinator", "--num_processes",
         "--process_id", "--wait_seconds")  # fmt: skip


def parse(arguments: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Flags by name, and overrides of config fields."""
    from vitjax.train.config import ConfigError

    flags, overrides, pending = {}, {}, list(arguments)
    while pending:
        flag, equals, value = pending.pop(0).partition("=")
        if flag not in FLAGS and not flag.startswith("--config."):
            raise ConfigError(f"Unknown argument {flag!r}; see python train.py --help.")
        if not equals and flag != "--show":
            if not pending:
                raise ConfigError(f"{flag} needs a value: {flag}=…")
            value = pending.pop(0)
        if flag in FLAGS:
            flags[flag.removeprefix("--")] = value
        else:
            overrides[flag.removeprefix("--config.")] = value
    for flag in ("num_processes", "process_id", "wait_seconds"):
        if not flags.get(flag, "0").isdigit():
            raise ConfigError(f"--{flag} takes a whole number; got {flags[flag]!r}.")
    if "config" not in flags:
        raise ConfigError("Which run? Give --config=FILE, e.g. --config=configs/digits.py.")
    if not flags.get("workdir") and "show" not in flags:
        raise ConfigError("Where to? Give --workdir=FOLDER, e.g. --workdir=runs/first.")
    return flags, overrides


def main(arguments: list[str]) -> int:
    """The command line; a user's mistake ends in one sentence and exit code 2."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    from vitjax.data import BadImage
    from vitjax.models import model_options
    from vitjax.train import processes, signals
    from vitjax.train.checkpoint import CheckpointError, without_late_failures
    from vitjax.train.config import load_config
    from vitjax.train.divergence import DivergedError

    sys.unraisablehook = without_late_failures(sys.unraisablehook)
    # Orbax logs, with a traceback, what it raises besides.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        flags, overrides = parse(arguments)
        config = load_config(flags["config"], overrides, model_options)
        if "show" in flags:
            print(json.dumps(config.to_dict(), indent=2))
            return 0
        several = processes.start(
            flags.get("coordinator", ""),
            int(flags.get("num_processes", 0)),
            int(flags.get("process_id", -1)),
            int(flags.get("wait_seconds", 300)),
        )
        with contextlib.ExitStack() as held:
            if not several:
                held.enter_context(signals.leave_at_once())
            return run(config, pathlib.Path(flags["workdir"]), held)
    except (CheckpointError, DivergedError, processes.ProcessError, ChildProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, BadImage) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
