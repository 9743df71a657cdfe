"""How well the features of every block tell classes apart: the accuracy of a probe of each (Alain
and Bengio, arXiv:1610.01644, section 3).

The protocols are those of `vitjax.train.probes`; a block's features are what the head would read of
it: its first token, or the mean of its map.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vitjax.analysis.attention import Places, unrolled
from vitjax.analysis.layers import block_features
from vitjax.train.probes import ProbesConfig, measure


class LayerProbes(NamedTuple):
    """Accuracy of the probes of every block.

    Attributes:
      names: of the blocks, first to last.
      top1: accuracy on the images that were asked about, for each protocol a value a block.
      chance: share of the most frequent class among them.
    """

    names: list[str]
    top1: dict[str, Float[np.ndarray, "L"]]
    chance: float


def layer_features(model: nn.Module, variables: Any, images: Array) -> dict[str, Array]:
    """Compute the features of every block, `[B, C]`.

    Of a map it is the mean, and of tokens before a map the first one, or the mean of the map where
    the head reads that (`pool="gap"`, `pool="map"`).

    Raises:
      ValueError: the model has no blocks.
    """
    return _pooled(*unrolled(model, variables), jnp.asarray(images))


@functools.partial(jax.jit, static_argnums=0)
def _pooled(model: nn.Module, variables: Any, images: Array) -> dict[str, Array]:
    places = Places(model, variables, images)
    reads_token = getattr(model, "pool", "") not in ("gap", "map")

    def pool(x: Array) -> Array:
        tokens = places.of(x.shape, False).tokens if x.ndim == 3 else 0
        if tokens and reads_token:
            return x[:, 0]
        return x.reshape(len(x), -1, x.shape[-1])[:, tokens:].mean(axis=1)

    return {name: pool(x) for name, x in block_features(model, variables, images).items()}


def probe_layers(
    features: Mapping[str, Float[np.ndarray, "N _"]],
    labels: Int[np.ndarray, "N"],
    asked: Mapping[str, Float[np.ndarray, "M _"]],
    truth: Int[np.ndarray, "M"],
    classes: int,
    config: ProbesConfig,
) -> LayerProbes:
    """Measure the probes of every block.

    Args:
      features, labels: of labelled images; features of each block, by its path, first to last.
      asked, truth: of those that are asked about.
      classes: number of classes.
      config: protocols and their settings; at least one protocol.

    Raises:
      ValueError: no protocol is named, or the features are of other blocks.
    """
    if not config.protocols:
        raise ValueError("Which probe? Name a protocol, such as ProbesConfig(('linear',)).")
    if list(features) != list(asked):
        raise ValueError(
            f"Labelled images have features of {len(features)} blocks and those asked about of "
            f"{len(asked)}; compute both by the same model."
        )
    rows = [measure(x, labels, asked[k], truth, classes, config) for k, x in features.items()]
    top1 = {name: np.array([row[name] for row in rows]) for name in config.protocols}
    return LayerProbes(list(features), top1, float(np.bincount(truth).max() / len(truth)))
