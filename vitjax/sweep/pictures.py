"""Pictures of a sweep's finished cells."""

import pathlib

import numpy as np

from vitjax.console import is_share
from vitjax.scaling.isoflop import parabolas
from vitjax.scaling.plots import Axis, plot_frontier, plot_isoflop, plot_lines
from vitjax.sweep.fits import Fits
from vitjax.sweep.points import Points

WIDTH = 0.3
"""Of a bin of compute in the IsoFLOP picture, in powers of ten."""
SAMPLES = {"D": "D (samples seen)", "images": "different training images"}


def draw(
    points: Points, fits: Fits | None, folder: pathlib.Path, title: str, metric: str, axis: str
) -> list[pathlib.Path]:
    """Draw the pictures of a sweep into its folder.

    The first three are of the kind of figures 3 to 5 of the ViT paper; accuracies are shown as they
    are, and fits as in `vitjax sweep fit`.

    Args:
      fits: of the points; None for no fitted lines.
    """
    share, scale = is_share(metric.partition("/")[2]), 1.0
    label, fitted = metric, f"{metric} (log)"
    if share:
        scale, label, fitted = 100.0, f"{metric} (%)", f"odds of an error in {metric} (log)"
    value = Axis(label, scale * points.value)
    size, data = Axis("N (parameters)", points.n), Axis(SAMPLES[axis], points.d)
    compute = Axis("compute C (FLOPs, counted)", points.flops)

    def law(d: np.ndarray, n: float) -> np.ndarray:
        assert fits is not None
        return fits.both.found.predict(np.stack([np.full_like(d, n), d], axis=1))

    def turned(n: np.ndarray, d: float) -> np.ndarray:
        assert fits is not None
        return fits.both.found.predict(np.stack([n, np.full_like(n, d)], axis=1))

    lined = fits is not None and not share
    means = points.means()
    loss = Axis(fitted, means.loss)
    iso = parabolas(means.n, means.flops, means.loss, WIDTH)
    paths = [
        plot_lines(folder / "size.png", title, size, value, data, turned if lined else None),
        plot_lines(folder / "data.png", title, data, value, size, law if lined else None),
        plot_lines(folder / "compute.png", title, compute, value, size),
        plot_frontier(
            folder / "frontier.png", title, means.flops, loss, means.n, fits and fits.compute
        ),
    ]
    if iso:
        paths.append(
            plot_isoflop(folder / "isoflop.png", title, means.n, loss, means.flops, iso, WIDTH)
        )
    return paths
