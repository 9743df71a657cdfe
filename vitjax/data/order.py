"""Order of the training images, and their random generators, as functions of the seed."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Int64

# Images between two visits of the same one. Mixing pairs neighbours, samples 2i and 2i + 1: an odd
# number gives an image another neighbour at its next visit.
_APART = 63


def epoch_order(seed: int, size: int, epoch: int, repeats: int = 1) -> Int64[np.ndarray, "N"]:
    """Draw the order in which an epoch visits the images.

    Args:
      seed: seed of the order.
      size: number of images N, and of visits in an epoch.
      epoch: number of the epoch.
      repeats: visits per image, each augmented differently (Hoffer et al., arXiv:1901.09335, as in
        DeiT); an epoch then visits N / `repeats` different images.
    """
    order = np.random.Generator(np.random.PCG64([seed, 0, epoch])).permutation(size)
    if repeats == 1:
        return order
    once = order[: -(-size // repeats)]
    whole_runs = max(len(once) // _APART, 1)  # the last has the rest, which alone would be short
    runs = np.split(once, np.arange(1, whole_runs) * _APART)
    return np.concatenate([np.tile(run, repeats) for run in runs])[:size]


class Balanced:
    """Order that visits each class equally often: epoch → N indices.

    Over all epochs, visits are assigned to the classes in turn, and the visits of a class to its
    images in an order that is drawn once. So after any epoch the numbers of visits differ by at
    most one between classes, and between the images of a class. The positions within an epoch are
    drawn anew for each epoch. A class without images has no visits.

    Args:
      seed: seed of the order.
      labels: class of each image.
    """

    def __init__(self, seed: int, labels: Int[np.ndarray, "N"]):
        self._seed = seed
        shuffled = np.random.Generator(np.random.PCG64([seed, 2])).permutation(len(labels))
        self._members = shuffled[np.argsort(labels[shuffled], kind="stable")]
        counts = np.bincount(labels)
        starts = np.cumsum(counts) - counts
        self._counts, self._starts = counts[counts > 0], starts[counts > 0]

    def __call__(self, epoch: int) -> Int64[np.ndarray, "N"]:
        """Compute the order of an epoch, which has as many visits as there are images."""
        size, classes = len(self._members), len(self._counts)
        number, which = np.divmod(epoch * size + np.arange(size, dtype=np.int64), classes)
        visits = self._members[self._starts[which] + number % self._counts[which]]
        rng = np.random.Generator(np.random.PCG64([self._seed, 0, epoch]))
        return visits[rng.permutation(size)]


def sample_rngs(seed: int, positions: Sequence[int]) -> Iterator[np.random.Generator]:
    """Yield a random generator for each position in the order, by (seed, position).

    Each is valid until the next is yielded. They share one Philox whose counter is set to the
    position, which takes a tenth of the time of creating a new one.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
    state = dict(rng.bit_generator.state)
    for position in positions:
        state["state"]["counter"][3] = position
        rng.bit_generator.state = state
        yield rng
