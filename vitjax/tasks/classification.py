"""Image classification: softmax or sigmoid cross-entropy, label smoothing, top-1 and top-5.

Mixed images (`mixing`), a teacher (`distillation`), token labels, class weights and early exits are
parts of the loss.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vitjax.data.kinds import TokenScores, image_and_label
from vitjax.data.label_maps import read_label_maps, with_label_maps
from vitjax.data.source import DataInfo, Sample, Source
from vitjax.data.transforms.crops import height_and_width
from vitjax.layers.pixels import normalize_pixels
from vitjax.models import from_config as model_from_config
from vitjax.models.partition import RESIDUAL, SHARDING_RULES
from vitjax.models.protocols import GivesDistillationLogits, check_output, takes_clips
from vitjax.models.pyramid import KERNELS
from vitjax.names import check_choice
from vitjax.runs import Trained, abstract_teacher, load_weights, open_teacher
from vitjax.task import Batch, Keys, Loss, Presentation, Sums, Task
from vitjax.tasks import mixing
from vitjax.tasks.accuracy import by_class, class_sums, summarize
from vitjax.tasks.class_weights import weigh, weights_from_config
from vitjax.tasks.distillation import (
    KINDS,
    Distillation,
    DistillationConfig,
    distillation_loss,
    teacher_logits,
)
from vitjax.tasks.exits import exit_losses, exit_sums, exit_weights
from vitjax.tasks.inspection import class_findings, most_probable
from vitjax.tasks.mixing import Mixing
from vitjax.tasks.token_labels import CLASS_TARGETS, SCORES, TokenLabels
from vitjax.tasks.token_loss import TokenBatch, check_tokens, token_loss
from vitjax.train.defaults import RunConfig


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Section `loss`."""

    # Or "sigmoid": each class for itself, as in JFT pretraining; its per-class losses are summed.
    name: str = "softmax"
    label_smoothing: float = 0.0  # share of the target spread evenly over all classes
    # "balanced", "effective:0.999", a number for each class, or {"name": number, …}; None: 1.
    class_weights: Any = None
    # Of each early exit's loss, which are added up, of a model that has them; (): 1 each.
    exit_weights: tuple[float, ...] = ()
    # First value of the head's bias. At -10 a sigmoid loss begins with all classes improbable, near
    # the log of their number, as in big_vision's JFT and ImageNet-21k runs.
    head_bias: float = 0.0


@dataclasses.dataclass(frozen=True)
class ClassificationRun(RunConfig):
    """Config of a run, with the sections of this task."""

    loss: LossConfig = LossConfig()
    mixing: Mixing = Mixing()
    token_labels: TokenLabels = TokenLabels()
    distillation: DistillationConfig = DistillationConfig()


TOP = 5
"""Classes of an image that `vitjax predict` and `vitjax eval` show."""

LOSSES = ("softmax", "sigmoid")


def classification(
    model: nn.Module,
    *,
    num_classes: int,
    image_size: int | tuple[int, int],
    sample_shape: tuple[int, ...] = (),
    loss: LossConfig = LossConfig(),
    class_weights: tuple[float, ...] = (),
    mean: tuple[float, ...] = (0.5, 0.5, 0.5),
    std: tuple[float, ...] = (0.5, 0.5, 0.5),
    mixed: Mixing = Mixing(),
    distilled: Distillation | None = None,
    tokens: TokenLabels = TokenLabels(),
    map_shape: tuple[int, ...] = (),
    class_names: tuple[str, ...] = (),
    multi_label: bool = False,
    add_fields: Callable[[Source], Source] = lambda source: source,
    load: Callable[[str], Any] | None = None,
) -> Task:
    """Build the task of a model `images, train → logits [B, num_classes]`.

    Args:
      loss: section of the config; its `class_weights` is not read, see the next argument.
      class_weights: weight of an image of each class in training, see `weigh`; empty for 1 each.
        In evaluations each image has the weight 1.
      image_size: side of a square, or rows and columns.
      sample_shape: of what the model sees of a sample; empty for an image.
      mean, std: one value for each channel, in units of the full range: pixels become
        (pixel / 255 - mean) / std.
      mixed: mixing of a training batch.
      distilled: a teacher; the second of `class_and_distillation_logits`, if the model has them,
        learns from it.
      tokens: with a weight, each token's own logits (`token_logits`) learn the batch's label maps,
        or the image's label.
      map_shape: k, h, w of the training data's label maps; empty without.
      class_names: names for `present`; class numbers if empty.
      multi_label: an image has a weight for each class.
      add_fields: see `Task`.

    Raises:
      ValueError: a part does not go with another, or with the model.
    """
    check_choice("class target of token labels", tokens.class_target, CLASS_TARGETS)
    check_choice("kind of scores of label maps", tokens.scores, SCORES)
    names = class_names or tuple(map(str, range(num_classes)))
    exits = exit_weights(model, loss.exit_weights)
    run = _Classification(
        model, names, loss, exits, class_weights, mean, std, mixed, distilled, tokens
    )
    if run.by_token:
        check_tokens(model, loss.name, mixed, distilled)
    shape = sample_shape or (*height_and_width(image_size), len(mean))
    kinds = image_and_label(DataInfo(names, "", multi_label=multi_label), image_size, len(mean))
    return Task(
        kinds={**kinds, "map": TokenScores(map_shape)} if map_shape else kinds,
        eval_kinds=kinds,
        init=lambda key: run.init(key, shape),
        loss=run.train_loss,
        predict=run.predict,
        measure=run.measure,
        summarize=summarize,
        by_class=lambda sums: by_class(sums, names),
        monitor="top1",
        present=run.present,
        decay_rules=getattr(model, "decay_rules", KERNELS),
        sharding_rules=SHARDING_RULES,
        residual=RESIDUAL,
        frozen=distilled.teacher.variables if distilled else None,
        add_fields=add_fields,
        features=None if multi_label or exits else run.features,
        columns=run.columns,
        load=load,
        inspect=run.inspect,
        findings=lambda sums, rows: class_findings(rows, names),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Classification:
    """Functions of the task; the fields are the checked arguments of `classification`."""

    model: nn.Module
    names: tuple[str, ...]  # of the K classes
    loss: LossConfig
    exits: tuple[float, ...]  # weight of each early exit; empty without
    class_weights: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mixed: Mixing
    distilled: Distillation | None
    tokens: TokenLabels

    @property
    def by_token(self) -> bool:
        return self.tokens.weight > 0 or self.mixed.mixtoken > 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the cells that `present` fills."""
        places = ["", *(f"_{place}" for place in range(2, min(TOP, len(self.names)) + 1))]
        return tuple(f"{what}{place}" for place in places for what in ("class", "probability"))

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        variables = dict(self.model.init(key, jnp.zeros((1, *shape))))
        if self.loss.head_bias:
            variables["params"] = with_head_bias(variables["params"], self.loss.head_bias)
        return variables

    def train_loss(
        self, params: Any, collections: Any, batch: Batch, keys: Keys, frozen: Any
    ) -> Loss:
        images, smoothing = self.pixels(batch), self.loss.label_smoothing
        target = optax.smooth_labels(self.weights(batch["label"]), smoothing)
        if self.mixed.erase:
            images = mixing.erase(keys("erase"), images, self.mixed.erase)
        if self.mixed.mixes:
            images, target = mixing.mix(keys("mix"), self.mixed, images, target, batch["mask"])
        variables = {"params": params, **collections}
        if self.by_token:
            labelled = TokenBatch(images, target, smoothing, batch)
            value, count, collections = token_loss(
                self.model, self.tokens, self.class_weights, self.mixed, variables, labelled, keys
            )
            return Loss(value, count, collections, {})
        target, count = weigh(target, self.class_weights, smoothing)
        taught = self.teach(frozen, images)
        both = isinstance(self.model, GivesDistillationLogits) and taught is not None
        method = "exit_logits" if self.exits else "class_and_distillation_logits" if both else None
        logits, collections = self.model.apply(
            variables,
            images,
            True,
            rngs={"dropout": keys("dropout")},
            mutable=list(collections),
            method=method,
        )
        if self.exits:
            cost = functools.partial(self.cost, target=target, taught=taught)
            value, terms = exit_losses(lambda z: cost(z, z), logits, self.exits)
            return Loss(count * value, count, collections, terms)
        logits, imitation = logits if both else (logits, logits)
        return Loss(count * self.cost(logits, imitation, target, taught), count, collections, {})

    def teach(self, frozen: Any, images: Float[Array, "B H W C"]) -> Float[Array, "B K"] | None:
        """Compute the teacher's logits; None without a teacher."""
        if self.distilled is None:
            return None
        return teacher_logits(self.distilled.teacher, frozen, images, self.mean, self.std)

    def cost(
        self, logits: Array, imitation: Array, target: Array, taught: Array | None
    ) -> Float[Array, "B"]:
        """Compute the loss of each image, of its labels and of its teacher's logits."""
        if self.distilled is None or taught is None:
            return self.per_sample(logits, target)
        how = self.distilled.how
        imitated = distillation_loss(imitation, taught, how.kind, how.temperature)
        return (1 - how.weight) * self.per_sample(logits, target) + how.weight * imitated

    def per_sample(self, logits: Array, target: Array) -> Float[Array, "B"]:
        logits = logits.astype(jnp.float32)
        if self.loss.name == "softmax":
            return optax.softmax_cross_entropy(logits, target)
        return optax.sigmoid_binary_cross_entropy(logits, target).sum(axis=-1)

    def weights(self, labels: Int[Array, "B"] | Float[Array, "B K"]) -> Float[Array, "B K"]:
        return jax.nn.one_hot(labels, len(self.names)) if labels.ndim == 1 else labels

    def pixels(self, batch: Batch) -> Float[Array, "B *T H W C"]:
        return normalize_pixels(batch["image"], self.mean, self.std)

    def predict(self, variables: Any, batch: Batch) -> Float[Array, "B *E K"]:
        if self.exits:
            logits: Any = self.model.apply(variables, self.pixels(batch), method="exit_logits")
            return jnp.stack(logits, axis=1).astype(jnp.float32)
        return jnp.asarray(self.model.apply(variables, self.pixels(batch)), jnp.float32)

    def features(self, variables: Any, batch: Batch) -> Float[Array, "B C"]:
        headless = self.model.clone(num_classes=0)
        return jnp.asarray(headless.apply(variables, self.pixels(batch)), jnp.float32)

    def measure(self, logits: Float[Array, "B *E K"], batch: Batch) -> Sums:
        plain, mask = self.weights(batch["label"]), batch["mask"]
        if logits.ndim == 3:  # of all exits; the model's answer is the last one's
            return self.measure(logits[:, -1], batch) | exit_sums(logits, plain, mask)
        # Of several labels the most probable one counts.
        found = jnp.where(plain > 0, logits, -jnp.inf).max(axis=1, keepdims=True)
        rank = (logits > found).sum(axis=1)
        top = {f"top{k}": (rank < k).astype(jnp.float32) for k in (1, 5) if k < len(self.names)}
        values = {"loss": self.per_sample(logits, plain), **top, "images": jnp.ones_like(mask)}
        sums = {name: jnp.sum(value * mask) for name, value in values.items()}
        one = batch["label"].ndim == 1
        return sums | class_sums((rank < 1).astype(jnp.float32), plain, mask) if one else sums

    def inspect(self, logits: Float[Array, "B *E K"], batch: Batch) -> tuple[Sums, Any]:
        last = logits[:, -1] if self.exits else logits
        squash = jax.nn.softmax if self.loss.name == "softmax" else jax.nn.sigmoid
        return self.measure(logits, batch), most_probable(last, squash(last), batch, TOP)

    def present(self, logits: Float[np.ndarray, "*E K"], sample: Sample) -> Presentation:
        del sample
        last = np.asarray(logits[-1] if self.exits else logits, np.float64)
        shares = _shares(last, self.loss.name)
        top = [(self.names[i], float(shares[i])) for i in np.argsort(-shares)[:TOP]]
        lines = [f"{share:7.2%}  {name}" for name, share in top]
        cells = dict(zip(self.columns, (cell for pair in top for cell in pair)))
        return Presentation(lines, {"top": [list(t) for t in top]}, None, cells)


def _shares(logits: Float[np.ndarray, "K"], loss: str) -> Float[np.ndarray, "K"]:
    """Compute the probability of each class on the host, for one image at a time."""
    if loss == "sigmoid":
        return np.exp(-np.logaddexp(0, -logits))
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


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


def from_config(config: ClassificationRun, info: DataInfo, abstract: bool = False) -> Task:
    """Build the task of a run.

    Args:
      config: resolved config of the run.
      info: info of the training data.
      abstract: build the teacher from shapes alone, and do not require label maps.

    Raises:
      ValueError: as in `classification`, or label maps are given that nothing reads.
    """
    _check(config, info)
    how, tokens, classes = config.distillation, config.token_labels, info.classes
    weights = weights_from_config(
        config.loss.class_weights,
        info,
        label_smoothing=config.loss.label_smoothing,
        sampling=config.data.sampling,
        abstract=abstract,
    )
    teacher: Trained | None = (
        abstract_teacher(how.teacher) if abstract else open_teacher(how.teacher, classes)
    )
    if teacher and len(teacher.mean) != config.data.channels:
        raise ValueError(
            f"The teacher {how.teacher!r} sees images of {len(teacher.mean)} channels, and "
            f"config.data.channels={config.data.channels}; they must be the same."
        )
    maps = None if abstract or not tokens.maps else read_label_maps(tokens.maps)
    shape = maps.shape if maps else (5, 14, 14) if tokens.maps else ()
    model = model_from_config(config.model, len(classes), config.data.image_size)
    hint = "a model of `vitjax list` that is none of a dense task, or another --config.task"
    check_output(config.model["name"], model, "classification", "classes", hint)
    if takes_clips(model):
        raise ValueError(
            f"The model {config.model['name']!r} sees clips, and classification has images: give "
            f"--config.task=video, or another model."
        )
    return classification(
        model,
        num_classes=len(classes),
        image_size=config.data.image_size,
        loss=config.loss,
        class_weights=weights,
        mean=config.data.mean,
        std=config.data.std,
        mixed=config.mixing,
        distilled=Distillation(teacher, how) if teacher else None,
        tokens=tokens,
        map_shape=shape,
        class_names=classes,
        multi_label=info.multi_label,
        add_fields=lambda source: with_label_maps(source, maps) if maps else source,
        load=lambda source: load_weights(config, source, len(classes)),
    )


def _check(config: ClassificationRun, info: DataInfo) -> None:
    """Check what can be known before the model and the teacher are built.

    Raises:
      ValueError: the data has no classes, or options do not go together.
    """
    if not info.classes:
        raise ValueError(
            f"The data has no classes (its samples have {', '.join(sorted(info.fields))}); "
            f"classification needs a label for each image. Choose other data or another task."
        )
    tokens = config.token_labels
    check_choice("config.loss.name", config.loss.name, LOSSES)
    check_choice("config.distillation.kind", config.distillation.kind, KINDS)
    check_choice("config.token_labels.class_target", tokens.class_target, CLASS_TARGETS)
    check_choice("config.token_labels.scores", tokens.scores, SCORES)
    if tokens.maps and not tokens.weight:
        raise ValueError(
            f"config.token_labels.maps={tokens.maps!r} has no effect with "
            f"config.token_labels.weight=0; set the weight, 0.5 in the papers."
        )
    if tokens.class_target != "label" and not tokens.weight:
        raise ValueError(
            f"config.token_labels.class_target={tokens.class_target!r} needs token labels; set "
            f"config.token_labels.weight to 0.5, or class_target to 'label'."
        )
    if config.init and not config.init_step and config.loss.head_bias:
        raise ValueError(
            f"config.loss.head_bias={config.loss.head_bias:g} and config.init={config.init!r} both "
            f"initialise the head; set only one of them."
        )
