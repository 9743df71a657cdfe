"""Figures of matplotlib, as all plots of the library are drawn on."""

from typing import Any


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of this size in inches, apart from pyplot's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
