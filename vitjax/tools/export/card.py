"""Model card: the model, its training data, its measured accuracy."""

from collections.abc import Mapping
from typing import Any

from vitjax.console import show
from vitjax.tools.export.given import Given, preprocessing

SHOWN = 20
"""Classes that are named; config.json has all."""


def model_card(given: Given, architecture: str, arrays: Mapping[str, Any]) -> str:
    """Write the text of README.md, with the run's own figures.

    Args:
      architecture: timm's name.
      arrays: of the state dict.
    """
    how, (height, width) = preprocessing(given), given.size
    facts, classes = given.facts, given.classes
    parameters = sum(a.size for k, a in arrays.items() if not k.endswith(("_mean", "_var")))
    named = ", ".join(classes[:SHOWN]) + (", …" if len(classes) > SHOWN else "")
    crop = f"centre crop of {how['crop']:g}" if how["crop"] else "whole image, squeezed"
    lines = [
        "---", "library_name: timm", "pipeline_tag: image-classification",
        "tags:", "- image-classification", "- timm", "- vitjax", "---", "",
        f"# {given.name}", "",
        f"An image classifier{', trained with vitjax,' if facts else ''} in the form of timm's "
        f"`{architecture}`.", "",
        f"- Parameters: {parameters:,}",
        f"- Images: {height}×{width}, {given.channels} channels, {how['interpolation']}, {crop}, "
        f"mean {_numbers(how['mean'])}, standard deviation {_numbers(how['std'])}",
        f"- Classes: {len(classes)} ({named})",
    ]  # fmt: skip
    if facts:
        lines += [
            f"- Training data: `{facts['data']}` (fingerprint `{facts['fingerprint']}`)",
            f"- Step: {facts['step']:,}",
        ]
    lines += ["", "## Measured", ""]
    metrics = facts.get("metrics")
    if metrics:
        lines += [f"On the run's test data, at step {facts['step']:,}: {show(metrics)}."]
    else:
        lines += ["Nothing was measured with these weights here."]
    lines += [
        "", "## Use", "", "```python", "import timm", "",
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
        "config = timm.data.resolve_model_data_config(model)",
        "transform = timm.data.create_transform(**config)", "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
