"""Menu of tasks (TASKS), and `task_from_config`, which builds one from a run's config."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vitjax.data.source import DataInfo
from vitjax.names import unknown
from vitjax.task import Task
from vitjax.tasks import classification, detection, restoration, segmentation, video
from vitjax.train.config import read
from vitjax.train.defaults import RunConfig


class TaskEntry(NamedTuple):
    """Entry of the menu of tasks.

    Attributes:
      from_config: (config, info of the training data, abstract) → `Task`; abstract: shapes replace
        arrays that would be read from files, for a plan.
      config: config class of its runs, with its sections.
      classes: whether its data has classes.
    """

    from_config: Callable[[Any, DataInfo, bool], Task]
    config: type[RunConfig]
    classes: bool = True


TASKS = {
    "classification": TaskEntry(classification.from_config, classification.ClassificationRun),
    "detection": TaskEntry(detection.from_config, detection.DetectionRun),
    "restoration": TaskEntry(restoration.from_config, restoration.RestorationRun, classes=False),
    "segmentation": TaskEntry(segmentation.from_config, segmentation.SegmentationRun),
    "video": TaskEntry(video.from_config, video.VideoRun),
}
"""Name → task."""


def task_from_config(config: RunConfig, info: DataInfo, abstract: bool = False) -> Task:
    """Build the task of a run: model, loss and measures; errors name the field that does not fit.

    Args:
      config: resolved config of the run.
      info: info of the training data.
      abstract: see `TaskEntry`.
    """
    return _entry(config.task).from_config(config, info, abstract)


def task_config(name: str) -> type[RunConfig]:
    """Return the config class of a task's runs."""
    return _entry(name).config


def read_config(found: Mapping[str, Any]) -> RunConfig:
    """Build a run's config, with the sections of its task, from nested dicts; see `config.read`."""
    return read(task_config(found["task"]), found)


def has_classes(name: str) -> bool:
    """Return whether a task's data has classes."""
    return _entry(name).classes


def _entry(name: str) -> TaskEntry:
    if name not in TASKS:
        raise ValueError(unknown("task", name, TASKS))
    return TASKS[name]
