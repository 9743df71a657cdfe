"""Fits of a sweep: L(N, D), L(C) and IsoFLOP parabolas, with intervals, as JSON and as text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vitjax.console import table
from vitjax.scaling.fit import fit
from vitjax.scaling.intervals import Intervals, held_out, intervals, quantiles
from vitjax.scaling.isoflop import WARNING, exponent, frontier, parabolas
from vitjax.scaling.laws import COMPUTE, SIZE_AND_DATA
from vitjax.sweep.points import Points

FAR = 10.0
"""Times the largest N, D or C of a fit, beyond which a prediction must be asked for."""


class Fits(NamedTuple):
    """Fitted laws of a sweep.

    Attributes:
      both: L(N, D).
      compute: L(C) of the frontier; None if its cells are too few.
    """

    points: Points
    both: Intervals
    compute: Intervals | None


def fit_points(points: Points, resamples: int) -> Fits:
    """Fit the laws to the points of a sweep."""
    x = np.stack([points.n, points.d], axis=1)
    found = fit(SIZE_AND_DATA, x, points.loss)
    both = intervals(found, x, points.loss, points.group, resamples)
    means = points.means()
    best = frontier(means.flops, means.loss)
    compute = None
    if len(best) > len(COMPUTE.names):
        c, loss = means.flops[best, None], means.loss[best]
        compute = intervals(fit(COMPUTE, c, loss), c, loss, np.arange(len(best)), resamples)
    return Fits(points, both, compute)


def predictions(fits: Fits, asked: Sequence[str], extrapolate: bool) -> list[dict[str, Any]]:
    """Predict the losses of "N,D" texts.

    Raises:
      ValueError: a text does not parse, or lies far beyond the largest cell.
    """
    rows = []
    for text in asked:
        try:
            n, d = (float(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"--predict={text}: give N,D, such as --predict=1e6,1e7.") from None
        for name, value, values in (("N", n, fits.points.n), ("D", d, fits.points.d)):
            if value > FAR * values.max() and not extrapolate:
                raise ValueError(
                    f"--predict={text}: {name} = {value:g} is more than {FAR:g} times that of the "
                    f"largest cell, {values.max():g}. Laws break there without a sign of it; "
                    f"--extrapolate predicts all the same."
                )
            if value <= 0:
                raise ValueError(f"--predict={text}: N and D must be above 0.")
        x = np.array([[n, d]])
        low, high = fits.both.predict(x)[0]
        loss = fits.both.found.predict(x)[0]
        rows.append({"N": n, "D": d, "loss": loss, "low": low, "high": high})
    return rows


def described(found: Intervals) -> dict[str, Any]:
    """Describe a fitted law as JSON."""
    bounds = found.bounds()
    values = found.found.parameters
    return {
        "law": found.found.law.formula,
        "parameters": {
            name: {"value": value, "low": low, "high": high}
            for (name, value), (low, high) in zip(values.items(), bounds.tolist())
        },
        "covariance": found.covariance().tolist(),
        "objective": found.found.objective,
        "starts": len(found.found.objectives),
        "converged": found.found.converged,
        "resamples": len(found.draws),
    }


def to_json(fits: Fits, metric: str, axis: str, predicted: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe all fits of a sweep as JSON."""
    p = fits.points
    x = np.stack([p.n, p.d], axis=1)
    out = held_out(SIZE_AND_DATA, x, p.loss, p.group, p.flops)
    alpha, beta = fits.both.draws[:, 3], fits.both.draws[:, 4]
    low, high = quantiles((beta / (alpha + beta))[:, None], 0.95)[0]
    values, means = fits.both.found.parameters, p.means()
    iso = parabolas(means.n, means.flops, means.loss)
    return {
        "metric": metric, "axis": axis, "points": len(p.n),
        "cells": len(means.n),
        "L(N, D)": described(fits.both),
        "L(C)": described(fits.compute) if fits.compute else None,
        "optimal_N_exponent": {
            "value": values["beta"] / (values["alpha"] + values["beta"]), "low": low, "high": high
        },
        "isoflop": {
            "parabolas": [parabola._asdict() for parabola in iso],
            "optimal_N_exponent": exponent(iso), "warning": WARNING,
        },
        "held_out": None if out is None else {
            "ids": [p.ids[i] for i in out.points], "measured": p.loss[out.points].tolist(),
            "predicted": out.predicted.tolist(), "error": out.error,
        },
        "excluded": p.excluded, "predictions": predicted,
    }  # fmt: skip


def report(found: dict[str, Any]) -> str:
    """Format the fits of a sweep as text."""
    rows: dict[str, str] = {
        "points": f"{found['points']} of {found['cells']} inputs (N, D), {found['metric']}"
    }
    for name in ("L(N, D)", "L(C)"):
        law = found[name]
        if law is None:
            rows[name] = "the frontier has too few cells for a fit"
            continue
        rows[name] = f"{law['law'].partition(' = ')[2]}, 95 % of {law['resamples']} resamples:"
        for key, p in law["parameters"].items():
            rows[f"  {key}{' ' * name.count('C')}"] = (
                f"{p['value']:.4g}  [{p['low']:.4g}, {p['high']:.4g}]"
            )
        rows[f"  {name} starts"] = (
            f"{law['converged']:.0%} of {law['starts']:,} starts reached this optimum"
        )
    best, iso = found["optimal_N_exponent"], found["isoflop"]
    rows["best N"] = f"grows as C^{best['value']:.3f}  [{best['low']:.3f}, {best['high']:.3f}]"
    if iso["optimal_N_exponent"] is not None:
        rows["IsoFLOP"] = f"C^{iso['optimal_N_exponent']:.3f}. {iso['warning']}"
    else:
        rows["IsoFLOP"] = "fewer than two minima between three sizes of about equal compute"
    out = found["held_out"]
    rows["held out"] = (
        "too few cells"
        if out is None
        else (
            f"{len(out['ids'])} runs of the most compute, predicted from the others within "
            f"{out['error']:.2%}"
        )
    )
    for p in found["predictions"]:
        rows[f"N={p['N']:g}, D={p['D']:g}"] = (
            f"{p['loss']:.4g}  [{p['low']:.4g}, {p['high']:.4g}], without the noise of a run"
        )
    reasons = list(found["excluded"].values())
    rows["excluded"] = "; ".join(f"{reasons.count(why)} {why}" for why in dict.fromkeys(reasons))
    rows["excluded"] = rows["excluded"] or "none"
    return table(rows.items())
