"""Plots of an evaluation: confusion matrix, reliability diagram."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.analysis.plots import BLUE, ORANGE
from vitjax.figures import new_figure

NAMED, NUMBERED = 60, 15
"""So many classes have their names along the axes, and numbers in the cells."""


def plot_confusion(
    path: pathlib.Path, names: Sequence[str], matrix: np.ndarray, counted: str, title: str
) -> pathlib.Path:
    """Draw a confusion matrix, whose rows are shares of a label's samples.

    Args:
      matrix: counts `[K, K]`, labels along the first axis.
      counted: what they are of, such as "images".
    """
    import matplotlib
    import matplotlib.colors

    count, total = len(names), matrix.sum(axis=1, keepdims=True)
    shares = np.divide(100 * matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
    side = float(np.clip(0.32 * count if count <= NAMED else 9.0, 4.0, 14.0))
    figure = new_figure(side + 2.2, side + 1.2)
    axes = figure.subplots()
    colours = matplotlib.colormaps["cividis"].with_extremes(bad="0.85")
    # Of many classes the rare confusions would be too dark to be seen.
    norm = matplotlib.colors.PowerNorm(1 if count <= NAMED else 0.4, vmin=0, vmax=100)
    drawn = axes.imshow(shares, cmap=colours, norm=norm, interpolation="nearest")
    if count <= NAMED:
        short = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
        size = 9 if count <= 30 else 7
        axes.set_xticks(range(count), short, rotation=90, fontsize=size)
        axes.set_yticks(range(count), short, fontsize=size)
    if count <= NUMBERED:
        for row, column in np.argwhere(~np.isnan(shares)):
            share = shares[row, column]
            colour = "black" if share > 55 else "white"
            text = f"{share:.0f}" if matrix[row, column] else "·"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    number = "" if count <= NAMED else " (number of the class, from 0)"
    axes.set(xlabel=f"prediction{number}", ylabel=f"label{number}")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label=f"{counted} of the label (%)")
    figure.suptitle(title, fontsize=11)
    if np.isnan(shares).any():
        figure.supxlabel(f"Grey rows: labels without {counted}.", fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def plot_reliability(
    path: pathlib.Path, bins: Mapping[str, Any], error: float, title: str
) -> pathlib.Path:
    """Draw accuracy over confidence, and the number of images.

    Args:
      bins: columns of `calibration`.
      error: ECE.
    """
    figure = new_figure(5.2, 6.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    lower, upper, images = (np.asarray(bins[k]) for k in ("lower", "upper", "images"))
    width, there = upper - lower, images > 0
    place = dict(align="edge", edgecolor="white", linewidth=0.8)
    above.bar(lower, np.nan_to_num(bins["accuracy"]), width, color=BLUE, label="accuracy", **place)
    above.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1.2, label="as confident")
    above.plot(
        bins["confidence"][there], bins["accuracy"][there], color=ORANGE, marker="o", markersize=5,
        linestyle="none", label="at a bin's mean confidence", clip_on=False,
    )  # fmt: skip
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    below.bar(lower, 100 * images / max(images.sum(), 1), width, color="0.55", **place)
    below.set(xlabel=f"confidence ({len(images)} bins)", ylabel="images (%)")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}\nECE {error:.2%} of {images.sum():,} images", fontsize=11)
    figure.savefig(path, dpi=120)
    return path
