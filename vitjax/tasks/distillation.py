"""Distillation from a teacher, hard and soft (Touvron et al., arXiv:2012.12877, eq. 2-3).

The teacher's variables are the part `frozen` of the training state, which no checkpoint holds.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vitjax.data.transforms.crops import height_and_width
from vitjax.names import check_choice
from vitjax.runs import Trained

KINDS = ("hard", "soft", "soft_mean")


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Section `distillation`."""

    teacher: str = ""  # another run's folder, or published weights: "deit_small=weights.pth"
    kind: str = "hard"  # "soft" (arXiv:2012.12877, eq. 2) or "soft_mean" (DeiT's code)
    # Share of the loss that is the teacher's: ½ for hard, 0.1 for soft in the paper; ½ in the code.
    weight: float = 0.5
    temperature: float = 3.0  # of the soft probabilities (3 in the paper, 1 in the code)


class Distillation(NamedTuple):
    """Teacher of a student, and the options of the loss."""

    teacher: Trained
    how: DistillationConfig


def teacher_logits(
    teacher: Trained,
    variables: Any,
    images: Float[Array, "B H W c"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "B K"]:
    """Compute the teacher's logits of images normalised for the student, without gradients."""
    if (teacher.mean, teacher.std) != (mean, std):
        pixels = images * jnp.array(std) + jnp.array(mean)
        images = (pixels - jnp.array(teacher.mean)) / jnp.array(teacher.std)
    size = height_and_width(teacher.image_size)
    if images.shape[1:3] != size:
        shape = (len(images), *size, images.shape[3])
        images = jax.image.resize(images, shape, "bilinear")
    logits = jnp.asarray(teacher.model.apply(variables, images), jnp.float32)
    return jax.lax.stop_gradient(logits)


def distillation_loss(
    student: Float[Array, "B K"], teacher: Float[Array, "B K"], kind: str, temperature: float
) -> Float[Array, "B"]:
    """Compute the teacher's part of the loss.

    The whole loss of an image is (1 - a) times its own plus a times this, a = `weight`. With the
    student's logits z, the teacher's u and K classes:

    - "hard": cross-entropy of z with argmax u (eq. 3; a = ½, in paper and code).
    - "soft": τ² Σ p log(p / q), p = softmax(u / τ), q = softmax(z / τ) (eq. 2; τ = 3, a = 0.1).
    - "soft_mean": the same divided by K, since the authors' code averages over elements
      (facebookresearch/deit, `losses.py`; defaults τ = 1, a = ½): 1000 times less on ImageNet.

    Args:
      kind: one of KINDS.
      temperature: τ of both softmaxes.

    Raises:
      ValueError: another kind.
    """
    check_choice("kind of distillation", kind, KINDS)
    student = student.astype(jnp.float32)
    if kind == "hard":
        return optax.softmax_cross_entropy_with_integer_labels(student, teacher.argmax(axis=-1))
    probabilities = jax.nn.softmax(teacher / temperature)
    log = jax.nn.log_softmax(student / temperature)
    loss = temperature**2 * optax.kl_divergence(log, probabilities)
    return loss / student.shape[-1] if kind == "soft_mean" else loss
