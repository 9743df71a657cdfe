"""Weights under PyTorch's names, as the authors and timm name them, without PyTorch."""

import json
import pathlib
from typing import Any

from safetensors.numpy import save_file

from vitjax import weights
from vitjax.tools.export.given import Given, description, refuse_dense


def write(given: Given, folder: pathlib.Path) -> dict[str, Any]:
    """Write model.safetensors and config.json.

    Raises:
      ValueError: the model does not classify.
    """
    refuse_dense(given, "torch")
    arrays = state_dict(given)
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    options = {k: v for k, v in given.options.items() if k != "dtype"}
    about = description(given, "logits")
    about["preprocessing"] |= {"normalisation": "outside: (pixel / 255 - mean) / std"}
    about["input"] = {"dtype": "float32", "shape": ["batch", given.channels, *given.size]}
    about = {**about, "options": options, "num_classes": len(given.classes)}
    (folder / "config.json").write_text(json.dumps(about, indent=2, default=str) + "\n")
    return {"arrays": len(arrays)}


def state_dict(given: Given) -> dict[str, Any]:
    """Return the arrays by the official names, in float32."""
    options = {k: v for k, v in given.options.items() if k != "dtype"}
    arrays = weights.to_torch(given.name, given.trained.variables, **options)
    return {key: array.astype("float32") for key, array in arrays.items()}
