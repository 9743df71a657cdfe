"""Commands for trained models: predict, probe, exits, token-labels and export.

This file parses their arguments and prints their results; the work is in other modules.
"""

import argparse
import pathlib
import sys
from typing import Any

from vitjax.names import parse_size

MODEL_HELP = (
    "a run's folder; MODEL=WEIGHTS; or hf://owner/repo or a path, where the config.json of timm or "
    "transformers, or open_clip's, chooses the model"
)


def say(text: str) -> None:
    """Print a line for people, beside a command's result."""
    print(text, file=sys.stderr)


def predict(options: argparse.Namespace) -> tuple[Any, str]:
    """Show the predictions of a trained run for image files, and write its task's pictures.

    Rows come in the order of the files. A file that cannot be read costs its own row, which has the
    error, and the exit code is then 2. Ctrl-C keeps the rows so far.
    """
    from vitjax.tools.predict import predict
    from vitjax.tools.rows import report, split_outputs

    o = options
    tables, pictures = split_outputs(o.out)
    found = predict(o.workdir, o.images, o.step, o.references, pictures, o.batch_size, o.threads)
    result, text, o.code = report(found, tables, o.json)
    return result, text


def predict_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    add = sub.add_argument
    add(
        "images",
        nargs="+",
        help="image files, folders of them, patterns such as "
        "'photos/**/*.jpg' (quote them); - for names on the standard input",
    )
    add("--workdir", type=pathlib.Path, required=True, help="the run's folder")
    add("--step", type=int, help="checkpoint to use (the latest)")
    add(
        "--references",
        type=pathlib.Path,
        help="a folder of files with the images' names: what "
        "should come out, for tasks that compare with it",
    )
    add("--out", type=pathlib.Path, action="append", default=[], metavar="PATH", help="FILE.csv or "
        "FILE.jsonl for the rows, written as they come; or a folder for pictures (predictions in "
        "the run's); may be given again")  # fmt: skip
    add("--batch-size", type=int, default=0, help="(the run's eval_batch_size, 64 at most)")
    add("--threads", type=int, default=0, help="that read images (one a core, 16 at most)")


def probe(options: argparse.Namespace) -> tuple[Any, str]:
    """Evaluate frozen features: weighted k-NN, few-shot least squares, a linear classifier.

    --layers evaluates those of every block, and not of the last one alone.
    """
    from vitjax.console import table
    from vitjax.tools import probe as probing
    from vitjax.train.probes import ProbesConfig

    o = options
    config = ProbesConfig(
        protocols=tuple(o.protocol),
        k=o.k,
        temperature=o.temperature,
        shots=o.shots,
        draws=o.draws,
        l2=o.l2,
    )
    if o.picture and not o.layers:
        raise ValueError("--picture is of the accuracy over depth: it goes with --layers.")
    measure: Any = probing.probe_blocks if o.layers else probing.probe
    found = measure(
        o.model, o.data, o.test_data or o.data, (o.split, o.test_split), config,
        batch_size=o.batch_size, num_threads=o.threads,
    )  # fmt: skip
    if not o.layers:
        rows = ((k, f"{v:.2%}" if isinstance(v, float) else str(v)) for k, v in found.items())
        return found, table(rows)
    if o.picture:
        from vitjax.analysis.plots import plot_probes

        plot_probes(found).savefig(o.picture, dpi=150)
    top1 = {k: dict(zip(found.names, v.tolist())) for k, v in found.top1.items()}
    rows = ((n, "  ".join(f"{k} {v[n]:.2%}" for k, v in top1.items())) for n in found.names)
    return {"model": o.model, "chance": found.chance, **top1}, table(rows)


def probe_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `probe`."""
    add, protocols = sub.add_argument, ("knn", "fewshot", "linear")
    add("model", help=MODEL_HELP)
    add("--data", required=True, help="labelled images, as `vitjax train` takes them")
    add("--test-data", default="", help="those that are asked about (--data)")
    add("--split", default="train", help="of the labelled images (train)")
    add("--test-split", default="test", help="(test)")
    add("--protocol", nargs="+", choices=protocols, default=protocols, help="(all)")
    add("--layers", action="store_true", help="of every block (of what the head reads)")
    add(
        "--picture", type=pathlib.Path, metavar="FILE.png", help="accuracy over depth, for --layers"
    )
    add("--k", type=int, default=20, help="neighbours (20)")
    add("--temperature", type=float, default=0.07, help="of their votes (0.07)")
    add("--shots", type=int, default=5, help="images of a class (5)")
    add("--draws", type=int, default=3, help="of few shots, averaged (3)")
    add("--l2", type=float, default=1.0, help="of the linear classifier (1)")
    add("--batch-size", type=int, default=64, help="(64)")
    add("--threads", type=int, default=4, help="that read images (4)")


def exits(options: argparse.Namespace) -> tuple[Any, str]:
    """Measure a model with early exits: accuracy against computation, and the time it takes.

    Anytime: every image leaves at the same exit. Budgeted: each leaves once it is sure enough, by
    thresholds from held-out images. Some budgets, and the cheapest that loses at most --tolerance
    there, are then timed, with images that really exit, beside the whole model.
    """
    from vitjax.tools.early_exits import draw, measure, report

    o = options
    found = measure(
        o.model,
        o.data,
        o.test_data or o.data,
        (o.held_out, o.test_split),
        tolerance=o.tolerance,
        batch_size=o.batch_size,
    )
    if o.picture:
        say(f"{draw(o.picture, found)}")
    return report(found)


def exits_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `exits`."""
    add = sub.add_argument
    add("model", help=MODEL_HELP)
    add("--data", required=True, help="where the held-out images are, as `vitjax train` takes them")
    add("--held-out", required=True, metavar="SPLIT", help="images that training has not seen, "
        "from which the thresholds come, such as 'train[80%%:]'")  # fmt: skip
    add("--test-data", default="", help="the images that are asked about (--data)")
    add("--test-split", default="test", help="(test)")
    add("--tolerance", type=float, default=0.005, help="accuracy that may be lost (0.005)")
    add("--batch-size", type=int, default=64, help="(64)")
    add(
        "--picture",
        type=pathlib.Path,
        metavar="FILE.png",
        help="accuracy against multiply-adds and time",
    )


def token_labels(options: argparse.Namespace) -> tuple[Any, str]:
    """Make label maps with a trained model, for token_labels.maps; a rerun resumes."""
    from vitjax.console import table
    from vitjax.tools.token_labels import make_labels

    o = options
    result = make_labels(
        o.teacher, o.data, o.split, o.to, k=o.k,
        image_size=parse_size(o.image_size) if o.image_size else 0, batch_size=o.batch_size,
        num_threads=o.threads, on_bad_image=o.on_bad_image, say=say,
    )  # fmt: skip
    return result, table((k, f"{v:,}" if isinstance(v, int) else str(v)) for k, v in result.items())


def token_labels_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `token-labels`."""
    add = sub.add_argument
    add("teacher", help=MODEL_HELP)
    add("--data", required=True, help="the training images, as `vitjax train` takes them")
    add("--split", default="train", help="(train)")
    add("--to", type=pathlib.Path, required=True, help="the folder of the maps")
    add("--k", type=int, default=5, help="classes kept of each cell (5)")
    add("--image-size", default="", help="what the teacher sees: a side, or '(32, 64)' (its own)")
    add("--batch-size", type=int, default=64, help="(64)")
    add("--threads", type=int, default=4, help="that read images (4)")
    add("--on-bad-image", choices=("fail", "skip"), default="fail")


def export(options: argparse.Namespace) -> tuple[Any, str]:
    """Write a trained model for programs without vitjax: docs/export.md.

    stablehlo, onnx, torch (weights by the authors' names), or hub (a folder that timm opens).
    """
    from vitjax.tools.export import export

    return export(options.model, options.to, options.folder)


def export_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    add = sub.add_argument
    add(
        "model",
        metavar="RUN|MODEL=WEIGHTS",
        help="a run's folder, or published "
        "weights; without MODEL= the config beside them chooses the model",
    )
    add("folder", type=pathlib.Path, metavar="DIR", help="a new folder")
    add("--to", required=True, metavar="FORMAT", help="stablehlo, onnx, torch or hub")
