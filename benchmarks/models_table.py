"""Writes docs/models.md: what each model costs here, beside what was published of it.

`python benchmarks/models_table.py` traces every model of the menu (minutes, progress with an ETA);
nothing is executed on data. `--check` compares with the file that is there instead.
"""

import pathlib
import sys
import time
from typing import NamedTuple

from vitjax.analysis.cost import trace
from vitjax.console import clock, progress
from vitjax.models import MODELS, create_model

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "models.md"


class Family(NamedTuple):
    """Where a family was published, and what holds ours against it.

    Attributes:
      code: the official code and its licence.
      source: of the published figures.
      golden: what the tests compare with the official code's numbers.
      published: name → (parameters in millions, multiply-adds in G, top-1 in %, remark); figures
        that the source does not give are None.
    """

    paper: str
    code: str
    source: str
    golden: str
    published: dict[str, tuple[float | None, float | None, float | None, str]]


I21K, JFT = "ImageNet-21k first, fine-tuned", "JFT-300M first, fine-tuned at higher resolution"
FAMILIES = {
    "vit": Family(
        "[ViT](https://arxiv.org/abs/2010.11929), [Scaling](https://arxiv.org/abs/2106.04560), "
        "[Registers](https://arxiv.org/abs/2309.16588)",
        "google-research/vision_transformer, Apache-2.0",
        "parameters: ViT paper, table 1, and Scaling, table 2; top-1: ViT paper, table 5, at 384 "
        "pixels (H/14 392), G/14: Scaling, table 1",
        "Ti/16 and B/32: logits, stages, gradients",
        {
            "vit_b16": (86, None, 83.97, I21K), "vit_b32": (None, None, 81.28, I21K),
            "vit_l16": (307, None, 85.15, I21K), "vit_l32": (None, None, 80.99, I21K),
            "vit_h14": (632, None, 85.13, I21K), "vit_g14": (1011, None, None, ""),
            "vit_G14": (1843, None, 90.45, "JFT-3B first, fine-tuned"),
        },
    ),
    "r": Family(
        "[ViT](https://arxiv.org/abs/2010.11929), section 4.1, and "
        "[AugReg](https://arxiv.org/abs/2106.10270)",
        "google-research/vision_transformer, Apache-2.0", "AugReg, table 2",
        "`r_vit_ti16`, `r50_vit_b16`: logits, stages, gradients",
        {
            "r_vit_ti16": (6.4, None, None, ""), "r26_vit_s32": (36.6, None, None, ""),
            "r50_vit_l32": (330.0, None, None, ""),
        },
    ),
    "bit": Family(
        "[BiT](https://arxiv.org/abs/1912.11370)", "google-research/big_transfer, Apache-2.0",
        "BiT paper, table 1",
        "none: the block is compared with its formula",
        {"bit_r152x4": (None, None, 87.54, JFT)},
    ),
    "deit": Family(
        "[DeiT](https://arxiv.org/abs/2012.12877)", "facebookresearch/deit, Apache-2.0",
        "the repository's README", "tiny, distilled: logits, stages, gradients",
        {
            "deit_tiny": (5, None, 72.2, ""), "deit_small": (22, None, 79.9, ""),
            "deit_base": (86, None, 81.8, ""), "deit_tiny_distilled": (6, None, 74.5, ""),
            "deit_small_distilled": (22, None, 81.2, ""),
            "deit_base_distilled": (87, None, 83.4, ""),
        },
    ),
    "swin": Family(
        "[Swin](https://arxiv.org/abs/2103.14030)", "microsoft/Swin-Transformer, MIT",
        "the repository's README", "tiny: logits, stages, gradients",
        {
            "swin_tiny": (28, 4.5, 81.2, ""), "swin_small": (50, 8.7, 83.2, ""),
            "swin_base": (88, 15.4, 83.5, ""), "swin_base_384": (88, 47.1, 84.5, ""),
            "swin_large": (197, 34.5, 86.3, I21K), "swin_large_384": (197, 103.9, 87.3, I21K),
        },
    ),
    "swinv2": Family(
        "[Swin V2](https://arxiv.org/abs/2111.09883)", "microsoft/Swin-Transformer, MIT",
        "the paper, table 4 and appendix A", "tiny, window 8: logits, stages, gradients",
        {
            "swinv2_tiny_w8": (28, 5.9, 81.8, ""), "swinv2_small_w8": (50, 11.5, 83.7, ""),
            "swinv2_base_w8": (88, 20.3, 84.2, ""), "swinv2_tiny_w16": (28, 6.6, 82.8, ""),
            "swinv2_small_w16": (50, 12.6, 84.1, ""), "swinv2_base_w16": (88, 21.8, 84.6, ""),
            "swinv2_large_w16": (197, 47.5, 86.9, I21K), "swinv2_base_w24": (88, 54.7, 87.1, I21K),
            "swinv2_large_w24": (197, 115.4, 87.6, I21K),
        },
    ),
    "pvt": Family(
        "[PVT](https://arxiv.org/abs/2102.12122)", "whai362/PVT, Apache-2.0",
        "the repository's README", "tiny: logits, stages, gradients",
        {
            "pvt_tiny": (13.2, 1.9, 75.1, ""), "pvt_small": (24.5, 3.8, 79.8, ""),
            "pvt_medium": (44.2, 6.7, 81.2, ""), "pvt_large": (61.4, 9.8, 81.7, ""),
        },
    ),
    "pvt_v2": Family(
        "[PVT v2](https://arxiv.org/abs/2106.13797)", "whai362/PVT, Apache-2.0",
        "the repository's README; multiply-adds: the paper, table 1",
        "b0: logits, stages, gradients",
        {
            "pvt_v2_b0": (3.4, 0.6, 70.5, "the README says 3.4 M, the code has 3.67 M"),
            "pvt_v2_b1": (13.1, 2.1, 78.7, "the README says 13.1 M, the code has 14.0 M"),
            "pvt_v2_b2": (25.4, 4.0, 82.0, ""), "pvt_v2_b2_li": (22.6, 3.9, 82.1, ""),
            "pvt_v2_b3": (45.2, 6.9, 83.1, ""), "pvt_v2_b4": (62.6, 10.1, 83.6, ""),
            "pvt_v2_b5": (82.0, 11.8, 83.8, ""),
        },
    ),
    "dat": Family(
        "[DAT](https://arxiv.org/abs/2201.00520)", "LeapLabTHU/DAT, Apache-2.0",
        "the paper, table 2", "tiny: logits, stages, gradients",
        {
            "dat_tiny": (29, 4.6, 82.0, ""), "dat_small": (50, 9.0, 83.7, ""),
            "dat_base": (88, 15.8, 84.0, ""),
        },
    ),
    "dat_pp": Family(
        "[DAT++](https://arxiv.org/abs/2309.01430)", "LeapLabTHU/DAT, Apache-2.0",
        "the paper, table 3", "tiny: logits, stages, gradients",
        {
            "dat_pp_tiny": (24, 4.3, 83.9, ""), "dat_pp_small": (53, 9.4, 84.6, ""),
            "dat_pp_base": (93, 16.6, 84.9, ""),
        },
    ),
    "biformer": Family(
        "[BiFormer](https://arxiv.org/abs/2303.08810)", "rayleizhu/BiFormer, MIT",
        "the repository's README", "tiny: logits, stages, gradients, routed regions",
        {
            "biformer_tiny": (13.1, 2.2, 81.4, ""), "biformer_small": (25.5, 4.5, 83.8, ""),
            "biformer_base": (56.8, 9.8, 84.3, ""), "biformer_stl": (28.4, 4.6, 82.7, ""),
        },
    ),
    "debiformer": Family(
        "[DeBiFormer](https://arxiv.org/abs/2410.08582)", "maclong01/DeBiFormer, MIT",
        "the repository's README",
        "tiny: logits, stages, gradients, routed regions, of the released code with the two slips "
        "mended that keep it from running",
        {
            "debiformer_tiny": (21.4, 2.6, 81.9, ""), "debiformer_small": (44, 5.4, 83.9, ""),
            "debiformer_base": (77, 11.8, 84.4, "the README says 77 M, the code has 95.5 M"),
        },
    ),
    "volo": Family(
        "[VOLO](https://arxiv.org/abs/2106.13112)", "sail-sg/volo, Apache-2.0",
        "the repository's README; multiply-adds: the paper, table 1",
        "d1: logits, stages, gradients",
        {
            "volo_d1": (27, 6.8, 84.2, ""), "volo_d2": (59, 14.1, 85.2, ""),
            "volo_d3": (86, 20.6, 85.4, ""), "volo_d4": (193, 43.8, 85.7, ""),
            "volo_d5": (296, 69.0, 86.1, ""),
        },
    ),
}  # fmt: skip

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


def family_of(name: str) -> str:
    """The longest key of FAMILIES that begins the name; hybrids begin with r."""
    known = [key for key in FAMILIES if name.startswith(key + "_")]
    return max(known, key=len) if known else "r"


def page(names: list[str]) -> str:
    """The whole page."""
    lines, begin = [HEAD], time.perf_counter()
    for key, family in FAMILIES.items():
        lines += [
            f"\n## {family.paper}\n",
            f"Code: {family.code}. Published figures: {family.source}.",
            f"Held against the official code: {family.golden}.\n",
            "| Name | Pixels | Parameters | published | Multiply-adds | published | Top-1 | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name in (n for n in names if family_of(n) == key):
            lines.append(row(name, family.published.get(name)))
            done = sum(line.startswith("| `") for line in lines)
            left = (time.perf_counter() - begin) / done * (len(names) - done)
            progress(f"{done}/{len(names)} {name}  ETA {clock(left)}", last=done == len(names))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the page, or compares with it."""
    text = page(list(MODELS))
    if "--check" in sys.argv:
        return int(PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
