"""Rows of the bottleneck ResNets that R+ViT and BiT share."""

from vitjax.weights.table import Row


def rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """Build the rows of the PyTorch conversions (timm), each behind a prefix."""
    block, unit = theirs + "stages.{i}.blocks.{j}.", ours + "stage_{i}/block_{j}/"
    return (
        (theirs + "stem.conv", ours + "stem/conv", "conv"),
        (theirs + "stem.norm", ours + "stem/norm", "norm"),
        (block + "conv{k}", unit + "conv{k}", "conv"),
        (block + "norm{k}", unit + "norm{k}", "norm"),
        (block + "downsample.conv", unit + "shortcut_conv", "conv"),
        (block + "downsample.norm", unit + "shortcut_norm", "norm"),
    )


def google_rows(ours: str) -> tuple[Row, ...]:
    """Build the rows of Google's files of R+ViT."""
    block, unit = "block{i+1}/unit{j+1}/", ours + "stage_{i}/block_{j}/"
    return (
        ("conv_root", ours + "stem/conv", "flax"),
        ("gn_root", ours + "stem/norm", "flax_norm"),
        (block + "conv{k}", unit + "conv{k}", "flax"),
        (block + "gn{k}", unit + "norm{k}", "flax_norm"),
        (block + "conv_proj", unit + "shortcut_conv", "flax"),
        (block + "gn_proj", unit + "shortcut_norm", "flax_norm"),
    )
