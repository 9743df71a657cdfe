"""Accuracy against computation of classifiers with early exits (`GivesExits`).

Two settings (Huang et al., arXiv:1703.09844, section 3; RANet, arXiv:2003.07326, section 4):

- *Anytime*: every image leaves at the same exit, when time is up.
- *Budgeted batch*: an image leaves at the first exit whose confidence, its largest softmax,
  reaches that exit's threshold. Thresholds come from held-out images, so that the share of images
  that leave at exit i is proportional to pⁱ: a small p leaves early, a large one late.

Everything here is simulated from the logits of all exits; `vitjax.tools.early_exits` really exits.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vitjax.abstract import abstract_init
from vitjax.analysis.cost import multiply_adds
from vitjax.figures import new_figure
from vitjax.models.protocols import GivesExits

P = tuple(k / 20 for k in range(1, 40))
"""Of the budgeted batches, as the authors' code has them (adaptive_inference.py)."""


class Point(NamedTuple):
    """One setting of a model.

    Attributes:
      macs: multiply-adds of an image, on average.
      accuracy: share of images that are right.
      thresholds: confidence from which on an image leaves, of each exit.
      p: of the budget; None for one that is anytime.
    """

    macs: float
    accuracy: float
    thresholds: tuple[float, ...]
    p: float | None = None


def check_exits(name: str, model: Any) -> GivesExits:
    """Return the model if it has early exits.

    Raises:
      ValueError: it has none.
    """
    if not isinstance(model, GivesExits) or model.num_exits < 2:
        raise ValueError(
            f"{name} has no early exits; choose a model that has them: a RANet, or a "
            f"ViT with --config.model.exits='(3, 7)'."
        )
    return model


def exit_macs(model: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Count the multiply-adds of one image up to each exit, those of earlier exits included.

    Args:
      shape: of the image, `[H, W, 3]`.
    """
    state: Any = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables, found = abstract_init(model.init, jax.random.key(0), state), 0
    costs = []
    for k in range(model.num_exits):
        closed, (_, state) = jax.make_jaxpr(
            lambda v, s, k=k: model.apply(v, k, s, method="run_part"), return_shape=True
        )(variables, state)
        found += multiply_adds(closed.jaxpr)
        costs.append(found)
    return tuple(costs)


def confidence(logits: Float[np.ndarray, "*B K"]) -> Float[np.ndarray, "*B"]:
    """Compute the largest softmax probability, in float64."""
    x = np.asarray(logits, np.float64)
    return 1 / np.exp(x - x.max(axis=-1, keepdims=True)).sum(axis=-1)


def exit_shares(p: float, exits: int) -> Float[np.ndarray, "E"]:
    """Compute the shares of images that leave at each exit, ∝ pⁱ for i = 1 … E."""
    shares = p ** np.arange(1.0, exits + 1)
    return shares / shares.sum()


def find_thresholds(
    sure: Float[np.ndarray, "N E"], shares: Float[np.ndarray, "E"]
) -> tuple[float, ...]:
    """Find the confidence at which images leave, exit by exit.

    Of the images that remain, the ⌊N · share⌋ most confident leave, and those as confident as the
    last of these. At the last exit all leave.

    Args:
      sure: confidence of each exit, of held-out images.
      shares: see `exit_shares`.
    """
    there = np.ones(len(sure), bool)
    thresholds = []
    for k, share in enumerate(shares[:-1]):
        left = np.sort(sure[there, k])[::-1]
        count = min(math.floor(len(sure) * share), len(left))
        thresholds.append(float(left[count - 1]) if count else math.inf)
        there &= sure[:, k] < thresholds[-1]
    return (*thresholds, -math.inf)


def leaves_at(
    sure: Float[np.ndarray, "N E"], thresholds: tuple[float, ...]
) -> Int[np.ndarray, "N"]:
    """Compute the exit at which each image leaves: the first whose threshold is reached."""
    return np.argmax(sure >= np.asarray(thresholds), axis=1)


def simulate(
    logits: Float[np.ndarray, "N E K"],
    labels: Int[np.ndarray, "N"],
    macs: tuple[int, ...],
    thresholds: tuple[float, ...],
    p: float | None = None,
) -> Point:
    """Compute accuracy and multiply-adds with these thresholds."""
    exits = leaves_at(confidence(logits), thresholds)
    found = logits[np.arange(len(labels)), exits].argmax(axis=-1)
    spent = np.asarray(macs, np.float64)[exits]
    return Point(float(spent.mean()), float(np.mean(found == labels)), thresholds, p)


def anytime(
    logits: Float[np.ndarray, "N E K"], labels: Int[np.ndarray, "N"], macs: tuple[int, ...]
) -> list[Point]:
    """Compute the point of each exit, at which all images leave."""
    exits = range(len(macs))
    every = [tuple(-math.inf if i >= k else math.inf for i in exits) for k in exits]
    return [simulate(logits, labels, macs, thresholds) for thresholds in every]


def budgeted(
    held_out: Float[np.ndarray, "M E K"],
    logits: Float[np.ndarray, "N E K"],
    labels: Int[np.ndarray, "N"],
    macs: tuple[int, ...],
) -> list[Point]:
    """Compute the points of all budgets `P`.

    Thresholds come from the held-out images, accuracy and multiply-adds from the others.
    """
    sure = confidence(held_out)
    found = [(p, find_thresholds(sure, exit_shares(p, len(macs)))) for p in P]
    return [simulate(logits, labels, macs, thresholds, p) for p, thresholds in found]


def draw(
    path: pathlib.Path,
    title: str,
    fixed: list[Point],
    budgets: list[Point],
    chosen: Point,
    measured: Sequence[tuple[float, float]],
    whole: tuple[float, float],
) -> pathlib.Path:
    """Draw accuracy against multiply-adds in both settings, and against measured time.

    Args:
      fixed, budgets: points of `anytime` and `budgeted`.
      chosen: one to mark.
      measured: (milliseconds of an image, accuracy) of images that really exit; the first is that
        of the chosen point.
      whole: the same of the whole model.
    """
    figure = new_figure(7.2, 3.4)
    left, right = figure.subplots(1, 2, sharey=True)

    def line(axes: Any, points: Sequence[tuple[float, float]], **style: Any) -> None:
        x, y = zip(*sorted(points))
        axes.plot(x, [100 * accuracy for accuracy in y], **style)

    def costs(points: list[Point]) -> list[tuple[float, float]]:
        return [(point.macs / 1e6, point.accuracy) for point in points]

    many = dict(color="tab:blue", marker="o", markersize=4)
    one = dict(color="tab:orange", marker="s", markersize=5)
    star = dict(color="tab:red", marker="*", markersize=14, linestyle="", label="chosen")
    line(left, costs(budgets), label="budgeted batch", **many)
    line(left, costs(fixed), label="anytime: one exit for all", **one)
    line(left, costs([chosen]), **star)
    line(right, measured, label="images really exit", **many)
    line(right, [whole], label="whole model", linestyle="", **one)
    line(right, measured[:1], **star)
    left.set(xlabel="multiply-adds of an image (millions)", ylabel="accuracy (%)")
    right.set(xlabel="measured time of an image (ms)")
    bottom, top = left.get_ylim()
    left.set_ylim(min(bottom, top - 2), top + 0.1)  # as little as a few images looks like it
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=6)
        axes.legend(frameon=False, loc="lower right")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return path
