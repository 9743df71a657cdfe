"""The order in which training visits the images, and its random numbers: functions of the seed."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

# Images between two visits of the same one. Mixing pairs neighbours, samples 2i and 2i + 1: an odd
# number gives an image another neighbour at its next visit.
_APART = 63


def epoch_order(seed: int, size: int, epoch: int, repeats: int = 1) -> Int64[np.ndarray, "N"]:
    """Draw the order in which an epoch visits the images.

    Args:
      seed: of the order.
      size: N; an epoch has as many visits.
      epoch: its number.
      repeats: visits an image gets; of a repeated image each is augmented anew (Hoffer et al.,
        arXiv:1901.09335, as in DeiT), and an epoch then sees every `repeats`-th image.
    """
    order = np.random.Generator(np.random.PCG64([seed, 0, epoch])).permutation(size)
    if repeats == 1:
        return order
    once = order[: -(-size // repeats)]
    whole_runs = max(len(once) // _APART, 1)  # the last has the rest, which alone would be short
    runs = np.split(once, np.arange(1, whole_runs) * _APART)
    return np.concatenate([np.tile(run, repeats) for run in runs])[:size]


def sample_rngs(seed: int, positions: Sequence[int]) -> Iterator[np.random.Generator]:
    """Yield a generator for each position in the order: a function of (seed, position).

    Each is valid until the next is asked for. They are one Philox whose counter is set to the
    position, which takes a tenth of the time that making a new one does.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
    state = dict(rng.bit_generator.state)
    for position in positions:
        state["state"]["counter"][3] = position
        rng.bit_generator.state = state
        yield rng
