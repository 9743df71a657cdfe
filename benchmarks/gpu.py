"""Measure training on one card beside timm compiled by `torch.compile`, and hold it against goals.

  python benchmarks/gpu.py                    # writes benchmarks/gpu/NAME-OF-THE-CARD.json
  --models=vit_s16,swin_tiny --batch-size=128 --repeats=7
  --torch-python=PATH                         # the Python that has torch and timm
  --small --out=FILE                          # a dry run on any device: narrow blocks, few images

bfloat16, one card, images of 224 pixels that are there already; loss, gradient, clipping, AdamW.
Each contestant is a process of its own, and they take turns (`vitjax bench --against timm`) on one
card, whose memory they share: a batch that fits alone may be halved (`--alone` is without timm).
Goals are of one H100 SXM: images a second for the ViTs, and for the others 1.2 times timm's
compiled model. What the card or timm does not allow to judge is not judged. Needs the extra `cuda`,
torch for the same card, and timm.
"""

import argparse
import json
import pathlib
import re
import sys
import time
from typing import Any

from vitjax.console import clock
from vitjax.tools.bench.measure import RIVALS, Settings, check_rivals, measure, name_in_timm
from vitjax.tools.bench.report import paragraph

GOALS: dict[str, float] = {"vit_s16": 10_700.0, "vit_b16": 3_750.0, "vit_l16": 1_070.0}
"""Model → images a second of one H100."""
RATIO = 1.2
"""What the other models are to be, of timm's compiled speed on the same card."""
MODELS = (*GOALS, "swin_tiny", "pvt_v2_b2", "biformer_tiny", "debiformer_tiny")
SMALL = {  # the dry run's sizes
    "vit_s16": "vit_s16(depth=1, width=16, num_heads=1)",
    "vit_b16": "vit_b16(depth=1, width=16, num_heads=1)",
    "vit_l16": "vit_l16(depth=1, width=16, num_heads=1)",
    "swin_tiny": "swin_tiny(depths=(1, 1), dims=(8, 16), num_heads=(1, 2))",
    "pvt_v2_b2": "pvt_v2_b2(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_heads=(1, 1, 1, 1))",
    "biformer_tiny": "biformer_tiny(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))",
    "debiformer_tiny": "debiformer_tiny(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))",
}


def judge(row: dict[str, Any], model: str) -> dict[str, Any]:
    """Hold a row against its goal; `reached` is None where nothing can be said.

    Returns:
      "goal" in words, "reached", and the number that was compared.
    """
    rate = row["train_samples_per_sec"]
    if model in GOALS:
        known = re.search(r"\bH100\b", row["device"]) is not None
        words = f"{GOALS[model]:,.0f} images/s on one H100"
        return {"goal": words, "value": rate, "reached": rate >= GOALS[model] if known else None}
    ratio = row.get("train_timm_compiled_ratio")
    words = f"{RATIO} times timm, compiled"
    return {"goal": words, "value": ratio, "reached": None if ratio is None else ratio >= RATIO}


def say_of(found: dict[str, Any]) -> str:
    """Format a judgement."""
    verdict = {True: "reached", False: "missed", None: "not judged here"}[found["reached"]]
    value = "" if found["value"] is None else f" ({found['value']:,.2f})"
    return f"  goal: {found['goal']}: {verdict}{value}"


def main() -> int:
    """Measure the models, print each with its goal, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", default=",".join(MODELS))
    add("--batch-size", type=int, default=0, help="(256; halved where memory is short)")
    add("--repeats", type=int, default=5)
    add("--seconds", type=float, default=2.0, help="the least that a turn takes (2)")
    add("--torch-python", default=sys.executable)
    add("--small", action="store_true", help="a dry run, whose numbers mean nothing")
    add("--alone", action="store_true", help="without timm")
    add("--out", type=pathlib.Path, help="(benchmarks/gpu/NAME-OF-THE-CARD.json)")
    o = parser.parse_args()
    models = o.models.split(",")
    if not o.alone:
        check_rivals(o.torch_python)
    settings = Settings(
        directions=("train",), batch=2 if o.small else o.batch_size, size=32 if o.small else 224,
        dtype="bfloat16", repeats=o.repeats, seconds=0.0 if o.small else o.seconds,
        against=() if o.alone else tuple(RIVALS), torch_python=o.torch_python,
        # timm's stay whole in a dry run, which only shows that they run.
        timm_names={SMALL[m]: name for m in models if (name := name_in_timm(m))},
    )  # fmt: skip
    names = [SMALL[model] if o.small else model for model in models]
    rows, begin, out = [], time.perf_counter(), o.out
    for row in measure(names, settings, lambda text: print(text, file=sys.stderr)):
        model = models[len(rows)]
        judged = {} if row["figures"] == "failed" else judge(row, model)
        rows.append({**row, **judged, "small": o.small})
        print("\n".join([*paragraph(row), *([say_of(judged)] if judged else [])]), flush=True)
        left = (time.perf_counter() - begin) / len(rows) * (len(models) - len(rows))
        print(f"{len(rows)} of {len(models)}, ETA {clock(left)}", file=sys.stderr)
        if out is None and judged:
            card = re.sub(r"[^a-z0-9]+", "-", row["device"].lower()).strip("-")
            out = pathlib.Path(__file__).parent / "gpu" / f"{card}.json"
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"written to {out}" if out else "nothing ran, nothing written", file=sys.stderr)
    return 0 if all(row["figures"] == "measured" for row in rows) else 2


if __name__ == "__main__":
    sys.exit(main())
