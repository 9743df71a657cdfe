"""The command `vitjax`: train, plan, predict, and what there is.

  vitjax train --config=digits --workdir=runs/digits   trains, or goes on where a run stopped
  vitjax list 'vit_s*'                          models, or with --mixers the token mixers
  vitjax info vit_b16                           parameters, FLOPs, and shapes per layer
  vitjax info --workdir=runs/digits             step, best metric, SHA-256 of a run's parameters
  vitjax plan --config=digits --topology=v5e:2x2   what a run will need there
  vitjax bench vit_s16 --train --against timm   how fast it is here, and beside PyTorch
  vitjax predict --workdir=runs/digits a.png    what a run's model says of each image
  vitjax eval runs/digits --out eval/           all metrics, classes, calibration, every image
  vitjax look a.png --workdir=runs/digits       one page: where every head of every layer looks
  vitjax probe runs/digits --data digits://     k-NN, few-shot and linear accuracy of its features
  vitjax exits runs/ranet --data digits:// --held-out 'train[80%:]'   accuracy against computation
  vitjax export runs/digits --to onnx DIR       a model for programs without vitjax
  vitjax sweep run scaling --next               a grid of runs, on any number of workers
  vitjax data prepare imagenet2012 --to DIR     as ArrayRecord, once: TFRecord, or --archives=DIR
  vitjax token-labels runs/teacher --data URI --to DIR   label maps by a teacher
  vitjax launch slurm --config=digits --workdir=/scratch/digits --dry-run   a job's script
  vitjax doctor                                 versions, processes, devices, and what is wrong

Every command but train takes --json, for scripts.
"""

import argparse
import contextlib
import difflib
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from vitjax.accelerators import leave_out_absent
from vitjax.allocator import use_keeping_allocator
from vitjax.names import check_choice, parse_size
from vitjax.sweep.command import sweep, sweep_arguments
from vitjax.tools import commands
from vitjax.tools.bench_command import bench, bench_arguments
from vitjax.tools.cluster_commands import (
    doctor,
    doctor_arguments,
    launch,
    launch_arguments,
    process_arguments,
)
from vitjax.tools.commands import say
from vitjax.tools.eval_command import add_eval_arguments, evaluate
from vitjax.tools.look_command import look, look_arguments


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown == message:
            raise ValueError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")
        flag, flags = unknown.split()[0].partition("=")[0], self._option_string_actions
        near = difflib.get_close_matches(flag, flags, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"Unknown argument {flag!r}{hint} See {self.prog} --help.")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a user's error ends in one sentence and exit code 2."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        if options.function is not plan:  # which chooses itself
            leave_out_absent()
        if arguments is None and options.function in (train, evaluate, sweep):
            use_keeping_allocator()
        if options.function is train:
            return train(options)
        result, text = options.function(options)
        if options.json or text:
            print(json.dumps(result) if options.json else text)
        return getattr(options, "code", 0)
    except BrokenPipeError:  # `vitjax list | head`
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse a command; the result has its `function`, and `--config.FIELD` as `fields`.

    Raises:
      ValueError: there is no such command, or it does not take these arguments.
    """
    parsers = {}
    parser = Parser(
        "vitjax",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, (function, add_arguments) in COMMANDS.items():
        text = (function.__doc__ or "").splitlines()[0]
        parsers[name] = sub = commands.add_parser(
            name,
            help=text,
            description=function.__doc__,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(function=function)
        add_arguments(sub)
        if function is not train:
            sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
    plain, fields = split_fields(arguments)
    if plain and not plain[0].startswith("-"):
        check_choice("command", plain[0], COMMANDS)
    options, rest = parser.parse_known_args(plain)
    if rest:
        parsers[plain[0]].error(f"unrecognized arguments: {' '.join(rest)}")
    if fields and options.function not in (train, plan, evaluate, launch):
        raise ValueError(
            f"--config.{next(iter(fields))} is for `vitjax train`, `plan`, `eval` and `launch`."
        )
    options.fields = fields
    return options


def split_fields(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Separate `--config.FIELD=VALUE` from the other arguments.

    Raises:
      ValueError: a field has no value.
    """
    plain: list[str] = []
    fields: dict[str, str] = {}
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--config."):
            plain.append(argument)
            continue
        if not equals:
            if not pending:
                raise ValueError(f"{flag} needs a value: {flag}=…")
            value = pending.pop(0)
        fields[flag.removeprefix("--config.")] = value
    return plain, fields


def train(options: argparse.Namespace) -> int:
    """Train a model, or go on where an interrupted run stopped; shows a finished run's result.

    Every field of the config can be replaced: --config.model.name=vit_s16
    --config.schedule.learning_rate=3e-4 --config.data.train=photos/
    --config.data.image_size='(32, 64)' (rows and columns) --config.data.channels=1 (gray)

    Several processes find each other on TPU pods, SLURM, Open MPI and SkyPilot, in JobSets and
    under torchrun; elsewhere give --coordinator, --num_processes and --process_id.

    A run that is stopped by SIGTERM or Ctrl-C saves its state and exits with 75: start the same
    command again. 76: it stalled. 2: a mistake in the command or the data. 1: the run failed.

    --extend makes a run longer, finished or not: give its command with more --config.epochs or
    --config.steps. Parameters, moments, averages and the place in the data are kept; the schedule
    is computed anew, for the new length.
    """
    from vitjax.train import processes, signals
    from vitjax.train.checkpoint import CheckpointError
    from vitjax.train.divergence import DivergedError
    from vitjax.train.goodput import process_began
    from vitjax.training import load_config, quiet_libraries, run

    if not (options.workdir or options.show):
        raise ValueError("Where to? Give --workdir=FOLDER, e.g. --workdir=runs/first.")
    quiet_libraries()
    try:
        config = load_config(options.config, options.fields)
        if options.show:
            print(json.dumps(config.to_dict(), indent=2))
            return 0
        several = processes.start(
            options.coordinator, options.num_processes, options.process_id, options.wait_seconds
        )
        with contextlib.ExitStack() as stack:
            if not several:
                stack.enter_context(signals.leave_at_once())
            return run(
                config,
                options.workdir,
                stack,
                options.profile,
                options.extend,
                began=process_began(),
            )
    except (CheckpointError, DivergedError, processes.ProcessError, ChildProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _train_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("--config", required=True, metavar="FILE[:ARGUMENT]", help="the run: a Python file with "
        "get_config(), or the name of one that comes along, such as digits")  # fmt: skip
    add(
        "--workdir",
        type=pathlib.Path,
        metavar="FOLDER",
        help="where checkpoints, metrics and plots go; shared by all processes",
    )
    add("--extend", action="store_true", help="go on to more steps or epochs than the run had")
    add("--show", action="store_true", help="print the resolved config and leave")
    add(
        "--profile",
        default="",
        metavar="START:STEPS",
        help="trace some steps into FOLDER/profile, for TensorBoard and Perfetto",
    )
    process_arguments(sub)
    add("--wait_seconds", type=int, default=0, metavar="S", help="for the others (300; 1800 from "
        "16 processes on)")  # fmt: skip


def list_(options: argparse.Namespace) -> tuple[Any, str]:
    """List the models on the menu, or the token mixers, that match a pattern."""
    import fnmatch

    from vitjax.attention import MIXERS, VIDEO_MIXERS
    from vitjax.models import MODELS
    from vitjax.names import unknown

    menu = {**MIXERS, **VIDEO_MIXERS} if options.mixers else MODELS
    names = [name for name in menu if fnmatch.fnmatchcase(name, options.pattern)]
    if not names:
        raise ValueError(unknown("mixer" if options.mixers else "model", options.pattern, menu))
    return names, "\n".join(names)


def _list_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("pattern", nargs="?", default="*", help="shell pattern, e.g. 'vit*' (quote it)")
    add("--mixers", action="store_true", help="list token mixers instead of models")


def info(options: argparse.Namespace) -> tuple[Any, str]:
    """Show what a model costs, layer by layer, or how far a run has come."""
    from vitjax.tools.info import model_info, run_info

    if (options.model is None) == (options.workdir is None):
        raise ValueError("info takes a model's name or --workdir=FOLDER, one of them.")
    if options.workdir:
        return run_info(options.workdir)
    size = parse_size(options.image_size) if options.image_size else 0
    if not 1 <= options.channels <= 16:
        raise ValueError(f"--channels={options.channels} must be 1 (gray), 3 (RGB), or up to 16.")
    return model_info(options.model, size, options.depth, options.channels)


def _info_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("model", nargs="?", help="a name of `vitjax list`")
    add("--workdir", type=pathlib.Path, help="a run's folder, instead of a model")
    add("--image-size", default="", help="pixels a side (its own), or '(32, 64)': rows, columns")
    add("--channels", type=int, default=3, help="of the image (3)")
    add("--depth", type=int, default=2, help="levels of layers to show (2)")


def plan(options: argparse.Namespace) -> tuple[Any, str]:
    """Compile a config's step for a topology: memory, collectives, estimated time, core-days."""
    if options.count:
        return _count(options)
    import os

    if options.topology == "gpu":
        leave_out_absent()
    else:  # a described TPU is not to be looked for
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from vitjax.plan.gpus import load_compiler, parse_gpus

    if parse_gpus(options.topology):
        load_compiler()
    from vitjax.plan.fit import search
    from vitjax.plan.plan import make_plan
    from vitjax.plan.topology import open_topology
    from vitjax.runs import abstract_teacher
    from vitjax.train.config import flat_config
    from vitjax.train.defaults import RunConfig
    from vitjax.training import load_config

    def config(more: dict[str, str]) -> RunConfig:
        return load_config(options.config, {**options.fields, **more})

    first = config({})
    abstract_teacher(flat_config(first).get("distillation.teacher", ""))  # before libtpu is loaded
    topology = open_topology(options.topology)

    def make(more: dict[str, str]) -> Any:
        return make_plan(
            config(more),
            topology,
            images=options.images,
            classes=options.classes,
            quick=options.quick,
        )

    if options.fit:
        return search(first, topology, make)
    found = make({})
    return found.to_dict(), found.report()


def _count(options: argparse.Namespace) -> tuple[Any, str]:
    """Count a run's operations, without compiling."""
    if options.fit or options.quick or options.topology != "cpu":
        raise ValueError(
            "--count compiles nothing: --topology, --fit and --quick do not go with it."
        )
    from vitjax.plan.count import count
    from vitjax.training import load_config

    config = load_config(options.config, options.fields)
    found = count(config, options.images, options.classes)
    return found.to_dict(), found.report()


def _plan_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("--config", required=True, help="the run, as `vitjax train` takes it")
    add(
        "--topology",
        default="cpu",
        help="v3:4x4, v3-32, v5e:8x8, …; a100, h100x8, h200x16, b200, …; gpu, cpu",
    )
    add("--images", type=int, default=0, help="training images, if the data's name does not tell")
    add("--classes", type=int, default=0, help="classes, likewise")
    add("--fit", action="store_true", help="search mesh, remat and accumulation")
    add(
        "--count",
        action="store_true",
        help="count the operations of the whole run in seconds; compile nothing",
    )
    add(
        "--quick",
        action="store_true",
        help="compile several times faster, with less "
        "optimization: memory and time come out otherwise, mostly larger",
    )


def data(options: argparse.Namespace) -> tuple[Any, str]:
    """Write a data set as ArrayRecord, resumable and verified: from TFRecord, or the archives."""
    from vitjax.console import table
    from vitjax.data.prepare.imagenet import prepare_imagenet
    from vitjax.data.prepare.tfrecord import prepare

    if options.archives:
        if options.source != "imagenet2012" or options.data_dir:
            raise ValueError("--archives is for imagenet2012, and goes without --data-dir.")
        result = prepare_imagenet(options.archives, options.to, say)
    else:
        result = prepare(options.source, options.to, options.data_dir, say)
    return result, table((k, f"{v:,}" if isinstance(v, int) else v) for k, v in result.items())


def _data_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("action", choices=("prepare",), help="prepare: write ArrayRecord")
    add("source", help="a TFDS name, or the folder with its dataset_info.json")
    add("--to", required=True, help="the new data_dir, which ?data_dir= then names")
    add("--data-dir", default="", help="where the name is looked up (TFDS's own)")
    add(
        "--archives",
        default="",
        help="a folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, for imagenet2012",
    )


COMMANDS: dict[str, tuple[Callable[..., Any], Callable[[argparse.ArgumentParser], None]]] = {
    "train": (train, _train_arguments),
    "list": (list_, _list_arguments),
    "info": (info, _info_arguments),
    "plan": (plan, _plan_arguments),
    "bench": (bench, bench_arguments),
    "predict": (commands.predict, commands.predict_arguments),
    "eval": (evaluate, add_eval_arguments),
    "look": (look, look_arguments),
    "probe": (commands.probe, commands.probe_arguments),
    "exits": (commands.exits, commands.exits_arguments),
    "export": (commands.export, commands.export_arguments),
    "sweep": (sweep, sweep_arguments),
    "data": (data, _data_arguments),
    "token-labels": (commands.token_labels, commands.token_labels_arguments),
    "launch": (launch, launch_arguments),
    "doctor": (doctor, doctor_arguments),
}


if __name__ == "__main__":
    sys.exit(main())
