"""Writes docs/models.md: what each model costs here, beside what was published of it.

`python benchmarks/models_table.py` traces every model of the menu (minutes, progress with an ETA);
nothing is executed on data. `--check` compares with the file that is there instead.
"""

import pathlib
import sys
import time

from vitjax.analysis.cost import trace
from vitjax.console import clock, progress
from vitjax.models import FAMILIES, MODELS, create_model

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "models.md"


HEAD = """# Models

Written by `python benchmarks/models_table.py`: every model on the menu, with 1000 classes, at the
image size of its variant. Multiply-adds are those of convolutions and matrix products, attention
included, of one image (the published "FLOPs" are these; products that stand for a lookup are not
counted). Published figures are quoted from the source named with each family. Nothing here was
trained on ImageNet by us: the accuracies are the authors', and what ties ours to theirs is the last
line above each table: outputs and gradients of the same weights, held to float32 noise in the tests
(`pytest -m golden`).
"""


def measure(name: str) -> tuple[int, int, int]:
    """Image size, parameters and multiply-adds."""
    model = create_model(name)
    side = getattr(model, "image_size", 224)
    return side, *trace(model, (1, side, side, 3))[:2]


def row(name: str, published: tuple | None) -> str:
    """One line of a family's table."""
    side, parameters, macs = measure(name)
    params, adds, top1, remark = published or (None, None, None, "")

    def show(value: float | None, unit: str) -> str:
        return "—" if value is None else f"{value:g} {unit}"

    return (
        f"| `{name}` | {side} | {parameters:,} | {show(params, 'M')} | {macs / 1e9:.3f} G "
        f"| {show(adds, 'G')} | {show(top1, '%')} | {remark} |"
    )


def page() -> str:
    """The whole page."""
    names = list(MODELS)
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
            lines.append(row(name, family.published.get(name)))
            done = sum(line.startswith("| `") for line in lines)
            left = (time.perf_counter() - begin) / done * (len(names) - done)
            progress(f"{done}/{len(names)} {name}  ETA {clock(left)}", last=done == len(names))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the page, or compares with it."""
    text = page()
    if "--check" in sys.argv:
        return int(PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
