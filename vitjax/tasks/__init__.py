"""The tasks: TASKS is the menu, `task_from_config` builds one from a run's config."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vitjax.data.source import DataInfo
from vitjax.names import unknown
from vitjax.task import Task
from vitjax.tasks import classification


class TaskEntry(NamedTuple):
    """A task on the menu.

    Attributes:
      from_config: (config, info of the training data, abstract) → `Task`; abstract: with shapes in
        place of arrays that would have to be read, for a plan.
      config: its sections of a run's config, with their defaults.
    """

    from_config: Callable[[Any, DataInfo, bool], Task]
    config: Mapping[str, Mapping[str, Any]]


TASKS = {"classification": TaskEntry(classification.from_config, classification.CONFIG)}
"""Name → task."""


def task_from_config(config: Any, info: DataInfo, abstract: bool = False) -> Task:
    """Build the task of a run: model, loss and measures; refuses what does not fit, by name.

    Args:
      config: of the run, resolved.
      info: of its training data.
      abstract: see `TaskEntry`.
    """
    return _entry(config.task).from_config(config, info, abstract)


def task_options(name: str) -> Mapping[str, Mapping[str, Any]]:
    """Give a task's sections of a run's config, with their defaults."""
    return _entry(name).config


def _entry(name: str) -> TaskEntry:
    if name not in TASKS:
        raise ValueError(unknown("task", name, TASKS))
    return TASKS[name]
