"""The command `vitjax eval`."""

import argparse
import pathlib
import sys
from typing import Any

from vitjax.tools.commands import MODEL_HELP


def evaluate(options: argparse.Namespace) -> tuple[Any, str]:
    """Measure a trained model on any data: metrics, classes, calibration, every image.

    The data is URIs as `vitjax train` takes them, or test sets by their names, each scored by its
    paper's rules: imagenet2012, imagenet_v2, imagenet_r, imagenet_a, imagenet2012_real,
    imagenet2012_corrupted (mCE; …/fog is one corruption, …/fog_3 at one severity). TFDS prepares
    them; 'imagenet_r?data_dir=FOLDER' says where. Without --data: the run's own evaluations.

    Images are seen as the run, or the weights, say. --config.data.eval_crop=1.0 and the like
    replace it; so do --config.segmentation.eval_size and other fields of evaluations.
    """
    from vitjax.console import progress
    from vitjax.tools.calibration import BINS
    from vitjax.tools.evaluate import Evaluator, Options, open_subject, run_evaluations
    from vitjax.tools.evaluation_report import report
    from vitjax.tools.tables import check_format

    o = options
    if o.format and not o.out:
        raise ValueError(
            f"--format={o.format} is of the files that go to --out; give --out=FOLDER."
        )
    if (o.split or o.own_classes) and not o.data:
        raise ValueError("--split and --own-classes are of --data; give --data=URI.")
    check_format(o.format)
    subject = open_subject(o.model, o.step, o.fields)
    if o.bins is not None and (o.bins < 1 or subject.config.task != "classification"):
        raise ValueError(
            f"--bins={o.bins} is of the confidence of classifiers, 1 or more; this model's task is "
            f"{subject.config.task}."
        )

    def tick(done: int, total: int) -> None:
        if not o.json and sys.stdout.isatty():
            progress(f"{done:,} of {total:,} images", last=done == total)

    settings = Options(
        o.split, o.own_classes, o.bins or BINS, o.batch_size, o.threads, o.on_bad_image
    )
    evaluator = Evaluator(subject, settings, say, tick)
    found, texts = {}, []
    for name, parts in run_evaluations(evaluator, o.data):
        found[name], text = report(name, parts, o.out, o.format or "csv", o.model)
        texts.append(text)
    result = {"model": o.model, "step": subject.step, "evaluations": found}
    return result, "\n\n".join(texts)


def add_eval_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `eval`."""
    add = sub.add_argument
    add("model", help=MODEL_HELP)
    add("--data", nargs="+", default=(), metavar="URI", help="what is measured on (the run's own "
        "evaluations)")  # fmt: skip
    add("--split", default="", help="of the data (test, or the one of a test set)")
    add(
        "--own-classes",
        action="store_true",
        help="score over the classes of the data alone, "
        "where the model has more; ImageNet-R and -A always are",
    )
    add(
        "--out",
        type=pathlib.Path,
        metavar="FOLDER",
        help="where tables and pictures go (none are written)",
    )
    add("--format", choices=("csv", "parquet"), default="", help="of the table of images (csv)")
    add("--step", type=int, help="checkpoint of the run to use (the latest)")
    add("--bins", type=int, help="of confidence, for the calibration error (15)")
    add("--batch-size", type=int, default=64, help="(64)")
    add("--threads", type=int, default=4, help="that read images (4)")
    add("--on-bad-image", choices=("fail", "skip"), default="fail", help="(fail)")


def say(text: str) -> None:
    """Print a message to the terminal, beside the result."""
    print(text, file=sys.stderr)
