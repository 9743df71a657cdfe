"""Quality of frozen features: nearest neighbours, few shots, a linear classifier.

`vitjax probe` measures them of a trained model, and a run with `config.probes` at each evaluation.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from vitjax.names import check_choice

PROTOCOLS = ("knn", "fewshot", "linear")


@dataclasses.dataclass(frozen=True)
class ProbesConfig:
    """Section `probes`: what is measured of frozen features at each evaluation."""

    protocols: tuple[str, ...] = ()  # of "fewshot", "knn" and "linear"; (): none
    evals: tuple[str, ...] = ()  # names of evaluations, "test" among them; (): all
    images: int = 10_000  # labelled ones at most, of the evaluation's own training split
    k: int = 20  # neighbours
    temperature: float = 0.07  # of their votes
    shots: int = 5  # images of a class
    draws: int = 3  # of few shots, averaged
    l2: float = 1.0  # of the linear classifier, on features of unit variance

    def __post_init__(self) -> None:
        for name in self.protocols:
            check_choice("protocol of config.probes", name, PROTOCOLS)
        counts, strengths = (
            (self.images, self.k, self.shots, self.draws),
            (self.temperature, self.l2),
        )
        if min(counts) < 1 or min(strengths) <= 0:
            raise ValueError(
                f"config.probes needs numbers above 0; images={self.images}, k={self.k}, "
                f"temperature={self.temperature:g}, shots={self.shots}, draws={self.draws}, "
                f"l2={self.l2:g} are given."
            )


def knn(
    train: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, "N"],
    test: Float[np.ndarray, "M C"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Int[np.ndarray, "M"]:
    """Classify by the votes of the k most similar images (DINO, arXiv:2104.14294, section 4).

    Similarity s is the cosine, and a vote weighs exp(s / temperature) (Wu et al., arXiv:1805.01978,
    section 3.4).
    """
    from sklearn.neighbors import KNeighborsClassifier

    weights: Any = lambda distance: np.exp(-distance / temperature)  # noqa: E731
    vote = KNeighborsClassifier(min(k, len(train)), metric="cosine", weights=weights)
    return np.asarray(vote.fit(train, labels).predict(test))


def least_squares(
    x: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"], classes: int
) -> tuple[Float64[np.ndarray, "C K"], Float64[np.ndarray, "K"], float]:
    """Fit a regression to targets ±1: weights, intercept and strength of the L2 term.

    The few-shot evaluation of Dosovitskiy et al., arXiv:2010.11929, section 4.1. The
    strength, which the paper does not give, is that of the least error when each image is predicted
    from the others (of nine, relative to the largest eigenvalue).
    """
    from sklearn.linear_model import RidgeCV

    targets, x = 2.0 * np.eye(classes)[labels] - 1, x.astype(np.float64)
    largest = max(np.linalg.norm(x - x.mean(axis=0), 2), 1e-15)
    fitted: Any = RidgeCV(largest**2 * 10.0 ** np.arange(-8, 1)).fit(x, targets)
    return fitted.coef_.T, fitted.intercept_, float(fitted.alpha_)


def few_shots(labels: Int[np.ndarray, "N"], shots: int, seed: int) -> Int[np.ndarray, "M"]:
    """Draw the indices of `shots` images of each class, or of all where it has fewer."""
    order = np.random.default_rng(seed).permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    return np.concatenate([grouped[i : i + min(shots, n)] for i, n in zip(starts, counts)])


def measure(
    x: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, "N"],
    asked: Float[np.ndarray, "M C"],
    truth: Int[np.ndarray, "M"],
    classes: int,
    config: ProbesConfig,
) -> dict[str, float]:
    """Measure the top-1 accuracy of the protocols of a config, with its names.

    Args:
      x, labels: features of labelled images.
      asked, truth: features of those that are asked about, and their classes.
    """
    found: dict[str, float] = {}

    def top1(predicted: np.ndarray) -> float:
        return float(np.mean(predicted == truth))

    if "knn" in config.protocols:
        found["knn"] = top1(knn(x, labels, asked, k=config.k, temperature=config.temperature))
    if "fewshot" in config.protocols:
        draws = []
        for seed in range(config.draws):
            few = few_shots(labels, config.shots, seed)
            weights, intercept, _ = least_squares(x[few], labels[few], classes)
            draws.append(top1(np.argmax(asked @ weights + intercept, axis=1)))
        found["fewshot"], found["fewshot_std"] = float(np.mean(draws)), float(np.std(draws))
    if "linear" in config.protocols:
        from sklearn.linear_model import LogisticRegression

        scale = np.maximum(x.std(axis=0), 1e-6)
        classifier = LogisticRegression(C=1 / config.l2, max_iter=1000)
        classifier.fit((x - x.mean(axis=0)) / scale, labels)
        predicted = classifier.predict((asked - x.mean(axis=0)) / scale)
        found["linear"] = top1(np.asarray(predicted))
    return found
