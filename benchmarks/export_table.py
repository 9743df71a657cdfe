"""Export models of every family, head and mixer to ONNX, and write the table of docs/export.md.

  python benchmarks/export_table.py       # those without a row yet; needs the extra `onnx`
  --only=SETR --again                     # of these, all anew

Each row is a model with random weights, a normal of variance one over fan-in. The outputs of ONNX
Runtime are compared with those of JAX in batches of 1 and 7.
"""

import argparse
import json
import math
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from plan_table import ROOT, write

from vitjax import create_model
from vitjax.attention import MIXERS
from vitjax.runs import Trained
from vitjax.tools.export import write as export
from vitjax.tools.export.given import Given, program

ROWS = ROOT / "benchmarks" / "exported.json"
HEAD = ["| Model | Opset | Largest difference | Largest number |", "|---|---|---|---|"]
SWIN = "swin_tiny(dims=(16,32,64,128),depths=(1,1,1,1),num_heads=(1,2,4,8))"
VIT = "vit_ti16(width=16,depth=4,num_heads=2)"
NARROW: dict[str, tuple[str, dict[str, Any], int]] = {
    "ViT": ("vit_ti16", dict(width=16, depth=2, num_heads=2), 32),
    "ViT, `pool=map`": ("vit_ti16", dict(width=16, depth=1, num_heads=2, pool="map"), 32),
    "ViT, `scan`": ("vit_ti16", dict(width=16, depth=2, num_heads=2, scan=True), 32),
    "Swin, maps that windows do not divide": (
        "swin_tiny",
        dict(dims=(8, 16), depths=(2, 1), num_heads=(1, 2), window_size=4),
        40,
    ),
    "SegFormer on Swin": ("segformer", dict(backbone=SWIN, width=16), 64),
    "UPerNet on Swin": ("upernet", dict(backbone=SWIN, width=16), 64),
    "Semantic FPN on Swin": ("semantic_fpn", dict(backbone=SWIN), 64),
    "SETR-Naïve": ("setr_naive", dict(backbone=VIT, width=8), 64),
    "SETR-PUP": ("setr_pup", dict(backbone=VIT, width=8), 64),
    "SETR-MLA": ("setr_mla", dict(backbone=VIT, width=8, layers=(0, 1, 2, 3)), 64),
    "RefineNet on ResNet-50": ("refinenet", dict(backbone="resnet50"), 64),
    "Uformer": ("uformer_t", dict(width=8, depths=(1,) * 9, num_heads=(1,) * 9), 128),
    **{
        f"`{mixer}` on Swin": (
            "swin_tiny",
            dict(dims=(16, 32), depths=(1, 1), num_heads=(2, 4))
            | ({} if mixer == "window" else {"mixer": mixer}),
            56,
        )
        for mixer in MIXERS
    },
}
WHOLE = (
    "vit_ti16", "deit_tiny_distilled", "r_vit_ti16", "bit_r50x1", "resnet50", "swin_tiny",
    "swinv2_tiny_w8", "pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li", "mit_b0", "dat_tiny", "dat_pp_tiny",
    "biformer_tiny", "debiformer_tiny", "volo_d1", "efficientnet_b0", "coatnet_0",
    "coatnet_nano_rw", "mixer_s32", "efficientformer_l1", "ghostnet_100", "ranet_cifar_3scale",
    "container_light", "poolformer_s12", "convnext_atto", "cait_xxs24", "deit3_small",
    "mobile_former_26m", "resnet50_nonlocal", "segformer_b0",
)  # fmt: skip


def given(name: str, options: dict[str, Any], size: int | None) -> Given:
    """Build a model with random weights; a size of None is the model's default."""
    classes = None if name.startswith("uformer") else 10
    model = create_model(name, classes, **options, **({"image_size": size} if size else {}))
    size = size or getattr(model, "image_size", None) or 224
    side = size if isinstance(size, int) else size[0]
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        key = jax.tree_util.keystr(path)
        x = rng.standard_normal(leaf.shape, np.float32)
        if "var" in key or key.endswith("['scale']"):
            return 1 + 0.1 * np.abs(x)
        fan_in = math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return x / np.float32(math.sqrt(fan_in))

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    half = (0.5, 0.5, 0.5)
    trained = Trained(model, variables, half, half, side, 0.875, "bicubic", None)
    return Given(name, name, options, trained, {})


def row(label: str, name: str, options: dict[str, Any], size: int | None) -> str:
    """Export a model, and format its row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = given(name, options, size)
            found = export(model, "onnx", pathlib.Path(folder) / "a")
        except ValueError as error:
            return f"| {label} | no: {str(error).splitlines()[0]} | | |"
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (7, *model.size, model.channels), np.uint8)
    largest = float(np.max(np.abs(jax.jit(program(model))(images))))
    return f"| {label} | {found['opset']} | {found['largest_difference']:.1e} | {largest:.3g} |"


def main() -> None:
    """Export what has no row yet, and write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="those whose name has this text")
    parser.add_argument("--again", action="store_true", help="also those that have a row")
    options = parser.parse_args()
    cases = NARROW | {f"`{name}`, whole": (name, {}, None) for name in WHOLE}
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    for label, case in cases.items():
        if options.only in label and (options.again or label not in rows):
            rows[label] = row(label, *case)
            print(rows[label], flush=True)
            ROWS.write_text(json.dumps(rows, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
            lines = [rows[label] for label in cases if label in rows]
            write("onnx", "\n".join([*HEAD, *lines]), ROOT / "docs" / "export.md")


if __name__ == "__main__":
    main()
