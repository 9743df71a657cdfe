"""Measure how often the intervals of `vitjax sweep fit` hold a known law.

`python benchmarks/scaling_coverage.py` draws 500 noisy copies of a grid of runs whose losses follow
the fit of Hoffmann et al. as corrected (arXiv:2404.10102), fits each, and counts how often the 95 %
intervals hold the true parameters. The figures are in docs/scaling.md.
"""

import argparse
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from vitjax.scaling.fit import Fit, fit, refit
from vitjax.scaling.intervals import intervals
from vitjax.scaling.laws import SIZE_AND_DATA

TRUTH = {"E": 1.817, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}


def main() -> None:
    """Print the coverage of each parameter."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--sizes", type=int, default=6, help="and as many numbers of samples")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.005, help="of log loss")
    parser.add_argument(
        "--all",
        action="store_true",
        help="fit each draw from 2,500 starts, and not from the optimum of the first",
    )
    o = parser.parse_args()
    n, d = np.geomspace(4e7, 1.6e10, o.sizes), np.geomspace(4e8, 2e11, o.sizes)
    inputs = np.stack([a.ravel() for a in np.meshgrid(n, d, indexing="ij")], axis=1)
    x, group = np.repeat(inputs, o.seeds, axis=0), np.repeat(np.arange(len(inputs)), o.seeds)
    t = TRUTH
    mean = t["E"] + t["A"] / x[:, 0] ** t["alpha"] + t["B"] / x[:, 1] ** t["beta"]
    rng, held, begin = np.random.default_rng(0), np.zeros(len(t)), time.monotonic()
    first: Fit | None = None
    for draw in range(o.draws):
        loss = mean * np.exp(o.noise * rng.normal(size=len(x)))
        if first is None or o.all:
            first = found = fit(SIZE_AND_DATA, x, loss)
        else:
            theta = refit(first, x, loss[None], np.ones((1, len(x))))[0]
            found = first._replace(theta=theta)
        bounds = intervals(found, x, loss, group, o.resamples, seed=draw).bounds()
        truth = np.array(list(t.values()))
        held += (bounds[:, 0] <= truth) & (truth <= bounds[:, 1])
        if (draw + 1) % 50 == 0:
            print(draw + 1, dict(zip(t, (held / (draw + 1)).round(4).tolist())), flush=True)
    print(json.dumps({"draws": o.draws, "resamples": o.resamples, "points": len(x),
                      "noise": o.noise, "coverage": dict(zip(t, (held / o.draws).tolist())),
                      "minutes": round((time.monotonic() - begin) / 60, 1)}))  # fmt: skip


if __name__ == "__main__":
    main()
