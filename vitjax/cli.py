"""The command `vitjax`: what there is, what it costs, and what a trained model says of a photo.

  vitjax list 'vit_s*'                          models, or with --mixers the token mixers
  vitjax info vit_b16                           parameters, FLOPs, and shapes per layer
  vitjax info --workdir=runs/digits             step, best metric, SHA-256 of a run's parameters
  vitjax plan --config=configs/digits.py --topology=v5e:2x2   what a run will need there
  vitjax predict --workdir=runs/digits a.png    the five most probable classes of each image
  vitjax probe runs/digits --data digits://     k-NN, few-shot and linear accuracy of its features
  vitjax data prepare imagenet2012 --to DIR     as ArrayRecord, once: TFRecord, or --archives=DIR
  vitjax labels runs/teacher --data URI --to DIR   label maps by a teacher, for token labels

Every command takes --json, for scripts. Training is `python train.py --help`.
"""

import argparse
import json
import pathlib
import sys
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; a user's mistake ends in one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="vitjax", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(function: Any, name: str) -> argparse.ArgumentParser:
        text = function.__doc__.splitlines()[0]
        sub = commands.add_parser(name, help=text, description=function.__doc__)
        sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
        sub.set_defaults(function=function)
        return sub

    sub = command(list_, "list")
    sub.add_argument(
        "pattern", nargs="?", default="*", help="shell pattern, e.g. 'vit*' (quote it)"
    )
    sub.add_argument("--mixers", action="store_true", help="list token mixers instead of models")
    sub = command(info, "info")
    sub.add_argument("model", nargs="?", help="a name of `vitjax list`")
    sub.add_argument("--workdir", type=pathlib.Path, help="a run's folder, instead of a model")
    sub.add_argument("--image-size", type=int, default=0, help="pixels per side (the model's own)")
    sub.add_argument("--depth", type=int, default=2, help="levels of layers to show (2)")
    sub = command(plan, "plan")
    sub.add_argument("--config", required=True, help="the run, as train.py takes it")
    sub.add_argument("--topology", default="cpu", help="v3:4x4, v3-32, v5e:8x8, …, gpu, cpu")
    sub.add_argument("--images", type=int, default=0, help="training images, if the name of the "
                     "data does not tell")  # fmt: skip
    sub.add_argument("--classes", type=int, default=0, help="classes, likewise")
    sub.add_argument("--fit", action="store_true", help="search mesh, remat and accumulation")
    sub.add_argument("--quick", action="store_true", help="compile several times faster, with less "
                     "optimization: memory and time come out otherwise, mostly larger")  # fmt: skip
    sub = command(predict, "predict")
    sub.add_argument("images", nargs="+", type=pathlib.Path, help="image files")
    sub.add_argument("--workdir", type=pathlib.Path, required=True, help="the run's folder")
    sub.add_argument("--step", type=int, help="checkpoint to use (the latest)")
    sub = command(data, "data")
    sub.add_argument("action", choices=("prepare",), help="prepare: write ArrayRecord")
    sub.add_argument("source", help="a TFDS name, or the folder with its dataset_info.json")
    sub.add_argument("--to", required=True, help="the new data_dir, which ?data_dir= then names")
    sub.add_argument("--data-dir", default="", help="where the name is looked up (TFDS's own)")
    sub.add_argument("--archives", default="", help="a folder with ILSVRC2012_img_train.tar and "
                     "ILSVRC2012_img_val.tar, for imagenet2012")  # fmt: skip
    sub = command(labels, "labels")
    sub.add_argument("teacher", help="a run's folder, or MODEL=WEIGHTS")
    sub.add_argument("--data", required=True, help="the training images, as train.py takes them")
    sub.add_argument("--split", default="train", help="(train)")
    sub.add_argument("--to", type=pathlib.Path, required=True, help="the folder of the maps")
    sub.add_argument("--k", type=int, default=5, help="classes kept of each cell (5)")
    sub.add_argument("--image-size", type=int, default=0, help="what the teacher sees (its own)")
    sub.add_argument("--batch-size", type=int, default=64, help="(64)")
    sub.add_argument("--threads", type=int, default=4, help="that read images (4)")
    sub.add_argument("--on-bad-image", choices=("fail", "skip"), default="fail")
    sub = command(probe, "probe")
    sub.add_argument("model", help="a run's folder, or MODEL=WEIGHTS")
    sub.add_argument("--data", required=True, help="labelled images, as train.py takes them")
    sub.add_argument("--test-data", default="", help="those that are asked about (--data)")
    sub.add_argument("--split", default="train", help="of the labelled images (train)")
    sub.add_argument("--test-split", default="test", help="(test)")
    sub.add_argument("--protocol", nargs="+", choices=("knn", "fewshot", "linear"),
                     default=("knn", "fewshot", "linear"), help="(all)")  # fmt: skip
    sub.add_argument("--k", type=int, default=20, help="neighbours (20)")
    sub.add_argument("--temperature", type=float, default=0.07, help="of their votes (0.07)")
    sub.add_argument("--shots", type=int, default=5, help="images of a class (5)")
    sub.add_argument("--draws", type=int, default=3, help="of few shots, averaged (3)")
    sub.add_argument("--l2", type=float, default=1.0, help="of the linear classifier (1)")
    sub.add_argument("--batch-size", type=int, default=64, help="(64)")
    sub.add_argument("--threads", type=int, default=4, help="that read images (4)")
    try:
        options, rest = parser.parse_known_args(arguments)
        fields = dict(flag.removeprefix("--config.").split("=", 1) for flag in rest
                      if flag.startswith("--config.") and "=" in flag)  # fmt: skip
        if len(fields) < len(rest) or (fields and options.function is not plan):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.fields = fields
        result, text = options.function(options)
        print(json.dumps(result) if options.json else text)
    except BrokenPipeError:  # `vitjax list | head`
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def list_(options: argparse.Namespace) -> tuple[Any, str]:
    """Lists the models on the menu, or the token mixers, that match a pattern."""
    import fnmatch

    from vitjax.attention import MIXERS
    from vitjax.models import MODELS
    from vitjax.names import unknown

    menu = MIXERS if options.mixers else MODELS
    names = [name for name in menu if fnmatch.fnmatchcase(name, options.pattern)]
    if not names:
        kind = "mixer" if options.mixers else "model"
        raise ValueError(unknown(kind, options.pattern, menu))
    return names, "\n".join(names)


def info(options: argparse.Namespace) -> tuple[Any, str]:
    """Shows what a model costs, layer by layer, or how far a run has come."""
    if (options.model is None) == (options.workdir is None):
        raise ValueError("info takes a model's name or --workdir=FOLDER, one of them.")
    return _info_run(options.workdir) if options.workdir else _info_model(options)


def _info_model(options: argparse.Namespace) -> tuple[Any, str]:
    from vitjax.analysis.cost import count, layers
    from vitjax.models import create_model, model_options
    from vitjax.train.report import table

    size = options.image_size or model_options(options.model).get("image_size") or 224
    known = "image_size" in model_options(options.model)
    model: Any = create_model(options.model, **({"image_size": size} if known else {}))
    height, width = (size, size) if isinstance(size, int) else size
    cost = count(model, (1, height, width, 3))
    rows = layers(model, (1, height, width, 3), options.depth)
    result = {
        "model": options.model,
        "image_size": [height, width],
        "parameters": cost.parameters,
        "macs": cost.macs,
        "flops": cost.flops,
        "layers": [row._asdict() for row in rows],
    }
    head = table(
        [
            ("model", options.model),
            ("image", f"{height}×{width}"),
            ("parameters", f"{cost.parameters:,}"),
            ("multiply-adds", f"{cost.macs / 1e9:,.3f} G (convolutions and matrix products)"),
            ("FLOPs", f"{cost.flops / 1e9:,.3f} G (compiled forward pass)"),
        ]
    )
    wide = max(len(row.path) for row in rows)
    body = [f"  {r.path:<{wide}}  {r.kind:<20} {r.shape:>18} {r.parameters:>13,}" for r in rows]
    title = f"  {'layer':<{wide}}  {'kind':<20} {'output':>18} {'parameters':>13}"
    return result, "\n".join([head, "", title, *body])


def _info_run(workdir: pathlib.Path) -> tuple[Any, str]:
    from vitjax.train.report import show, table
    from vitjax.train.state import sha256

    config, _, checkpoints = _open_run(workdir)
    step, variables = checkpoints.read()
    best = checkpoints.best()
    result = {
        "workdir": str(workdir),
        "model": config["model"]["name"],
        "step": step,
        "metrics": checkpoints.metrics(step),
        "best": {"step": best[0], **best[1]} if best else None,
        "sha256": sha256(variables["params"]),
        "checkpoints": checkpoints.steps(),
    }
    rows = [
        ("model", result["model"]),
        ("step", str(step)),
        ("measured there", show(result["metrics"]) or "nothing"),
        ("best", f"step {best[0]}  {show(best[1])}" if best else "nothing evaluated yet"),
        ("SHA-256", result["sha256"]),
        ("checkpoints", ", ".join(map(str, result["checkpoints"]))),
    ]
    return result, table(rows)


def plan(options: argparse.Namespace) -> tuple[Any, str]:
    """Compiles a config's step for a topology: memory, collectives, estimated time, core-days."""
    import os

    if options.topology != "gpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a described TPU is not to be looked for
    from vitjax.models import model_options
    from vitjax.plan.fit import search
    from vitjax.plan.plan import make_plan
    from vitjax.plan.topology import open_topology
    from vitjax.teacher import outline
    from vitjax.train.config import load_config

    def config(more: dict[str, str]) -> Any:
        return load_config(options.config, {**options.fields, **more}, model_options)

    teacher = outline(config({}).distillation.teacher)  # mistakes are told before libtpu is loaded
    topology = open_topology(options.topology)

    def make(more: dict[str, str]) -> Any:
        return make_plan(
            config(more), topology, images=options.images, classes=options.classes, teacher=teacher,
            quick=options.quick,
        )  # fmt: skip

    if options.fit:
        return search(config({}), topology, make)
    found = make({})
    return found.to_dict(), found.report()


def predict(options: argparse.Namespace) -> tuple[Any, str]:
    """Classifies image files with a trained run: the top five classes with probabilities."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from vitjax.data.codecs.image import read_image
    from vitjax.data.transforms.crops import view
    from vitjax.models import from_config
    from vitjax.tasks.classification import normalize

    config, classes, checkpoints = _open_run(options.workdir)
    step, found = checkpoints.read(options.step)
    variables = {"params": found["ema"] or found["params"], **found["rest"]}
    d = config["data"]
    size = d["image_size"]
    model: Any = from_config(config["model"], len(classes), size)
    squash = jax.nn.softmax if config["loss"]["name"] == "softmax" else jax.nn.sigmoid

    @jax.jit
    def probabilities(image: Any) -> Any:
        pixels = normalize(image[None], tuple(d["mean"]), tuple(d["std"]))
        return squash(model.apply(variables, pixels)[0].astype(jnp.float32))

    seen = (d.get("eval_crop", 0.875), d.get("interpolation", "area"))
    views = (view(read_image(str(p)), size, *seen) for p in options.images)
    scores = [np.asarray(probabilities(view), np.float64) for view in views]
    result, lines = [], []
    for path, row in zip(options.images, scores, strict=True):
        top = [(classes[i], float(row[i])) for i in np.argsort(-row)[:5]]
        result.append({"image": str(path), "step": step, "top": [list(t) for t in top]})
        lines += [str(path), *(f"  {p:7.2%}  {name}" for name, p in top)]
    return result, "\n".join(lines)


def data(options: argparse.Namespace) -> tuple[Any, str]:
    """Writes a data set as ArrayRecord, resumable and verified: from TFRecord, or the archives."""
    from vitjax.data.prepare.imagenet import prepare_imagenet
    from vitjax.data.prepare.tfrecord import prepare
    from vitjax.train.report import table

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    if options.archives:
        if options.source != "imagenet2012" or options.data_dir:
            raise ValueError("--archives is for imagenet2012, and goes without --data-dir.")
        result = prepare_imagenet(options.archives, options.to, say)
    else:
        result = prepare(options.source, options.to, options.data_dir, say)
    return result, table((k, f"{v:,}" if isinstance(v, int) else v) for k, v in result.items())


def probe(options: argparse.Namespace) -> tuple[Any, str]:
    """Evaluates frozen features: weighted k-NN, few-shot least squares, a linear classifier."""
    from vitjax.probe import Settings, probe
    from vitjax.train.report import table

    o = options
    result = probe(
        o.model, o.data, o.test_data or o.data, (o.split, o.test_split), tuple(o.protocol),
        Settings(o.k, o.temperature, o.shots, o.draws, o.l2),
        batch_size=o.batch_size, num_threads=o.threads,
    )  # fmt: skip
    rows = ((k, f"{v:.2%}" if isinstance(v, float) else str(v)) for k, v in result.items())
    return result, table(rows)


def labels(options: argparse.Namespace) -> tuple[Any, str]:
    """Makes label maps with a trained model, resumable: what token_labels.maps then names."""
    from vitjax.labels import make_labels
    from vitjax.train.report import table

    o = options
    result = make_labels(
        o.teacher, o.data, o.split, o.to, k=o.k, image_size=o.image_size, batch_size=o.batch_size,
        num_threads=o.threads, on_bad_image=o.on_bad_image,
        say=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    return result, table((k, f"{v:,}" if isinstance(v, int) else str(v)) for k, v in result.items())


def _open_run(workdir: pathlib.Path) -> tuple[dict[str, Any], list[str], Any]:
    """Config, class names and checkpoints of a run's folder."""
    from vitjax.train.checkpoint import SavedSteps
    from vitjax.train.config import read_config

    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{workdir} is no run's folder: it has no config.json. Give the --workdir that "
            f"train.py "
            "was given."
        )
    classes = json.loads((workdir / "classes.json").read_text())
    return read_config(path), classes, SavedSteps(workdir / "checkpoints")


if __name__ == "__main__":
    sys.exit(main())
