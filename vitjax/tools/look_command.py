"""The command `look`: a page of what a model sees, a picture, or a check."""

import argparse
import pathlib
from typing import Any

from vitjax.names import check_choice, parse_size
from vitjax.tools.commands import MODEL_HELP, say

PICTURES = (
    *("rollout", "heads", "depth", "distances", "points", "regions", "agents", "outlook"),
    *("filters", "positions", "field", "similarity", "lens", "gradcam", "layercam"),
    *("gradient-rollout", "integrated-gradients"),
)
"""Names of `look_pictures.PICTURES`, which is heavy to import."""


def look(options: argparse.Namespace) -> tuple[Any, str]:
    """Show where a model looks: one page for the browser, which needs no network.

    --picture draws one of the papers' pictures instead, and --check measures what maps of
    importance are worth, beside a random map. Attention is not an explanation.
    """
    from vitjax.tools import look as looking

    o = options
    names = [*o.model, *(str(folder) for folder in o.workdir)]
    _check_options(o, names)
    size = parse_size(o.image_size) if o.image_size else 0
    subjects = [looking.open_subject(name, size) for name in names]
    for subject in subjects:
        say(f"{subject.name}: {subject.note}")
    if o.check:
        from vitjax.analysis.plots import plot_check

        found = looking.check(subjects[0], o.images, say)
        if o.out:
            plot_check(found).savefig(o.out, dpi=150)
        return looking.check_report(found)
    if o.picture:
        from vitjax.tools.look_pictures import draw

        figure = draw(o.picture, subjects, o.images, layer=o.layer, query=parse_query(o.query),
                      head=o.head, label=o.label)  # fmt: skip
        out = o.out or pathlib.Path(f"{o.picture}.png")
        figure.savefig(out, dpi=150)
        return {"out": str(out), "picture": o.picture, "models": names}, str(out)
    page, images = looking.make_page(subjects, o.images, o.megabytes)
    out = page.save(o.out or "look.html")
    count = out.stat().st_size
    text = f"{out}: {count / 1e6:.2f} MB; {', '.join(names)}; {', '.join(images)}"
    return {"out": str(out), "bytes": count, "models": names, "images": images}, text


def _check_options(o: argparse.Namespace, names: list[str]) -> None:
    """Refuse what does not go together.

    Raises:
      ValueError: so it is.
    """
    if not names:
        raise ValueError("Which model? Give --model=NAME or MODEL=WEIGHTS, or --workdir=RUN.")
    if len(names) > 2 or (len(names) > 1 and (o.check or o.picture not in ("", "similarity"))):
        raise ValueError(
            f"{len(names)} models: a page and --picture similarity show one or two, all others one."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{names[0]!r} is given twice; give one model, or two that differ.")
    if o.check and o.picture:
        raise ValueError("--check and --picture are two commands; give one of them.")
    if o.picture:
        check_choice("picture", o.picture, PICTURES)
    if not o.picture and not o.images:
        raise ValueError("Which image? Name at least one file.")
    if not o.megabytes > 0:
        raise ValueError(f"--megabytes={o.megabytes} must be more than 0.")
    given = {
        "--layer": o.layer,
        "--query": o.query,
        "--head": o.head is not None,
        "--class": o.label,
    }
    if not o.picture and (flags := [flag for flag, value in given.items() if value]):
        raise ValueError(f"{flags[0]} is for --picture; on the page every one can be chosen.")


def parse_query(text: str) -> int | tuple[int, int] | None:
    """Parse "112,80", a pixel's row and column, or "0", a token; None for an empty text.

    Raises:
      ValueError: the text has neither form.
    """
    if not text:
        return None
    parts = text.strip("() ").split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(
            f"Query {text!r} must be a pixel's row and column, such as 112,80, or the "
            f"number of a token, such as 0."
        )
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def look_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `look`."""
    add = sub.add_argument
    add("images", nargs="*", help="image files, folders of them, or patterns (quote them)")
    add("--model", action="append", default=[], metavar="MODEL", help=f"{MODEL_HELP}; or the name "
        "of a model, with random weights; a second one is shown beside the first")  # fmt: skip
    add("--workdir", action="append", default=[], type=pathlib.Path, metavar="RUN",
        help="a run's folder, likewise")  # fmt: skip
    add("--out", type=pathlib.Path, metavar="FILE", help="look.html, or PICTURE.png")
    add(
        "--image-size",
        default="",
        help="for a model named without weights: pixels per side, or '(32, 64)' (its own)",
    )
    add("--megabytes", type=float, default=6.0, help="of the page, for each image and model (6); "
        "where more would be needed, fewer queries are kept, and the page says so")  # fmt: skip
    add("--picture", default="", metavar="NAME", help=", ".join(PICTURES))
    add("--layer", default="", help="for --picture: such as stage_2/block_5 (the last that fits)")
    add(
        "--query",
        default="",
        help="for --picture: 112,80, a pixel's row and column, or 0, the "
        "class token (the middle; for rollout what the head reads)",
    )
    add("--head", type=int, help="for --picture points (all)")
    add("--class", dest="label", default="", metavar="CLASS", help="for --picture gradcam and "
        "its like: a class's name or number (the most probable)")  # fmt: skip
    add(
        "--check",
        action="store_true",
        help="deletion, insertion and random weights, of some "
        "dozens of images; methods that are no better than a random map are marked",
    )
