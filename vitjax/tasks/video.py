"""Video classification: the parts of `classification`, on clips, and views averaged for each video.

Training sees one clip of a video, `config.clip.frames` frames at a stride. Evaluation sees several
views, `eval_clips` clips times `eval_crops` crops, whose probabilities are averaged (Video Swin,
arXiv:2106.13230, section 4.1), so that every video counts once.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.data.clips import Clip, Views
from vitjax.data.kinds import Label
from vitjax.data.source import DataInfo
from vitjax.data.transforms.crops import height_and_width
from vitjax.models import from_config as model_from_config
from vitjax.models import list_models, model_options
from vitjax.names import check_choice
from vitjax.runs import load_weights
from vitjax.task import Batch, Keys, Loss, Task
from vitjax.tasks.class_weights import weights_from_config
from vitjax.tasks.classification import LOSSES, LossConfig, classification
from vitjax.tasks.mixing import Mixing
from vitjax.train.defaults import RunConfig


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Section `clip`.

    Raises:
      ValueError: a number is too small.
    """

    frames: int = 16  # of a clip
    stride: int = 2  # from one frame to the next, in frames of the video
    eval_clips: int = 1  # of a video in evaluation, spread evenly over it
    eval_crops: int = 1  # of each of them: 1, or 3 along the longer side

    def __post_init__(self) -> None:
        if min(self.frames, self.stride, self.eval_clips) < 1 or self.eval_crops not in (1, 3):
            raise ValueError(
                f"config.clip.frames={self.frames}, stride={self.stride}, eval_clips="
                f"{self.eval_clips} and eval_crops={self.eval_crops}: each is 1 or more, and "
                f"eval_crops 1 or 3."
            )


@dataclasses.dataclass(frozen=True)
class VideoRun(RunConfig):
    """Config of a run, with the sections of this task."""

    loss: LossConfig = LossConfig()
    mixing: Mixing = Mixing()
    clip: ClipConfig = ClipConfig()


def on_clips(task: Task, clip: Clip, views: Views, label: Label, loss: str) -> Task:
    """Convert a task of classification to one whose images are clips, and evaluate on views.

    Args:
      task: whose functions read `image`.
      clip, views: kinds of training and evaluation.
      loss: "softmax" or "sigmoid": what makes probabilities of logits.
    """

    def train_loss(params: Any, collections: Any, batch: Batch, keys: Keys, frozen: Any) -> Loss:
        return task.loss(params, collections, {**batch, "image": batch["clip"]}, keys, frozen)

    def mean_of_views(read: Any, variables: Any, batch: Batch) -> Array:
        """Average over the views, computed one after the other: memory is that of one."""
        if batch["clip"].shape[1] == 1:
            return read(variables, {**batch, "image": batch["clip"][:, 0]})
        views = jnp.moveaxis(batch["clip"], 1, 0)
        return jax.lax.map(lambda x: read(variables, {**batch, "image": x}), views).mean(axis=0)

    def predict(variables: Any, batch: Batch) -> Float[Array, "B K"]:
        if batch["clip"].shape[1] == 1:
            return mean_of_views(task.predict, variables, batch)
        squash = jax.nn.softmax if loss == "softmax" else jax.nn.sigmoid
        shares = mean_of_views(lambda v, b: squash(task.predict(v, b)), variables, batch)
        shares = jnp.clip(shares, jnp.finfo(shares.dtype).tiny, 1 - jnp.finfo(shares.dtype).epsneg)
        # Logits whose probabilities are the averages.
        return jnp.log(shares) if loss == "softmax" else jnp.log(shares) - jnp.log1p(-shares)

    def features(variables: Any, batch: Batch) -> Float[Array, "B C"]:
        assert task.features is not None
        return mean_of_views(task.features, variables, batch)

    return task._replace(
        kinds={"clip": clip, "label": label},
        eval_kinds={"clip": views, "label": label},
        loss=train_loss,
        predict=predict,
        features=features if task.features else None,
        example="video.mp4",
    )


def from_config(config: VideoRun, info: DataInfo, abstract: bool = False) -> Task:
    """Build the task of a run.

    Args:
      config: resolved config of the run; the model's `num_frames` is that of the clips unless it
        is set.
      info: info of the training data.
      abstract: the data is not available.

    Raises:
      ValueError: the data has no classes, or the model sees images.
    """
    check_choice("config.loss.name", config.loss.name, LOSSES)
    name, d, c = config.model["name"], config.data, config.clip
    if not info.classes:
        raise ValueError(
            f"The data has no classes (its samples have {', '.join(sorted(info.fields))}); the "
            f"task video needs a label for each clip. Choose other data or another task."
        )
    if "num_frames" not in model_options(name):
        models = [n for n in list_models() if "num_frames" in model_options(n)]
        raise ValueError(
            f"The model {name!r} sees images, and the task video needs one that sees clips: "
            f"{', '.join(models)}."
        )
    config = dataclasses.replace(config, model={"num_frames": c.frames, **config.model})
    weights = weights_from_config(
        config.loss.class_weights,
        info,
        label_smoothing=config.loss.label_smoothing,
        sampling=d.sampling,
        abstract=abstract,
    )
    clip: dict[str, Any] = dict(frames=c.frames, stride=c.stride, channels=d.channels)
    task = classification(
        model_from_config(config.model, len(info.classes), d.image_size),
        num_classes=len(info.classes),
        image_size=d.image_size,
        sample_shape=(c.frames, *height_and_width(d.image_size), d.channels),
        loss=config.loss,
        class_weights=weights,
        mixed=config.mixing,
        mean=d.mean,
        std=d.std,
        class_names=info.classes,
        multi_label=info.multi_label,
        load=lambda source: load_weights(config, source, len(info.classes)),
    )
    views = Views(d.image_size, clips=c.eval_clips, crops=c.eval_crops, **clip)
    label = Label(len(info.classes), info.multi_label)
    return on_clips(task, Clip(d.image_size, **clip), views, label, config.loss.name)
