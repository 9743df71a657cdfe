"""Image classification: softmax or sigmoid cross-entropy, label smoothing, top-1 and top-5.

Mixed images (`mixing`), a teacher (`distillation`) and token labels are parts of the loss.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from vitjax.tasks import Task, mixing
from vitjax.tasks.distillation import (
    TEACHER,
    Distillation,
    Teacher,
    distillation_loss,
    teacher_logits,
)
from vitjax.tasks.mixing import Mixing

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
    mixed: Mixing = mixing.NONE,
    distilled: Distillation | None = None,
) -> Task:
    """The task of a model `images, train → logits [B, num_classes]`.

    Args:
      loss: "softmax" (one class an image) or "sigmoid" (each class for itself, as in JFT
        pretraining; its per-class losses are summed).
      label_smoothing: share of the target spread evenly over all classes.
      mean, std: per channel, in units of the full range: pixels become (pixel / 255 - mean) / std.
      mixed: what is done to a training batch.
      distilled: a teacher, whose head is `both_logits`'s second where the model has one.
    """

    def init(key: Array) -> dict[str, Any]:
        variables = dict(model.init(key, jnp.zeros((1, image_size, image_size, 3))))
        return variables | ({TEACHER: distilled.teacher.variables} if distilled else {})

    def weights(labels: Int[Array, "B"] | Float[Array, "B K"]) -> Float[Array, "B K"]:
        return jax.nn.one_hot(labels, num_classes) if labels.ndim == 1 else labels

    def per_sample(logits: Array, target: Array) -> Float[Array, "B"]:
        logits = logits.astype(jnp.float32)
        if loss == "softmax":
            return optax.softmax_cross_entropy(logits, target)
        return optax.sigmoid_binary_cross_entropy(logits, target).sum(axis=-1)

    def train_loss(
        params: Any, rest: Any, batch: dict[str, Array], key: Array
    ) -> tuple[Float[Array, "B"], Any]:
        images = normalize(batch["image"], mean, std)
        target = optax.smooth_labels(weights(batch["label"]), label_smoothing)
        if mixed.erase:
            images = mixing.erase(jax.random.fold_in(key, mixing.ERASE), images, mixed.erase)
        if mixed.mixes:
            mix_key = jax.random.fold_in(key, mixing.MIX)
            images, target = mixing.mix(mix_key, mixed, images, target, batch["mask"])
        own = {name: value for name, value in rest.items() if name != TEACHER}
        both = distilled is not None and hasattr(model, "both_logits")
        logits, own = model.apply(
            {"params": params, **own}, images, True, rngs={"dropout": key}, mutable=list(own),
            method="both_logits" if both else None,
        )  # fmt: skip
        if distilled is None:
            return per_sample(logits, target), own
        logits, imitation = logits if both else (logits, logits)
        taught = teacher_logits(distilled.teacher, rest[TEACHER], images, mean, std)
        imitated = distillation_loss(imitation, taught, distilled.kind, distilled.temperature)
        share = distilled.weight
        losses = (1 - share) * per_sample(logits, target) + share * imitated
        return losses, {**own, TEACHER: rest[TEACHER]}

    def predict(variables: Any, images: Array) -> Float[Array, "B K"]:
        own = {name: value for name, value in variables.items() if name != TEACHER}
        return jnp.asarray(model.apply(own, normalize(images, mean, std)), jnp.float32)

    def metrics(logits: Array, batch: dict[str, Array]) -> dict[str, Float[Array, "B"]]:
        plain = weights(batch["label"])
        # Of several labels the most probable one counts.
        found = jnp.where(plain > 0, logits, -jnp.inf).max(axis=1, keepdims=True)
        rank = (logits > found).sum(axis=1)
        top = {f"top{k}": (rank < k).astype(jnp.float32) for k in (1, 5) if k < num_classes}
        return {"loss": per_sample(logits, plain), **top}

    return Task(init, train_loss, predict, metrics, headline="top1")


def from_config(
    config: Any, model: nn.Module, num_classes: int, teacher: Teacher | None = None
) -> Task:
    """The task of a run.

    Args:
      config: of the run, resolved.
      model: as `models.from_config` gives it.
      num_classes: of the data.
      teacher: what `config.distillation.teacher` names.
    """
    how = config.distillation
    return classification(
        model,
        num_classes=num_classes,
        image_size=config.data.image_size,
        loss=config.loss.name,
        label_smoothing=config.loss.label_smoothing,
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        mixed=Mixing(**config.mixing),
        distilled=Distillation(teacher, how.kind, how.weight, how.temperature) if teacher else None,
    )


def normalize(
    images: UInt8[Array | np.ndarray, "B H W c"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "B H W c"]:
    """uint8 pixels to floats of about unit variance."""
    scale, shift = 1 / (255 * jnp.array(std)), jnp.array(mean) / jnp.array(std)
    return jnp.asarray(images, jnp.float32) * scale - shift
