"""The command `vitjax`: train, plan, predict, and what there is.

  vitjax train --config=digits --workdir=runs/digits   trains, or goes on where a run stopped
  vitjax list 'vit_s*'                          models, or with --mixers the token mixers
  vitjax info vit_b16                           parameters, FLOPs, and shapes per layer
  vitjax info --workdir=runs/digits             step, best metric, SHA-256 of a run's parameters
  vitjax plan --config=digits --topology=v5e:2x2   what a run will need there
  vitjax predict --workdir=runs/digits a.png    what a run's model says of each image
  vitjax probe runs/digits --data digits://     k-NN, few-shot and linear accuracy of its features
  vitjax data prepare imagenet2012 --to DIR     as ArrayRecord, once: TFRecord, or --archives=DIR
  vitjax token-labels runs/teacher --data URI --to DIR   label maps by a teacher
  vitjax doctor                                 versions and devices, for a report of a fault

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

from vitjax.names import check_choice


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one sentence."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown == message:
            raise ValueError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")
        flag, flags = unknown.split()[0].partition("=")[0], self._option_string_actions
        near = difflib.get_close_matches(flag, flags, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"Unknown argument {flag!r}{hint} See {self.prog} --help.")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a user's mistake ends in one sentence and exit code 2."""
    parsers = {}
    parser = Parser("vitjax", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, (function, add_arguments) in COMMANDS.items():
        text = (function.__doc__ or "").splitlines()[0]
        parsers[name] = sub = commands.add_parser(
            name, help=text, description=function.__doc__, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(function=function)
        add_arguments(sub)
        if function is not train:
            sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
    try:
        plain, fields = split_fields(sys.argv[1:] if arguments is None else arguments)
        if plain and not plain[0].startswith("-"):
            check_choice("command", plain[0], COMMANDS)
        options, rest = parser.parse_known_args(plain)
        if rest:
            parsers[plain[0]].error(f"unrecognized arguments: {' '.join(rest)}")
        if fields and options.function not in (train, plan):
            raise ValueError(f"--config.{next(iter(fields))} is for `vitjax train` and `plan`.")
        options.fields = fields
        if options.function is train:
            return train(options)
        result, text = options.function(options)
        print(json.dumps(result) if options.json else text)
    except BrokenPipeError:  # `vitjax list | head`
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


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

    Several processes find each other on TPU pods, SLURM, Open MPI and Kubernetes; elsewhere give
    --coordinator, --num_processes and --process_id.

    A run that is stopped by SIGTERM or Ctrl-C saves its state and exits with 75: start the same
    command again. 76: it stalled. 2: a mistake in the command or the data. 1: the run failed.
    """
    from vitjax.train import processes, signals
    from vitjax.train.checkpoint import CheckpointError
    from vitjax.train.divergence import DivergedError
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
            return run(config, options.workdir, stack, options.profile)
    except (CheckpointError, DivergedError, processes.ProcessError, ChildProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _train_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("--config", required=True, metavar="FILE[:ARGUMENT]", help="the run: a Python file with "
        "get_config(), or the name of one that comes along, such as digits")  # fmt: skip
    add("--workdir", type=pathlib.Path, metavar="FOLDER", help="where checkpoints, metrics and "
        "plots go; shared by all processes")  # fmt: skip
    add("--show", action="store_true", help="print the resolved config and leave")
    add("--profile", default="", metavar="START:STEPS", help="trace some steps into "
        "FOLDER/profile, for TensorBoard and Perfetto")  # fmt: skip
    add("--coordinator", default="", metavar="HOST:PORT", help="of process 0")
    add("--num_processes", type=int, default=0, metavar="N", help="how many there are")
    add("--process_id", type=int, default=-1, metavar="I", help="which this is, from 0")
    add("--wait_seconds", type=int, default=300, metavar="S", help="for the others (300)")


def list_(options: argparse.Namespace) -> tuple[Any, str]:
    """List the models on the menu, or the token mixers, that match a pattern."""
    import fnmatch

    from vitjax.attention import MIXERS
    from vitjax.models import MODELS
    from vitjax.names import unknown

    menu = MIXERS if options.mixers else MODELS
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
    return model_info(options.model, options.image_size, options.depth)


def _info_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("model", nargs="?", help="a name of `vitjax list`")
    add("--workdir", type=pathlib.Path, help="a run's folder, instead of a model")
    add("--image-size", type=int, default=0, help="pixels per side (the model's own)")
    add("--depth", type=int, default=2, help="levels of layers to show (2)")


def plan(options: argparse.Namespace) -> tuple[Any, str]:
    """Compile a config's step for a topology: memory, collectives, estimated time, core-days."""
    import os

    if options.topology != "gpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a described TPU is not to be looked for
    from vitjax.plan.fit import search
    from vitjax.plan.plan import make_plan
    from vitjax.plan.topology import open_topology
    from vitjax.runs import abstract_teacher
    from vitjax.training import load_config

    def config(more: dict[str, str]) -> Any:
        return load_config(options.config, {**options.fields, **more})

    first = config({})
    if "distillation" in first:
        abstract_teacher(first.distillation.teacher)  # told before libtpu is loaded
    topology = open_topology(options.topology)

    def make(more: dict[str, str]) -> Any:
        return make_plan(
            config(more), topology, images=options.images, classes=options.classes,
            quick=options.quick,
        )  # fmt: skip

    if options.fit:
        return search(first, topology, make)
    found = make({})
    return found.to_dict(), found.report()


def _plan_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("--config", required=True, help="the run, as `vitjax train` takes it")
    add("--topology", default="cpu", help="v3:4x4, v3-32, v5e:8x8, …, gpu, cpu")
    add("--images", type=int, default=0, help="training images, if the data's name does not tell")
    add("--classes", type=int, default=0, help="classes, likewise")
    add("--fit", action="store_true", help="search mesh, remat and accumulation")
    add("--quick", action="store_true", help="compile several times faster, with less "
        "optimization: memory and time come out otherwise, mostly larger")  # fmt: skip


def predict(options: argparse.Namespace) -> tuple[Any, str]:
    """Show what a trained run says of image files."""
    from vitjax.tools.predict import predict

    step, shown = predict(options.workdir, options.images, options.step)
    result, lines = [], []
    for path, presented in zip(options.images, shown, strict=True):
        result.append({"image": str(path), "step": step, **presented.result})
        lines += [str(path), *(f"  {line}" for line in presented.lines)]
    return result, "\n".join(lines)


def _predict_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("images", nargs="+", type=pathlib.Path, help="image files")
    add("--workdir", type=pathlib.Path, required=True, help="the run's folder")
    add("--step", type=int, help="checkpoint to use (the latest)")


def data(options: argparse.Namespace) -> tuple[Any, str]:
    """Write a data set as ArrayRecord, resumable and verified: from TFRecord, or the archives."""
    from vitjax.console import table
    from vitjax.data.prepare.imagenet import prepare_imagenet
    from vitjax.data.prepare.tfrecord import prepare

    if options.archives:
        if options.source != "imagenet2012" or options.data_dir:
            raise ValueError("--archives is for imagenet2012, and goes without --data-dir.")
        result = prepare_imagenet(options.archives, options.to, _say)
    else:
        result = prepare(options.source, options.to, options.data_dir, _say)
    return result, table((k, f"{v:,}" if isinstance(v, int) else v) for k, v in result.items())


def _data_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("action", choices=("prepare",), help="prepare: write ArrayRecord")
    add("source", help="a TFDS name, or the folder with its dataset_info.json")
    add("--to", required=True, help="the new data_dir, which ?data_dir= then names")
    add("--data-dir", default="", help="where the name is looked up (TFDS's own)")
    add("--archives", default="", help="a folder with ILSVRC2012_img_train.tar and "
        "ILSVRC2012_img_val.tar, for imagenet2012")  # fmt: skip


def probe(options: argparse.Namespace) -> tuple[Any, str]:
    """Evaluate frozen features: weighted k-NN, few-shot least squares, a linear classifier."""
    from vitjax.console import table
    from vitjax.tools.probe import Settings, probe

    o = options
    result = probe(
        o.model, o.data, o.test_data or o.data, (o.split, o.test_split), tuple(o.protocol),
        Settings(o.k, o.temperature, o.shots, o.draws, o.l2),
        batch_size=o.batch_size, num_threads=o.threads,
    )  # fmt: skip
    rows = ((k, f"{v:.2%}" if isinstance(v, float) else str(v)) for k, v in result.items())
    return result, table(rows)


def _probe_arguments(sub: argparse.ArgumentParser) -> None:
    add, protocols = sub.add_argument, ("knn", "fewshot", "linear")
    add("model", help="a run's folder, or MODEL=WEIGHTS")
    add("--data", required=True, help="labelled images, as `vitjax train` takes them")
    add("--test-data", default="", help="those that are asked about (--data)")
    add("--split", default="train", help="of the labelled images (train)")
    add("--test-split", default="test", help="(test)")
    add("--protocol", nargs="+", choices=protocols, default=protocols, help="(all)")
    add("--k", type=int, default=20, help="neighbours (20)")
    add("--temperature", type=float, default=0.07, help="of their votes (0.07)")
    add("--shots", type=int, default=5, help="images of a class (5)")
    add("--draws", type=int, default=3, help="of few shots, averaged (3)")
    add("--l2", type=float, default=1.0, help="of the linear classifier (1)")
    add("--batch-size", type=int, default=64, help="(64)")
    add("--threads", type=int, default=4, help="that read images (4)")


def token_labels(options: argparse.Namespace) -> tuple[Any, str]:
    """Make label maps with a trained model, resumable: what token_labels.maps then names."""
    from vitjax.console import table
    from vitjax.tools.token_labels import make_labels

    o = options
    result = make_labels(
        o.teacher, o.data, o.split, o.to, k=o.k, image_size=o.image_size, batch_size=o.batch_size,
        num_threads=o.threads, on_bad_image=o.on_bad_image, say=_say,
    )  # fmt: skip
    return result, table((k, f"{v:,}" if isinstance(v, int) else str(v)) for k, v in result.items())


def _token_labels_arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("teacher", help="a run's folder, or MODEL=WEIGHTS")
    add("--data", required=True, help="the training images, as `vitjax train` takes them")
    add("--split", default="train", help="(train)")
    add("--to", type=pathlib.Path, required=True, help="the folder of the maps")
    add("--k", type=int, default=5, help="classes kept of each cell (5)")
    add("--image-size", type=int, default=0, help="what the teacher sees (its own)")
    add("--batch-size", type=int, default=64, help="(64)")
    add("--threads", type=int, default=4, help="that read images (4)")
    add("--on-bad-image", choices=("fail", "skip"), default="fail")


def doctor(options: argparse.Namespace) -> tuple[Any, str]:
    """Show versions, devices and settings, for a report of a fault."""
    from vitjax.tools.doctor import doctor

    return doctor()


def _say(text: str) -> None:
    print(text, file=sys.stderr)


COMMANDS: dict[str, tuple[Callable[..., Any], Callable[[argparse.ArgumentParser], None]]] = {
    "train": (train, _train_arguments),
    "list": (list_, _list_arguments),
    "info": (info, _info_arguments),
    "plan": (plan, _plan_arguments),
    "predict": (predict, _predict_arguments),
    "probe": (probe, _probe_arguments),
    "data": (data, _data_arguments),
    "token-labels": (token_labels, _token_labels_arguments),
    "doctor": (doctor, lambda sub: None),
}


if __name__ == "__main__":
    sys.exit(main())
