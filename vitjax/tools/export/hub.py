"""A folder that `timm.create_model("local-dir:DIR", pretrained=True)` opens, with a model card.

A model of a family that timm has is described by the arguments of timm's class. An option that timm
does not have is refused, so that logits are equal.
"""

import json
import math
import pathlib
import re
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from vitjax.layers.spec import defaults
from vitjax.models import model_spec
from vitjax.models.efficientformer import efficientformer
from vitjax.models.hybrid import VARIANTS as HYBRIDS
from vitjax.models.swin import swin
from vitjax.models.swinv2 import swinv2
from vitjax.tools.export.card import model_card
from vitjax.tools.export.given import Given, preprocessing, refuse_dense
from vitjax.tools.export.timm_arguments import IN_TIMM, TIMM
from vitjax.tools.export.torch import state_dict

Options = dict[str, Any]
_INTERPOLATIONS = {
    "bicubic": "bicubic",
    "antialias": "bilinear",
    "bilinear": "bilinear",
    "area": "box",
}

RUNNER = '''"""Classify images with the model in this folder: python run.py FILE … (needs timm)."""

import pathlib
import sys

import timm
import torch
from PIL import Image, ImageOps

MODEL = timm.create_model(f"local-dir:{pathlib.Path(__file__).parent}", pretrained=True).eval()
TRANSFORM = timm.data.create_transform(**timm.data.resolve_model_data_config(MODEL))
for path in sys.argv[1:]:
    with torch.inference_mode():
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        logits = MODEL(TRANSFORM(image)[None])[0]
    names = MODEL.pretrained_cfg["label_names"]
    best = logits.topk(min(5, len(logits)))
    print(path, *(f"{names[k]} ({v:.3f})" for v, k in zip(*best)), sep="\\n  ")
'''


def write(given: Given, folder: pathlib.Path) -> dict[str, Any]:
    """Write config.json, model.safetensors, README.md and run.py.

    Raises:
      ValueError: timm has no such model.
    """
    refuse_dense(given, "hub")
    if given.gives == "features":
        raise ValueError(f"{given.name!r} has no classes here; --to hub needs a classifier.")
    architecture, arguments = timm_model(given)
    if given.channels != 3:
        arguments["in_chans"] = given.channels
    config = {
        "architecture": architecture,
        "num_classes": len(given.classes),
        "label_names": list(given.classes),
        "model_args": arguments,
        "pretrained_cfg": pretrained_config(given),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    arrays = timm_names(given, state_dict(given))
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    (folder / "README.md").write_text(model_card(given, architecture, arrays))
    (folder / "run.py").write_text(RUNNER)
    return {"architecture": architecture, "arrays": len(arrays)}


def pretrained_config(given: Given) -> dict[str, Any]:
    """Build the config that timm reads: images, classes and names."""
    how, timm = preprocessing(given), IN_TIMM[model_spec(given.name).factory]
    hybrid = given.name in HYBRIDS
    return {
        "num_classes": len(given.classes),
        "input_size": [given.channels, *given.size],
        "fixed_input_size": not timm.any_size,
        "interpolation": _INTERPOLATIONS[how["interpolation"]],
        "crop_pct": how["crop"] or 1.0,
        "crop_mode": "center" if how["crop"] else "squash",
        "mean": how["mean"],
        "std": how["std"],
        "first_conv": "patch_embed.backbone.stem.conv" if hybrid else timm.first,
        "classifier": timm.classifier,
    }


def timm_names(given: Given, arrays: dict[str, Any]) -> dict[str, Any]:
    """Translate names of arrays to timm's where they differ from the authors'."""
    factory = model_spec(given.name).factory
    if factory is efficientformer:
        return arrays | {
            key.replace("biases", "bias_idxs"): _distances(array.shape[1])
            for key, array in arrays.items()
            if key.endswith(".attention_biases")
        }
    if factory not in (swin, swinv2):
        return arrays  # timm's are those, or it translates them

    def rename(key: str) -> str:
        key = re.sub(
            r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", key
        )
        return re.sub(r"^head\.", "head.fc.", key)

    return {rename(key): array for key, array in arrays.items()}


def _distances(positions: int) -> np.ndarray:
    """Number the distances between the positions of a square map, which timm keeps as an array."""
    side = math.isqrt(positions)
    y, x = np.divmod(np.arange(positions), side)
    return abs(y[:, None] - y) * side + abs(x[:, None] - x)


def timm_model(given: Given) -> tuple[str, dict[str, Any]]:
    """Find the timm model with the fewest differences, and arguments that make it this one.

    Raises:
      ValueError: it has none.
    """
    factory, wanted = model_spec(given.name).factory, {**_defaults(given.name), **_kept(given)}
    advice = "give --to torch for its weights, or --to stablehlo or onnx for a program."
    if factory not in IN_TIMM:
        raise ValueError(f"timm has no model of the family of {given.name!r}; {advice}")
    timm = IN_TIMM[factory]
    arguments = timm.arguments(wanted)
    if isinstance(arguments, str):
        raise ValueError(f"timm's models have no {arguments} as {given.name!r} has it; {advice}")
    found, refused = [], set()
    for name, (ours, extra) in TIMM.items():
        theirs = {**_defaults(ours), **extra}
        if model_spec(ours).factory is not factory or theirs.get("stem") != wanted.get("stem"):
            continue
        base: Any = timm.arguments(theirs)
        differing = {k: v for k, v in arguments.items() if base[k] != v}
        if timm.refused(differing):
            refused |= timm.refused(differing) if ours == given.name else set()
        elif not (ours in HYBRIDS and "patch_size" in differing):
            found.append(((ours != given.name, len(differing)), name, differing))
    if not found:
        what = ", ".join(sorted(refused or timm.fixed or ()))
        what = what or ("sizes" if timm.fixed is None else "stem")
        raise ValueError(f"timm has no model with the {what} of {given.name!r}; {advice}")
    # Names of this model come first, then those with few differences.
    _, name, differing = min(found, key=lambda entry: entry[0])
    return name, differing


def _defaults(name: str) -> Options:
    entry = model_spec(name)
    return {**defaults(entry.factory), **dict(entry.kwargs)}


def _kept(given: Given) -> Options:
    """Return the model's own options, its image size among them."""
    return {**given.options, "image_size": given.size}
