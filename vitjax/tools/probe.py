"""Quality of a trained model's frozen features, see `vitjax.train.probes`.

Features are the input of the head (`num_classes=0`), of images as evaluation sees them.
"""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int

from vitjax.data import open_source, pipeline
from vitjax.data.kinds import image_and_label
from vitjax.data.sets import with_classes
from vitjax.data.source import Source
from vitjax.runs import Trained, forward, open_trained, replicate
from vitjax.train import sharding
from vitjax.train.probes import PROTOCOLS, ProbesConfig, measure

DEFAULTS = ProbesConfig(protocols=PROTOCOLS)


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
    trained = open_trained(text)
    sources = [open_source(uri, split) for uri, split in zip((train_uri, test_uri), splits)]
    sources[1] = with_classes(sources[1], sources[0].info, "--test-data")
    (x, labels), (asked, truth) = (features(trained, source, **options) for source in sources)
    found: dict[str, Any] = {"model": text, "images": len(x), "features": x.shape[1]}
    classes = len(sources[0].info.classes)
    return found | measure(x, labels, asked, truth, classes, config)
