"""Quality of a trained model's frozen features, see `vitjax.train.probes`.

Features are the input of the head (`num_classes=0`), or those of every block, of images as
evaluation sees them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vitjax.analysis.probes import LayerProbes, layer_features, probe_layers
from vitjax.data import open_source, pipeline
from vitjax.data.kinds import image_and_label
from vitjax.data.sets import with_classes
from vitjax.data.source import Source
from vitjax.layers.pixels import normalize_pixels
from vitjax.runs import Trained, forward, open_trained, replicate
from vitjax.train import sharding
from vitjax.train.probes import PROTOCOLS, ProbesConfig, measure

DEFAULTS = ProbesConfig(protocols=PROTOCOLS)


def features(
    trained: Trained,
    source: Source,
    *,
    layers: bool = False,
    batch_size: int = 64,
    num_threads: int = 4,
) -> tuple[Any, Int[np.ndarray, "N"]]:
    """Compute the features and classes of all images, on all devices.

    Args:
      layers: of every block, by its name, instead of those that the head reads.

    Returns:
      Features `[N, C]`, or those of each block, and classes.
    """
    if source.info.multi_label:
        raise ValueError("A probe needs one class an image, and these images have several.")
    embed: Any = functools.partial(_blocks if layers else _last, trained)
    variables, placed, batch_size = replicate(trained, batch_size)
    kinds = image_and_label(source.info, trained.image_size, len(trained.mean))
    batches = pipeline.eval_batches(
        source,
        kinds=kinds,
        batch_size=batch_size,
        crop=trained.crop,
        interpolation=trained.interpolation,
        num_threads=num_threads,
    )
    embed = jax.jit(embed)
    found = [
        jax.device_get((embed(variables, batch["image"]), batch["label"]))
        for batch in sharding.to_devices(batches, placed, batch_size)
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(source)], *found)


def _last(trained: Trained, variables: Any, images: Array) -> Array:
    return forward(trained._replace(model=trained.model.clone(num_classes=0)), variables, images)


def _blocks(trained: Trained, variables: Any, images: Array) -> dict[str, Array]:
    pixels = normalize_pixels(images, trained.mean, trained.std)
    found = layer_features(trained.model, variables, pixels)
    return {name: jnp.asarray(x, jnp.float32) for name, x in found.items()}


def probe(
    text: str,
    train_uri: str,
    test_uri: str,
    splits: tuple[str, str],
    config: ProbesConfig = DEFAULTS,
    **options: int,
) -> dict[str, Any]:
    """Measure the top-1 accuracy of a trained model's features under each protocol.

    Args:
      text: of a model, as in `open_trained`.
      train_uri, test_uri, splits: labelled images, all of which are used, and those that are asked
        about.
      config: protocols and their settings.
      **options: of `features`.
    """
    (x, labels), (asked, truth), classes = _both(text, (train_uri, test_uri), splits, **options)
    found: dict[str, Any] = {"model": text, "images": len(x), "features": x.shape[1]}
    return found | measure(x, labels, asked, truth, classes, config)


def probe_blocks(
    text: str,
    train_uri: str,
    test_uri: str,
    splits: tuple[str, str],
    config: ProbesConfig = DEFAULTS,
    **options: int,
) -> LayerProbes:
    """Measure the same of the features of every block; see `probe`."""
    uris = (train_uri, test_uri)
    (x, labels), (asked, truth), classes = _both(text, uris, splits, layers=True, **options)
    return probe_layers(x, labels, asked, truth, classes, config)


def _both(text: str, uris: tuple[str, str], splits: tuple[str, str], **options: Any) -> Any:
    """Compute features and classes of labelled images and those asked about; count the classes."""
    trained = open_trained(text)
    first, second = (open_source(uri, split) for uri, split in zip(uris, splits))
    second = with_classes(second, first.info, "--test-data")
    found = [features(trained, source, **options) for source in (first, second)]
    return *found, len(first.info.classes)
