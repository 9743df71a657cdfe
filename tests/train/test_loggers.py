"""Rows of metrics reach Weights & Biases and MLflow, and what fails there costs a warning."""

import json
import sys
import threading

import numpy as np
import pytest

from vitjax.train import loggers
from vitjax.train.config import ConfigError
from vitjax.train.defaults import LogConfig, RunConfig
from vitjax.train.loggers import check_loggers, open_loggers
from vitjax.train.report import Report, read_metrics, write_by_class

WANDB = """
import json, os, pathlib
calls = pathlib.Path(os.environ["FAKE_CALLS"])

def said(*call):
    if calls.with_name("down").exists():
        raise ConnectionError("the network is down")
    with calls.open("a") as file:
        file.write(json.dumps(call) + "\\n")

class Run:
    def __init__(self, id):
        self.id = id
    def define_metric(self, name, step_metric):
        said("define", name, step_metric)
    def log(self, values):
        said("log", values)
    def finish(self, exit_code):
        said("finish", exit_code)

def init(project, id, resume, name, dir, config):
    said("init", project, id, resume, name, config["seed"])
    return Run(id or "w1")
"""
MLFLOW = """
from wandb import said

class MlflowClient:
    def get_experiment_by_name(self, name):
        said("find", name)
    def create_experiment(self, name):
        said("create", name)
        return "7"
    def create_run(self, experiment_id, run_name):
        said("run", experiment_id, run_name)
        class run:
            class info:
                run_id = "m1"
        return run
    def update_run(self, run_id, status):
        said("update", run_id, status)
    def log_batch(self, run_id, metrics=(), params=()):
        said("batch", run_id, [m[:2] + m[3:] for m in metrics], params)
    def set_terminated(self, run_id, status):
        said("end", run_id, status)
"""
ENTITIES = "Param = lambda *values: values\nMetric = lambda *values: values\n"
ROW = {"step": 3, "split": "train", "loss": 0.5}
NAMES = ("wandb", "mlflow", "mlflow.entities")


@pytest.fixture
def services(tmp_path, monkeypatch):
    """Install fakes of both libraries, and yield a function that reads their calls."""
    calls, folder = tmp_path / "calls", tmp_path / "libraries"
    (folder / "mlflow").mkdir(parents=True)
    (folder / "wandb.py").write_text(WANDB)
    (folder / "mlflow" / "__init__.py").write_text(MLFLOW)
    (folder / "mlflow" / "entities.py").write_text(ENTITIES)
    monkeypatch.setenv("FAKE_CALLS", str(calls))
    monkeypatch.syspath_prepend(folder)
    forget()
    yield lambda: [json.loads(line) for line in calls.read_text().splitlines()]
    forget()


def forget():
    for name in NAMES:
        sys.modules.pop(name, None)


def config(**log):
    return RunConfig(seed=5, log=LogConfig(**log))


def send(folder, *rows, steps=9, **log):
    folder.mkdir(exist_ok=True)
    with open_loggers(config(**log), folder, steps) as opened:
        for row in rows:
            for logger in opened:
                logger(row)


def test_rows_go_to_one_run_of_wandb(services, tmp_path):
    folder = tmp_path / "first"
    send(folder, ROW, {"step": 3, "split": "test", "top1": 0.25}, wandb="flowers")
    assert json.loads((folder / "loggers.json").read_text()) == {"wandb:flowers": "w1"}
    send(folder, {**ROW, "step": 9}, wandb="flowers")  # a resumed run
    send(folder, ROW, wandb="others")
    assert services() == [
        ["init", "flowers", None, "allow", "first", 5],
        ["define", "*", "step"],
        ["log", {"step": 3, "train/loss": 0.5}],
        ["log", {"step": 3, "test/top1": 0.25}],
        ["finish", 1],
        ["init", "flowers", "w1", "allow", "first", 5],
        ["define", "*", "step"],
        ["log", {"step": 9, "train/loss": 0.5}],
        ["finish", 0],
        ["init", "others", None, "allow", "first", 5],
        ["define", "*", "step"],
        ["log", {"step": 3, "train/loss": 0.5}],
        ["finish", 1],
    ]


def test_rows_go_to_one_run_of_mlflow(services, tmp_path):
    folder = tmp_path / "first"
    send(folder, ROW, mlflow="flowers")
    send(folder, {**ROW, "step": 9}, mlflow="flowers")
    calls = services()
    params = [["log.mlflow", "flowers"], ["log.wandb", ""], ["seed", "5"]]
    given = calls[3].pop()
    assert all(pair in given for pair in params) and ["data.batch_size", "128"] in given
    assert calls == [
        ["find", "flowers"],
        ["create", "flowers"],
        ["run", "7", "first"],
        ["batch", "m1", []],
        ["batch", "m1", [["train/loss", 0.5, 3]], []],
        ["end", "m1", "KILLED"],
        ["update", "m1", "RUNNING"],
        ["batch", "m1", [["train/loss", 0.5, 9]], []],
        ["end", "m1", "FINISHED"],
    ]


def test_a_service_that_is_down_costs_a_warning(services, tmp_path, capsys):
    down = tmp_path / "down"
    down.touch()
    with open_loggers(config(wandb="flowers"), tmp_path, 9) as (logger,):
        tried, send_all = threading.Semaphore(0), logger._send

        def watched():
            try:
                send_all()
            finally:
                tried.release()

        logger._send = watched
        for step in (1, 2):
            logger({**ROW, "step": step})
            tried.acquire()
        down.unlink()
        logger({**ROW, "step": 3})
        tried.acquire()
        assert [call[1]["step"] for call in services() if call[0] == "log"] == [1, 2, 3]
        down.touch()
        logger({**ROW, "step": 4})
    out = capsys.readouterr().out.splitlines()
    words = (
        "wandb takes no metrics now (the network is down). Training goes on; rows wait to be sent"
    )
    assert [line.startswith(words) for line in out] == [True, True, False]  # once each time
    assert out[2] == "1 rows of metrics did not reach wandb; metrics.jsonl has them all."


@pytest.mark.usefixtures("services")
def test_a_service_that_hangs_does_not_hold_the_run(tmp_path, monkeypatch, capsys):
    release = threading.Event()

    class Hanging:
        def __init__(self, begin):
            release.wait(30)
            raise TimeoutError("too late")

    monkeypatch.setitem(loggers.SERVICES, "wandb", Hanging)
    monkeypatch.setattr(loggers, "CLOSE_SECONDS", 0.05)
    send(tmp_path, ROW, ROW, wandb="flowers")
    assert "2 rows of metrics did not reach wandb" in capsys.readouterr().out
    release.set()
    for thread in threading.enumerate():
        if thread.name == "wandb":
            thread.join()


@pytest.mark.usefixtures("services")
def test_nothing_is_imported_that_is_not_used(tmp_path, monkeypatch):
    check_loggers(config(wandb="a", mlflow="b"))
    send(tmp_path, ROW)
    send(tmp_path, wandb="a", mlflow="b")  # a finished run that is shown again has no rows
    monkeypatch.setattr(loggers, "is_lead", lambda: False)
    send(tmp_path, ROW, wandb="a", mlflow="b")
    assert not sys.modules.keys() & set(NAMES) and not (tmp_path / "loggers.json").exists()


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
    forget()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "wandb").mkdir()  # where an earlier run's logs lie
    for name in ("wandb", "mlflow"):
        with pytest.raises(ConfigError, match=rf"config.log.{name}='a' needs .*vitjax\[{name}\]"):
            check_loggers(config(**{name: "a"}))
    check_loggers(config())


def test_listeners_get_the_rows_as_they_are_written(tmp_path):
    rows = []
    report = Report(tmp_path, start=0, steps=9, batch_size=2, listeners=(rows.append,))
    report.train(3, np.ones(3), {"learning_rate": 0.1})
    report.evaluation(3, "test", {"top1": 0.5})
    report.rewind(0, 3, "is nan", 3)
    report.close()
    written = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["split"] for row in rows] == ["train", "test", "rollback"]
    assert rows[2:] == written  # what lies behind was dropped there
    assert rows[1] == {"step": 3, "split": "test", "top1": 0.5}


def test_what_each_class_measured_is_a_table(tmp_path, capsys):
    found = {"red, dark": {"images": 3.0, "acc": 1 / 3}, "élan": {"images": 0.0, "acc": np.nan}}
    for step in (3, 6):
        write_by_class(tmp_path, "v2", step, found)
    write_by_class(tmp_path, "test", 6, {})
    (path,) = (tmp_path / "by_class").iterdir()
    assert path.read_text(encoding="utf-8").splitlines() == [
        "step,class,images,acc",
        '6,"red, dark",3,0.3333333333',
        "6,élan,0,nan",
    ]
    (tmp_path / "file").touch()
    write_by_class(tmp_path / "file", "v2", 6, found)
    assert "v2.csv cannot be written (Not a directory)" in capsys.readouterr().out
