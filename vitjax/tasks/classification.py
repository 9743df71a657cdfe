"""Image classification: softmax or sigmoid cross-entropy, label smoothing, top-1 and top-5."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from vitjax.tasks import Task

LOSSES = ("softmax", "sigmoid")


def classification(
    model: nn.Module,
    *,
    num_classes: int,
    image_size: int,
    loss: str = "softmax",
    label_smoothing: float = 0.0,
    mean: tuple[float, ...] = (0.5, 0.5, 0.5),
    std: tuple[float, ...] = (0.5, 0.5, 0.5),
) -> Task:
    """The task of a model `images, train → logits [B, num_classes]`.

    Args:
      loss: "softmax" (one class an image) or "sigmoid" (each class for itself, as in JFT
        pretraining; its per-class losses are summed).
      label_smoothing: share of the target spread evenly over all classes.
      mean, std: per channel, in units of the full range: pixels become (pixel / 255 - mean) / std.
    """

    def init(key: Array) -> dict[str, Any]:
        return dict(model.init(key, jnp.zeros((1, image_size, image_size, 3))))

    def targets(labels: Int[Array, "B"]) -> Float[Array, "B K"]:
        return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), label_smoothing)

    def per_sample(logits: Array, target: Array) -> Float[Array, "B"]:
        logits = logits.astype(jnp.float32)
        if loss == "softmax":
            return optax.softmax_cross_entropy(logits, target)
        return optax.sigmoid_binary_cross_entropy(logits, target).sum(axis=-1)

    def train_loss(
        params: Any, rest: Any, batch: dict[str, Array], key: Array
    ) -> tuple[Float[Array, "B"], Any]:
        images = normalize(batch["image"], mean, std)
        logits, rest = model.apply(
            {"params": params, **rest}, images, True, rngs={"dropout": key}, mutable=list(rest)
        )
        return per_sample(logits, targets(batch["label"])), rest

    def predict(variables: Any, images: Array) -> Float[Array, "B K"]:
        return jnp.asarray(model.apply(variables, normalize(images, mean, std)), jnp.float32)

    def metrics(logits: Array, batch: dict[str, Array]) -> dict[str, Float[Array, "B"]]:
        labels = batch["label"]
        rank = (logits > jnp.take_along_axis(logits, labels[:, None], axis=1)).sum(axis=1)
        plain = jax.nn.one_hot(labels, num_classes)
        top = {f"top{k}": (rank < k).astype(jnp.float32) for k in (1, 5) if k < num_classes}
        return {"loss": per_sample(logits, plain), **top}

    return Task(init, train_loss, predict, metrics, headline="top1")


def normalize(
    images: UInt8[Array | np.ndarray, "B H W c"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "B H W c"]:
    """uint8 pixels to floats of about unit variance."""
    scale, shift = 1 / (255 * jnp.array(std)), jnp.array(mean) / jnp.array(std)
    return jnp.asarray(images, jnp.float32) * scale - shift
