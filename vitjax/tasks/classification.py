"""Image classification: softmax or sigmoid cross-entropy, label smoothing, top-1 and top-5.

Mixed images (`mixing`), a teacher (`distillation`) and token labels are parts of the loss.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vitjax.data.kinds import TokenScores, image_and_label
from vitjax.data.label_maps import read_label_maps, with_label_maps
from vitjax.data.source import DataInfo, Sample, Source
from vitjax.layers.pixels import normalize_pixels
from vitjax.models import from_config as model_from_config
from vitjax.models.protocols import GivesDistillationLogits, GivesTokenLogits
from vitjax.models.pyramid import KERNELS
from vitjax.names import check_choice
from vitjax.runs import Trained, abstract_teacher, open_teacher
from vitjax.task import Batch, Keys, Loss, Presentation, Sums, Task
from vitjax.tasks import mixing
from vitjax.tasks.distillation import KINDS, Distillation, distillation_loss, teacher_logits
from vitjax.tasks.mixing import Mixing
from vitjax.tasks.token_labels import (
    CLASS_TARGETS,
    SCORES,
    TokenLabels,
    class_targets,
    token_label_loss,
    token_targets,
)

CONFIG: dict[str, dict[str, Any]] = {
    "loss": {
        "name": "softmax",
        "label_smoothing": 0.0,
        "head_bias": 0.0,  # first value of the head's bias; -10 with "sigmoid" and many classes
    },
    "mixing": {  # of training batches, on the device; see vitjax/tasks/mixing.py
        "mixup": 0.0,
        "cutmix": 0.0,
        "prob": 1.0,
        "switch_prob": 0.5,
        "group_size": 0,  # samples that share a draw; 0: the whole batch
        "erase": 0.0,
        "mixtoken": 0.0,
    },
    "token_labels": {  # of each token (VOLO); see vitjax/tasks/token_labels.py
        "maps": "",  # the folder of `vitjax token-labels`; empty: tokens have their image's label
        "weight": 0.0,
        "class_target": "label",  # of the class token: "label", "maps" of the crop, or "both"
        "scores": "probabilities",  # what the maps hold; or "logits"
    },
    "distillation": {
        "teacher": "",  # another run's folder, or published weights: "deit_small=weights.pth"
        "kind": "hard",  # "soft" (arXiv:2012.12877, eq. 2) or "soft_mean" (DeiT's code)
        "weight": 0.5,
        "temperature": 3.0,
    },
}
"""Its sections of a run's config."""
TOP = 5
"""Classes that `vitjax predict` shows."""

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
    map_shape: tuple[int, ...] = (),
    class_names: tuple[str, ...] = (),
    multi_label: bool = False,
    add_fields: Callable[[Source], Source] = lambda source: source,
) -> Task:
    """Build the task of a model `images, train → logits [B, num_classes]`.

    Args:
      loss: "softmax" (one class an image) or "sigmoid" (each class for itself, as in JFT
        pretraining; its per-class losses are summed).
      label_smoothing: share of the target spread evenly over all classes.
      head_bias: first value of the head's bias. At -10 a sigmoid loss begins with all classes
        improbable, near the log of their number, as in big_vision's JFT and ImageNet-21k runs.
      mean, std: per channel, in units of the full range: pixels become (pixel / 255 - mean) / std.
      mixed: what is done to a training batch.
      distilled: a teacher, whose head is the second of `class_and_distillation_logits` where the
        model has that.
      token_weight: of the loss of each token's own logits (`token_logits`), whose labels are those
        of the batch's label maps, or the image's.
      class_target: what the class token then learns: the image's "label", what the label "maps" say
        of the crop, or "both"; see `token_labels.class_targets`.
      map_scores: what the maps hold, "probabilities" or "logits".
      map_shape: k, h, w of the training data's label maps; empty without.
      class_names: for `present`; their numbers if empty.
      multi_label: an image has a weight for each class.
      add_fields: see `Task`.

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
        return variables

    def weights(labels: Int[Array, "B"] | Float[Array, "B K"]) -> Float[Array, "B K"]:
        return jax.nn.one_hot(labels, num_classes) if labels.ndim == 1 else labels

    def per_sample(logits: Array, target: Array) -> Float[Array, "B"]:
        logits = logits.astype(jnp.float32)
        if loss == "softmax":
            return optax.softmax_cross_entropy(logits, target)
        return optax.sigmoid_binary_cross_entropy(logits, target).sum(axis=-1)

    def train_loss(params: Any, collections: Any, batch: Batch, keys: Keys, frozen: Any) -> Loss:
        images = normalize_pixels(batch["image"], mean, std)
        target = optax.smooth_labels(weights(batch["label"]), label_smoothing)
        if mixed.erase:
            images = mixing.erase(keys("erase"), images, mixed.erase)
        if mixed.mixes:
            images, target = mixing.mix(keys("mix"), mixed, images, target, batch["mask"])
        variables, one = {"params": params, **collections}, jnp.ones_like(batch["mask"])
        if by_token:
            labelled = TokenBatch(images, target, label_smoothing, batch)
            value, collections = token_loss(model, tokens, mixed, variables, labelled, keys)
            return Loss(value, one, collections, {})
        both = distilled is not None and isinstance(model, GivesDistillationLogits)
        logits, collections = model.apply(
            variables, images, True, rngs={"dropout": keys("dropout")}, mutable=list(collections),
            method="class_and_distillation_logits" if both else None,
        )  # fmt: skip
        if distilled is None:
            return Loss(per_sample(logits, target), one, collections, {})
        logits, imitation = logits if both else (logits, logits)
        taught = teacher_logits(distilled.teacher, frozen, images, mean, std)
        imitated = distillation_loss(imitation, taught, distilled.kind, distilled.temperature)
        share = distilled.weight
        value = (1 - share) * per_sample(logits, target) + share * imitated
        return Loss(value, one, collections, {})

    def predict(variables: Any, batch: Batch) -> Float[Array, "B K"]:
        images = normalize_pixels(batch["image"], mean, std)
        return jnp.asarray(model.apply(variables, images), jnp.float32)

    def measure(logits: Float[Array, "B K"], batch: Batch) -> Sums:
        plain, mask = weights(batch["label"]), batch["mask"]
        # Of several labels the most probable one counts.
        found = jnp.where(plain > 0, logits, -jnp.inf).max(axis=1, keepdims=True)
        rank = (logits > found).sum(axis=1)
        top = {f"top{k}": (rank < k).astype(jnp.float32) for k in (1, 5) if k < num_classes}
        values = {"loss": per_sample(logits, plain), **top, "images": jnp.ones_like(mask)}
        return {name: jnp.sum(value * mask) for name, value in values.items()}

    def summarize(sums: Sums, rows: Any) -> dict[str, float]:
        del rows
        images = float(sums["images"])
        means = {k: float(v) / max(images, 1.0) for k, v in sums.items() if k != "images"}
        return means | {"images": images}

    def present(logits: Float[np.ndarray, "K"], sample: Sample) -> Presentation:
        del sample
        squash = jax.nn.softmax if loss == "softmax" else jax.nn.sigmoid
        shares = np.asarray(squash(logits), np.float64)
        names = class_names or tuple(map(str, range(num_classes)))
        top = [(names[i], float(shares[i])) for i in np.argsort(-shares)[:TOP]]
        lines = [f"{share:7.2%}  {name}" for name, share in top]
        return Presentation(lines, {"top": [list(t) for t in top]})

    names = class_names or tuple(map(str, range(num_classes)))
    kinds = image_and_label(DataInfo(names, "", multi_label=multi_label), image_size)
    return Task(
        kinds={**kinds, "map": TokenScores(map_shape)} if map_shape else kinds,
        eval_kinds=kinds,
        init=init,
        loss=train_loss,
        predict=predict,
        measure=measure,
        summarize=summarize,
        monitor="top1",
        present=present,
        decay_rules=getattr(model, "decay_rules", KERNELS),
        frozen=distilled.teacher.variables if distilled else None,
        add_fields=add_fields,
    )


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
    batch: Batch


def token_loss(
    model: nn.Module,
    tokens: TokenLabels,
    mixed: Mixing,
    variables: Any,
    given: TokenBatch,
    keys: Keys,
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
        keep = mixing.kept_tokens(keys("mix"), mixed, grid, given.batch["mask"])
        share = keep.mean(axis=(1, 2))[:, None]
        target = share * target + (1 - share) * mixing.partner(target)
        inputs += (functools.partial(mixing.mix_token, keep),)
    state = [name for name in variables if name != "params"]
    (whole, logits), own = apply(
        variables, *inputs, rngs={"dropout": keys("dropout")}, mutable=state
    )
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
    if not isinstance(model, GivesTokenLogits):
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


def from_config(config: Any, info: DataInfo, abstract: bool = False) -> Task:
    """Build the task of a run.

    Args:
      config: of the run, resolved.
      info: of the training data.
      abstract: the teacher is shapes alone, and label maps need not be there.

    Raises:
      ValueError: as `classification`, or label maps are given that nothing would read.
    """
    how, tokens, classes = config.distillation, config.token_labels, info.classes
    check_choice("config.loss.name", config.loss.name, LOSSES)
    check_choice("config.distillation.kind", how.kind, KINDS)
    check_choice("config.token_labels.class_target", tokens.class_target, CLASS_TARGETS)
    check_choice("config.token_labels.scores", tokens.scores, SCORES)
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
    teacher: Trained | None = (
        abstract_teacher(how.teacher) if abstract else open_teacher(how.teacher, classes)
    )
    maps = None if abstract or not tokens.maps else read_label_maps(tokens.maps)
    shape = maps.shape if maps else (5, 14, 14) if tokens.maps else ()
    return classification(
        model_from_config(config.model.to_dict(), len(classes), config.data.image_size),
        num_classes=len(classes),
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
        map_shape=shape,
        class_names=classes,
        multi_label=info.multi_label,
        add_fields=lambda source: with_label_maps(source, maps) if maps else source,
    )
