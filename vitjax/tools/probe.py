"""Quality of a model's frozen features: nearest neighbours, few shots, a linear classifier.

Features are the input of the head (`num_classes=0`), of images as evaluation sees them.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from vitjax.data import open_source, pipeline
from vitjax.data.kinds import image_and_label
from vitjax.data.sets import with_classes
from vitjax.data.source import Source
from vitjax.runs import Trained, forward, open_trained, replicate
from vitjax.train import sharding

PROTOCOLS = ("knn", "fewshot", "linear")


class Settings(NamedTuple):
    """Settings of the protocols.

    Attributes:
      k, temperature: of the neighbours.
      shots, draws: images of a class, and how often they are drawn.
      l2: of the linear classifier, on features of unit variance.
    """

    k: int = 20
    temperature: float = 0.07
    shots: int = 5
    draws: int = 3
    l2: float = 1.0


DEFAULTS = Settings()


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


def features(
    trained: Trained, source: Source, *, batch_size: int = 64, num_threads: int = 4
) -> tuple[Float32[np.ndarray, "N C"], Int[np.ndarray, "N"]]:
    """Compute the features and classes of all images, on all devices."""
    if source.info.multi_label:
        raise ValueError("A probe needs one class an image, and these images have several.")
    trained = trained._replace(model=trained.model.clone(num_classes=0))
    variables, placed, batch_size = replicate(trained, batch_size)
    embed = jax.jit(functools.partial(forward, trained))
    kinds = image_and_label(source.info, trained.image_size, len(trained.mean))
    batches = pipeline.eval_batches(
        source, kinds=kinds, batch_size=batch_size,
        crop=trained.crop, interpolation=trained.interpolation, num_threads=num_threads,
    )  # fmt: skip
    found = [
        jax.device_get((embed(variables, batch["image"]), batch["label"]))
        for batch in sharding.to_devices(batches, placed, batch_size)
    ]
    x, labels = (np.concatenate(parts)[: len(source)] for parts in zip(*found))
    return x, labels


def probe(
    text: str,
    train_uri: str,
    test_uri: str,
    splits: tuple[str, str],
    protocols: tuple[str, ...] = PROTOCOLS,
    settings: Settings = DEFAULTS,
    **options: int,
) -> dict[str, Any]:
    """Measure the top-1 accuracy of a trained model's features under each protocol.

    Args:
      text: of a model, as in `open_trained`.
      train_uri, test_uri, splits: labelled images, and those that are asked about.
      **options: of `features`.
    """
    trained = open_trained(text)
    sources = [open_source(uri, split) for uri, split in zip((train_uri, test_uri), splits)]
    sources[1] = with_classes(sources[1], sources[0].info, "--test-data")
    (x, labels), (asked, truth) = (features(trained, source, **options) for source in sources)
    found: dict[str, Any] = {"model": text, "images": len(x), "features": x.shape[1]}

    def top1(predicted: np.ndarray) -> float:
        return float(np.mean(predicted == truth))

    if "knn" in protocols:
        found["knn"] = top1(knn(x, labels, asked, k=settings.k, temperature=settings.temperature))
    if "fewshot" in protocols:
        draws = []
        for seed in range(settings.draws):
            few = few_shots(labels, settings.shots, seed)
            weights, intercept, _ = least_squares(x[few], labels[few], len(sources[0].info.classes))
            draws.append(top1(np.argmax(asked @ weights + intercept, axis=1)))
        found["fewshot"], found["fewshot_std"] = float(np.mean(draws)), float(np.std(draws))
    if "linear" in protocols:
        from sklearn.linear_model import LogisticRegression

        scale = np.maximum(x.std(axis=0), 1e-6)
        classifier = LogisticRegression(C=1 / settings.l2, max_iter=1000)
        classifier.fit((x - x.mean(axis=0)) / scale, labels)
        predicted = classifier.predict((asked - x.mean(axis=0)) / scale)
        found["linear"] = top1(np.asarray(predicted))
    return found
