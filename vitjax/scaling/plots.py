"""Plots of scaling experiments: what data, size and compute give, and the compute frontier."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vitjax.figures import new_figure
from vitjax.scaling.intervals import Intervals
from vitjax.scaling.isoflop import Parabola, frontier

MARKERS = "osD^vP*X"
ORANGE = "#D55E00"
LEGEND: dict[str, Any] = dict(framealpha=0.8, edgecolor="none", fontsize=9)


class Axis(NamedTuple):
    """Quantity along an axis: its label, and its values."""

    label: str
    values: Float[np.ndarray, "M"]


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    figure = new_figure(6.8, 4.4)
    axes = figure.subplots()
    axes.set(xscale="log", xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _colours(count: int) -> list[Any]:
    """Choose colours along a scale that colour-blind people can order."""
    import matplotlib

    return [matplotlib.colormaps["viridis"](at) for at in np.linspace(0, 0.88, max(count, 1))]


def plot_lines(
    path: pathlib.Path,
    title: str,
    x: Axis,
    y: Axis,
    by: Axis,
    law: Callable[[Float[np.ndarray, "M"], float], np.ndarray] | None = None,
) -> pathlib.Path:
    """Draw a measure over a quantity, a line for each value of another, as figures 3 to 5 of the
    ViT paper (arXiv:2010.11929): means of seeds, and their range as bars.

    Args:
      law: (values of x, value of `by`) → predicted measure, drawn instead of
        lines between the means.
    """
    figure, axes = _axes(title, x.label, y.label)
    kinds = np.unique(by.values)
    joined = "none" if law is not None else "-"
    for i, (kind, colour) in enumerate(zip(kinds, _colours(len(kinds)))):
        own = by.values == kind
        places = np.unique(x.values[own])
        groups = [y.values[own & (x.values == place)] for place in places]
        middle = np.array([group.mean() for group in groups])
        ends = np.array([[group.min(), group.max()] for group in groups]).T
        axes.errorbar(
            places, middle, np.abs(ends - middle), color=colour, marker=MARKERS[i % len(MARKERS)],
            markersize=5, linewidth=1.4, linestyle=joined, capsize=2, label=_short(kind),
        )  # fmt: skip
        if law is not None:
            dense = np.geomspace(x.values.min(), x.values.max(), 60)
            axes.plot(dense, law(dense, float(kind)), color=colour, linewidth=1.2)
    lines = "; lines: fit" if law is not None else ""
    axes.legend(title=f"{by.label}{lines}", **LEGEND, title_fontsize=9)
    figure.savefig(path, dpi=120)
    return path


def plot_frontier(
    path: pathlib.Path,
    title: str,
    flops: Float[np.ndarray, "M"],
    loss: Axis,
    size: Float[np.ndarray, "M"],
    found: Intervals | None,
) -> pathlib.Path:
    """Draw all runs over their compute, the frontier, and the fitted L(C) with its interval.

    As figure 1 of Scaling Vision Transformers (arXiv:2106.04560).
    """
    figure, axes = _axes(title, "compute C (FLOPs, counted)", loss.label)
    axes.set(yscale="log")
    kinds = np.unique(size)
    for i, (kind, colour) in enumerate(zip(kinds, _colours(len(kinds)))):
        own = size == kind
        axes.plot(
            flops[own], loss.values[own], color=colour, linestyle="none", markersize=5,
            marker=MARKERS[i % len(MARKERS)], label=f"N = {_short(kind)}",
        )  # fmt: skip
    best = frontier(flops, loss.values)
    axes.step(
        flops[best], loss.values[best], where="post", color="black", linewidth=1.2, label="frontier"
    )
    if found is not None:
        dense = np.geomspace(flops.min(), 3 * flops.max(), 80)
        bounds = found.predict(dense[:, None])
        values = found.found.parameters
        shift = f"(C + {values['d']:.2g})" if values["d"] > 1e-6 * flops.min() else "C"
        text = f"{values['a']:.3g} {shift}^-{values['b']:.2g} + {values['c']:.3g}"
        axes.plot(dense, found.found.predict(dense[:, None]), color=ORANGE, label=f"L(C) = {text}")
        axes.fill_between(dense, *bounds.T, color=ORANGE, alpha=0.2, linewidth=0, label="95 %")
    _plain_ticks(axes)
    axes.legend(**LEGEND)
    figure.savefig(path, dpi=120)
    return path


def plot_isoflop(
    path: pathlib.Path,
    title: str,
    size: Float[np.ndarray, "M"],
    loss: Axis,
    flops: Float[np.ndarray, "M"],
    found: Sequence[Parabola],
    width: float,
) -> pathlib.Path:
    """Draw the runs of each bin of compute over N, and the minima of their parabolas."""
    figure, axes = _axes(title, "N (parameters)", loss.label)
    bins = np.floor(np.log10(flops) / width)
    for i, (parabola, colour) in enumerate(zip(found, _colours(len(found)))):
        own = bins == np.floor(np.log10(parabola.flops) / width)
        order = np.argsort(size[own])
        axes.plot(
            size[own][order], loss.values[own][order], color=colour, linewidth=1, markersize=5,
            marker=MARKERS[i % len(MARKERS)], label=f"{parabola.flops:.1e} FLOPs",
        )  # fmt: skip
        if parabola.inside:
            axes.plot(parabola.size, parabola.loss, color=ORANGE, marker="x", markersize=9)
    axes.set(yscale="log")
    _plain_ticks(axes)
    axes.legend(title="×: minimum (biased)", **LEGEND, title_fontsize=9)
    figure.savefig(path, dpi=120)
    return path


def _plain_ticks(axes: Any) -> None:
    """Write a logarithmic axis of less than a decade in plain numbers."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 5, 7)))
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(StrMethodFormatter("{x:g}"))


def _short(value: float) -> str:
    """Format a number with a unit: 4522 is "4.5 k"."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:g}"
