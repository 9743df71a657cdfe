"""The order in which training visits the images, and its random numbers: functions of the seed."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64


def epoch_order(seed: int, size: int, epoch: int) -> Int64[np.ndarray, "N"]:
    """The order in which an epoch visits the images."""
    return np.random.Generator(np.random.PCG64([seed, 0, epoch])).permutation(size)


def sample_rngs(seed: int, positions: Sequence[int]) -> Iterator[np.random.Generator]:
    """A generator for each position in the order: a function of (seed, position).

    Each is valid until the next is asked for. They are one Philox whose counter is set to the
    position, which takes a tenth of the time that making a new one does.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
    state = dict(rng.bit_generator.state)
    for position in positions:
        state["state"]["counter"][3] = position
        rng.bit_generator.state = state
        yield rng
