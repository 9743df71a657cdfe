"""Loggers of metrics to Weights & Biases and MLflow, in threads; a failure is only a warning.

A row that cannot be sent waits for the next one. The id of the service's run is kept in the work
folder, so that a resumed run continues it.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from vitjax.console import progress
from vitjax.train.config import ConfigError, flat_config
from vitjax.train.defaults import RunConfig
from vitjax.train.processes import is_lead

CLOSE_SECONDS = 30.0
"""How long the end of a run waits for rows that are still to be sent."""
IDS = "loggers.json"
_IDS_LOCK = threading.Lock()  # several services write them
NOT_LOGGED = ("step", "split", "time", "seconds", "carried", "until")
_WORDS = 600  # characters of a library's message
_PARAMS = 100  # that MLflow's servers take at once
_PARAM_LENGTH = 500  # characters of a value that all of its versions take


class Session(Protocol):
    """Protocol of a run at a logging service."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Send a row of `metrics.jsonl`; errors of the service's library are raised."""
        ...

    def close(self, done: bool) -> None:
        """End the service's run, at the last step or earlier."""
        ...


class Begin(NamedTuple):
    """Arguments of a new session.

    Attributes:
      project: project name, from the config.
      workdir: work folder of the run.
      config: config of the run.
      run_id: id of the service's run to continue; empty for a new one.
    """

    project: str
    workdir: pathlib.Path
    config: RunConfig
    run_id: str


class WandbSession:
    """Run of Weights & Biases; WANDB_MODE=offline writes it below the work folder."""

    def __init__(self, begin: Begin):
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(
            project=begin.project,
            id=begin.run_id or None,
            resume="allow",
            name=begin.workdir.resolve().name,
            dir=str(begin.workdir),
            config=begin.config.to_dict(),
        )
        # A run that goes back in its steps would have its rows refused if they were wandb's own.
        self._run.define_metric("*", step_metric="step")
        self.run_id: str = self._run.id

    def write(self, row: Mapping[str, Any]) -> None:
        self._run.log({"step": row["step"], **_by_split(row)})

    def close(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


class MlflowSession:
    """Run of MLflow, at MLFLOW_TRACKING_URI."""

    def __init__(self, begin: Begin):
        mlflow: Any = importlib.import_module("mlflow")
        self._entities: Any = importlib.import_module("mlflow.entities")
        self._client = mlflow.MlflowClient()
        self.run_id = begin.run_id
        if self.run_id:
            self._client.update_run(self.run_id, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(begin.project)
        number = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(begin.project)
        )
        name = begin.workdir.resolve().name
        self.run_id = self._client.create_run(number, run_name=name).info.run_id
        params = [
            self._entities.Param(key, str(value)[:_PARAM_LENGTH])
            for key, value in flat_config(begin.config).items()
        ]
        for start in range(0, len(params), _PARAMS):
            self._client.log_batch(self.run_id, params=params[start : start + _PARAMS])

    def write(self, row: Mapping[str, Any]) -> None:
        now, step = int(time.time() * 1000), row["step"]
        metrics = [self._entities.Metric(k, v, now, step) for k, v in _by_split(row).items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self, done: bool) -> None:
        self._client.set_terminated(self.run_id, "FINISHED" if done else "KILLED")


SERVICES: dict[str, Callable[[Begin], Any]] = {"wandb": WandbSession, "mlflow": MlflowSession}
"""Field of `config.log`, which is also the library's name and the extra's → a session."""


class Logger:
    """Logger that sends rows to a service in its own thread.

    It opens the service and imports its library at the first row.

    Args:
      name: key of SERVICES.
      project: project name, from the config.
      workdir, config: work folder and config of the run.
      steps: length of the whole run.
    """

    def __init__(
        self, name: str, project: str, workdir: pathlib.Path, config: RunConfig, steps: int
    ):
        self.name, self._steps = name, steps
        self._begin = Begin(
            project, workdir, config, _read_ids(workdir).get(_key(name, project), "")
        )
        self._rows: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._unsent: list[Mapping[str, Any]] = []
        self._session: Any = None
        self._handed = self._sent = 0
        self._told = self._done = False
        self._thread: threading.Thread | None = None

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Queue a row, without waiting."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        self._done = row["step"] == self._steps
        self._handed += 1
        self._rows.put(row)

    def close(self) -> None:
        """Wait up to CLOSE_SECONDS for unsent rows, and log those that could not be sent."""
        if self._thread is None:
            return
        self._rows.put(None)
        self._thread.join(CLOSE_SECONDS)
        if lost := self._handed - self._sent:
            progress(
                f"{lost:,} rows of metrics did not reach {self.name}; metrics.jsonl has them all.",
                last=True,
            )

    def _work(self) -> None:
        while (row := self._rows.get()) is not None:
            self._unsent.append(row)
            self._try(self._send)
        self._try(self._send)
        if self._session is not None:
            self._try(lambda: self._session.close(self._done))

    def _send(self) -> None:
        if self._session is None:
            self._session = SERVICES[self.name](self._begin)
            _keep_id(
                self._begin.workdir, _key(self.name, self._begin.project), self._session.run_id
            )
        while self._unsent:
            self._session.write(self._unsent[0])
            self._unsent.pop(0)
            self._sent += 1

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
            self._told = False
        except Exception as error:  # whatever a library raises
            if not self._told:
                words = " ".join(str(error).split())[:_WORDS] or type(error).__name__
                progress(
                    f"{self.name} takes no metrics now ({words}). Training goes on; rows wait to "
                    f"be sent, and metrics.jsonl has them all.",
                    last=True,
                )
            self._told = True


@contextlib.contextmanager
def open_loggers(
    config: RunConfig, workdir: pathlib.Path, steps: int
) -> Iterator[Sequence[Logger]]:
    """Open the services of `config.log` in the first process, and close them at the end."""
    loggers = [
        Logger(name, project, workdir, config, steps)
        for name, project in dataclasses.asdict(config.log).items()
        if project and is_lead()
    ]
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.close()


def check_loggers(config: RunConfig) -> None:
    """Check that the libraries of all configured services are installed.

    Raises:
      ConfigError: a library is not installed.
    """
    for name, project in dataclasses.asdict(config.log).items():
        if not project:
            continue
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of logs is called `wandb` too
            raise ConfigError(
                f"config.log.{name}={project!r} needs the extra: pip install 'vitjax[{name}]'; or "
                f"leave it empty."
            )


def _by_split(row: Mapping[str, Any]) -> dict[str, float]:
    """Prefix metrics with their split, as in TensorBoard's events: "test/top1"."""
    return {f"{row['split']}/{k}": v for k, v in row.items() if k not in NOT_LOGGED}


def _key(name: str, project: str) -> str:
    return f"{name}:{project}"


def _read_ids(workdir: pathlib.Path) -> dict[str, str]:
    try:
        return json.loads((workdir / IDS).read_text())
    except (OSError, ValueError):
        return {}


def _keep_id(workdir: pathlib.Path, key: str, run_id: str) -> None:
    with _IDS_LOCK:
        path = workdir / IDS
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({**_read_ids(workdir), key: run_id}, indent=2) + "\n")
        temporary.replace(path)
