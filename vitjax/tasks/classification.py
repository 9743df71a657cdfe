"""Image classification: softmax or sigmoid cross-entropy, label smoothing, top-1 and top-5.

Mixed images (`mixing`), a teacher (`distillation`) and token labels are parts of the loss.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from vitjax.models.pyramid import KERNELS
from vitjax.names import check_choice
from vitjax.tasks import Task, mixing
from vitjax.tasks.distillation import (
    TEACHER,
    Distillation,
    Teacher,
    distillation_loss,
    teacher_logits,
)
from vitjax.tasks.mixing import Mixing
from vitjax.tasks.token_labels import (
    CLASS_TARGETS,
    SCORES,
    TokenLabels,
    class_targets,
    token_label_loss,
    token_targets,
)

LOSSES = ("softmax", "sigmoid")


def classification(
    model: nn.Module,
    *,
    num_classes: int,
    image_size: int,
    loss: str = "softmax",
    label_smoothing: float = 0.0,
    head_bias: float = 0.0,
    mean: tuple[float, ...] = (0.5, 0.5, 0.5),
    std: tuple[float, ...] = (0.5, 0.5, 0.5),
    mixed: Mixing = mixing.NONE,
    distilled: Distillation | None = None,
    token_weight: float = 0.0,
    class_target: str = "label",
    map_scores: str = "probabilities",
) -> Task:
    """The task of a model `images, train → logits [B, num_classes]`.

    Args:
      loss: "softmax" (one class an image) or "sigmoid" (each class for itself, as in JFT
        pretraining; its per-class losses are summed).
      label_smoothing: share of the target spread evenly over all classes.
      head_bias: first value of the head's bias. At -10 a sigmoid loss begins with all classes
        improbable, near the log of their number, as in big_vision's JFT and ImageNet-21k runs.
      mean, std: per channel, in units of the full range: pixels become (pixel / 255 - mean) / std.
      mixed: what is done to a training batch.
      distilled: a teacher, whose head is `both_logits`'s second where the model has one.
      token_weight: of the loss of each token's own logits (`token_logits`), whose labels are those
        of the batch's label maps, or the image's.
      class_target: what the class token then learns: the image's "label", what the label "maps" say
        of the crop, or "both"; see `token_labels.class_targets`.
      map_scores: what the maps hold, "probabilities" or "logits".

    Raises:
      ValueError: a part does not go with another, or with the model.
    """
    check_choice("class target of token labels", class_target, CLASS_TARGETS)
    check_choice("kind of scores of label maps", map_scores, SCORES)
    by_token = token_weight > 0 or mixed.mixtoken > 0
    tokens = TokenLabels(token_weight, class_target, map_scores)
    if by_token:
        _check_tokens(model, loss, mixed, distilled)

    def init(key: Array) -> dict[str, Any]:
        variables = dict(model.init(key, jnp.zeros((1, image_size, image_size, 3))))
        if head_bias:
            variables["params"] = with_head_bias(variables["params"], head_bias)
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
        if by_token:
            labelled = TokenBatch(images, target, label_smoothing, batch)
            return token_loss(model, tokens, mixed, {"params": params, **own}, labelled, key)
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

    decay_rules = getattr(model, "decay_rules", KERNELS)
    return Task(init, train_loss, predict, metrics, headline="top1", decay_rules=decay_rules)


class TokenBatch(NamedTuple):
    """A training batch of which tokens are learnt.

    Attributes:
      images: normalised, perhaps erased; not mixed.
      target: of each image, smoothed.
      label_smoothing: what it was smoothed with.
      batch: `mask` and perhaps label maps.
    """

    images: Float[Array, "B H W c"]
    target: Float[Array, "B K"]
    label_smoothing: float
    batch: dict[str, Array]


def token_loss(
    model: nn.Module,
    tokens: TokenLabels,
    mixed: Mixing,
    variables: Any,
    given: TokenBatch,
    key: Array,
) -> tuple[Float[Array, "B"], Any]:
    """Compute the loss of token labels and MixToken.

    The class token's cross-entropy plus `tokens.weight` times the mean of the tokens' (Jiang et
    al., arXiv:2104.10858, eq. 4). MixToken (eq. 6-8 there) exchanges a box of tokens with the
    partner's and gives the tokens' logits back; the class target becomes
    share · own + (1 - share) · partner's, with the share of the tokens outside of the box.

    Returns:
      Loss per sample `[B]`, and the variables besides the parameters.
    """
    apply = functools.partial(model.apply, method="token_logits")
    plain: Any = jax.eval_shape(apply, variables, given.images)
    grid = plain[1].shape[1:3]
    maps, dense = token_targets(
        given.batch, given.target, grid, given.label_smoothing, tokens.scores
    )
    target = class_targets(tokens.class_target, given.target, maps)
    inputs: tuple[Any, ...] = (given.images, True)
    if mixed.mixtoken:
        mix_key = jax.random.fold_in(key, mixing.MIX)
        keep = mixing.kept_tokens(mix_key, mixed, grid, given.batch["mask"])
        share = keep.mean(axis=(1, 2))[:, None]
        target = share * target + (1 - share) * mixing.partner(target)
        inputs += (functools.partial(mixing.mix_token, keep),)
    state = [name for name in variables if name != "params"]
    (whole, logits), own = apply(variables, *inputs, rngs={"dropout": key}, mutable=state)
    return token_label_loss(whole, logits, target, dense, tokens.weight), own


def with_head_bias(params: dict[str, Any], value: float) -> dict[str, Any]:
    """Set every entry of the head's bias to a value.

    Raises:
      ValueError: the model has no layer `head` with a bias.
    """
    head = params.get("head", {})
    if "bias" not in head:
        raise ValueError(
            f"loss.head_bias={value:g} needs a model with a layer 'head' that has a bias; this one "
            f"has the parts {', '.join(sorted(params))}."
        )
    return {**params, "head": {**head, "bias": jnp.full_like(head["bias"], value)}}


def _check_tokens(
    model: nn.Module, loss: str, mixed: Mixing, distilled: Distillation | None
) -> None:
    if not hasattr(model, "token_logits"):
        raise ValueError(
            "Token labels and MixToken need a model with logits of its tokens, a VOLO; set "
            "token_labels.weight=0 and mixing.mixtoken=0."
        )
    others = {
        "mixup or cutmix": mixed.mixes,
        "a teacher": distilled,
        f"loss {loss!r}": loss != "softmax",
    }
    if wrong := [name for name, there in others.items() if there]:
        raise ValueError(
            f"Token labels and MixToken do not go with {' and '.join(wrong)}: tokens are mixed, "
            f"and have a softmax loss and labels, of their own."
        )


def from_config(
    config: Any, model: nn.Module, num_classes: int, teacher: Teacher | None = None
) -> Task:
    """The task of a run.

    Args:
      config: of the run, resolved.
      model: as `models.from_config` gives it.
      num_classes: of the data.
      teacher: what `config.distillation.teacher` names.

    Raises:
      ValueError: as `classification`, or label maps are given that nothing would read.
    """
    how, tokens = config.distillation, config.token_labels
    if tokens.maps and not tokens.weight:
        raise ValueError(
            f"config.token_labels.maps={tokens.maps!r} is given, and with "
            f"config.token_labels.weight=0 nothing is learnt from it; the papers have 0.5."
        )
    if tokens.class_target != "label" and not tokens.weight:
        raise ValueError(
            f"config.token_labels.class_target={tokens.class_target!r} needs token labels; set "
            f"config.token_labels.weight to 0.5, or class_target to 'label'."
        )
    if config.init and config.loss.head_bias:
        raise ValueError(
            f"config.loss.head_bias={config.loss.head_bias:g} is a first value, and "
            f"config.init={config.init!r} gives the first weights; set one of them alone."
        )
    return classification(
        model,
        num_classes=num_classes,
        image_size=config.data.image_size,
        loss=config.loss.name,
        label_smoothing=config.loss.label_smoothing,
        head_bias=config.loss.head_bias,
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        mixed=Mixing(**config.mixing),
        distilled=Distillation(teacher, how.kind, how.weight, how.temperature) if teacher else None,
        token_weight=tokens.weight,
        class_target=tokens.class_target,
        map_scores=tokens.scores,
    )


def samples(
    config: Any, num_classes: int, multi_label: bool, map_shape: tuple[int, ...] = ()
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of what a sample of a training batch has besides its image.

    Args:
      config: of the run, resolved.
      multi_label: an image has a weight for each class.
      map_shape: of the run's label maps: classes kept, rows, columns; supposed if not known.
    """
    label = ((num_classes,), jnp.float32) if multi_label else ((), jnp.int32)
    found: dict[str, Any] = {"label": label, "mask": ((), jnp.float32)}
    if config.token_labels.maps:
        shape = map_shape or (5, 14, 14)
        found |= {"map_classes": (shape, jnp.uint16), "map_scores": (shape, jnp.float16),
                  "box": ((4,), jnp.float32), "mirrored": ((), jnp.bool_)}  # fmt: skip
    return found


def normalize(
    images: UInt8[Array | np.ndarray, "B H W c"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "B H W c"]:
    """uint8 pixels to floats of about unit variance."""
    scale, shift = 1 / (255 * jnp.array(std)), jnp.array(mean) / jnp.array(std)
    return jnp.asarray(images, jnp.float32) * scale - shift
