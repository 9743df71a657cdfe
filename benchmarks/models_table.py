"""Write docs/models.md: parameters and multiply-adds of each model, beside published figures.

`python benchmarks/models_table.py` traces every model of the menu (minutes, progress with an ETA);
nothing is executed on data. `--check` compares with the existing files instead. README.md's table
follows from the families and that page; `--readme` writes it alone, in seconds. `--new` traces the
models without a row alone.
"""

import argparse
import importlib
import pathlib
import pkgutil
import re
import sys
import time

from vitjax import models
from vitjax.analysis.cost import trace
from vitjax.console import clock, progress
from vitjax.layers.maps import by_sides
from vitjax.models import FAMILIES, MODELS, create_model
from vitjax.models.family import Family
from vitjax.models.protocols import input_shape

ROOT = pathlib.Path(__file__).parent.parent
PAGE, README = ROOT / "docs" / "models.md", ROOT / "README.md"
BEGIN, END = "<!-- models -->\n", "<!-- end of models -->\n"
ALL = 4
"""Names of a family that the README lists; of more, the first and the last."""


HEAD = """# Models

Written by `python benchmarks/models_table.py`: every model on the menu, with 1000 classes (150
under dense heads, 91 or 90 in detectors of COCO, 10 of CIFAR, none where images are restored), at
the image size of its variant.
Multiply-adds are those of convolutions and matrix products, attention included, of one image (the
published "FLOPs" are these; products that stand for a lookup are not counted). Figures are quoted
from the source named with each family. Nothing here was trained on ImageNet by us: the accuracies
are the authors', and what ties ours to theirs is the last line above each table: outputs and
gradients of the same weights, held to float32 noise in the tests (`pytest -m golden`). Models of
clips have 400 classes, those of Kinetics, and under "Pixels" the frames of a clip before them.
"""


def measure(name: str) -> tuple[str, int, int]:
    """Compute image size, of clips with frames before it, parameters and multiply-adds."""
    model = create_model(name)
    shape = input_shape(model)
    return by_sides(shape[1:-2]), *trace(model, shape)[:2]


def row(name: str, published: tuple | None) -> str:
    """Format one line of a family's table."""
    side, parameters, macs = measure(name)
    params, adds, top1, remark = published or (None, None, None, "")

    def show(value: float | None, unit: str) -> str:
        return "—" if value is None else f"{value:g} {unit}"

    return (
        f"| `{name}` | {side} | {parameters:,} | {show(params, 'M')} | {macs / 1e9:.3f} G "
        f"| {show(adds, 'G')} | {show(top1, '%')} | {remark} |"
    )


def page(new: bool) -> str:
    """Format the whole page.

    Args:
      new: keep the rows that the page has.
    """
    names, known = list(MODELS), {}
    if new:
        known = {
            line.split("`")[1]: line for line in PAGE.read_text().splitlines() if "| `" in line
        }
    lines, begin = [HEAD], time.perf_counter()
    for family in FAMILIES:
        lines += [
            f"\n## {family.paper}\n",
            f"Code: {family.code}. Published figures: {family.source}.",
            f"Held against the official code: {family.golden}.\n",
            "| Name | Pixels | Parameters | published | Multiply-adds | published | Top-1 | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name in family.models:
            lines.append(known.get(name) or row(name, family.published.get(name)))
            done = sum(line.startswith("| `") for line in lines)
            left = (time.perf_counter() - begin) / done * (len(names) - done)
            progress(f"{done}/{len(names)} {name}  ETA {clock(left)}", last=done == len(names))
    return "\n".join(lines) + "\n"


def readme(page: str) -> str:
    """Return README.md with the table of families; parameters are those of docs/models.md."""
    files = {}
    for found in pkgutil.iter_modules(models.__path__):
        module = importlib.import_module(f"vitjax.models.{found.name}")
        families = (x for x in vars(module).values() if isinstance(x, Family))
        files |= {id(family): found.name for family in families}
    lines = [
        "| Paper | File | Names | Parameters (M) | Held against the official code |",
        "|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        file, names = files[id(family)], list(family.models)
        counts = [_parameters(page, name) for name in names]
        shown = ", ".join(f"`{name}`" for name in names)
        if len(names) > ALL:
            shown = f"`{names[0]}` … `{names[-1]}` ({len(names)})"
        low, high = min(counts) / 1e6, max(counts) / 1e6
        size = f"{low:.1f}" if low == high else f"{low:.1f} to {high:.1f}"
        link = f"[{file}.py](vitjax/models/{file}.py)"
        lines.append(f"| {family.paper} | {link} | {shown} | {size} | {family.golden} |")
    text = README.read_text()
    head, rest = text.split(BEGIN)
    return head + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1]


def _parameters(page: str, name: str) -> int:
    found = re.search(rf"^\| `{re.escape(name)}` \| [^|]* \| ([\d,]+) \|", page, re.MULTILINE)
    if found is None:
        sys.exit(f"docs/models.md has no row of {name!r}; run benchmarks/models_table.py.")
    return int(found[1].replace(",", ""))


def main() -> int:
    """Write the page and the README's table, or compare with them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    parser.add_argument("--new", action="store_true", help="trace models without a row alone")
    parser.add_argument("--readme", action="store_true", help="write the README's table alone")
    options = parser.parse_args()
    text = PAGE.read_text() if options.readme else page(options.new)
    if options.check:
        return int(PAGE.read_text() != text or README.read_text() != readme(text))
    PAGE.write_text(text)
    README.write_text(readme(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
