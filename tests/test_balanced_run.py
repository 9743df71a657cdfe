"""A run with class weights, balanced sampling, a logger and a callback: stopped, gone on with."""

import contextlib
import csv
import json

import pytest

from tests.train.test_loggers import services  # noqa: F401
from vitjax.cli import main
from vitjax.train.signals import STOPPED
from vitjax.training import load_config, run

FIELDS = {
    "model.width": "16", "model.depth": "1", "model.num_heads": "2", "epochs": "0", "steps": "12",
    "log_every": "3", "eval_every": "6", "schedule.warmup_steps": "0", "data.batch_size": "32",
    "data.sampling": "balanced", "loss.class_weights": "{'3': 2.0, '8': 0.5}",
    "mixing.mixup": "0.2", "log.wandb": "digits",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("services")
def test_a_run_and_the_same_in_two_parts(tmp_path, services, monkeypatch):  # noqa: F811
    config, rows = load_config("digits", FIELDS), []

    def train(name, on_metrics):
        with contextlib.ExitStack() as stack:
            return run(config, tmp_path / name, stack, on_metrics=on_metrics)

    assert train("whole", rows.append) == 0
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert rows == [row for row in map(json.loads, lines) if row["split"] != "process"]
    assert [(r["step"], r["split"]) for r in rows][-2:] == [(12, "train"), (12, "test")]
    assert len([call for call in services() if call[0] == "log"]) == len(rows)
    with (tmp_path / "whole" / "by_class" / "test.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["class"] for row in table] == list("0123456789")
    assert sum(int(row["images"]) for row in table) == 360 and table[0]["step"] == "12"
    mean = sum(float(row["acc"]) for row in table) / 10
    assert mean == pytest.approx(rows[-1]["acc_mean"], abs=1e-9)
    right = sum(float(row["acc"]) * int(row["images"]) for row in table)
    assert right / 360 == pytest.approx(rows[-1]["top1"], abs=1e-9)

    def stop(row):
        import signal

        if row["step"] == 6:
            signal.raise_signal(signal.SIGTERM)

    assert train("parts", stop) == STOPPED
    assert train("parts", None) == 0
    inits = [call for call in services() if call[0] == "init"]
    assert [call[2] for call in inits] == [None, None, "w1"]  # the second part goes on in the run
    arrays = [
        json.loads((tmp_path / n / "checkpoints" / "12" / "manifest" / "metadata").read_text())
        for n in ("whole", "parts")
    ]
    assert arrays[0]["arrays"] == arrays[1]["arrays"]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("loss.class_weights=balance", "Unknown config.loss.class_weights 'balance'"),
        ("loss.class_weights=(1, 2)", "does not fit the 10 classes"),
        (
            "data.sampling=balance",
            "Unknown config.data.sampling 'balance'; did you mean 'balanced'?",
        ),
        ("data.repeats=3", "config.data.repeats=3 cannot be combined with"),
        ("log.comet=digits", "Unknown config field 'log.comet'"),
    ],
)
def test_a_mistake_is_one_sentence(field, message, tmp_path, capsys):
    flags = ["--config=digits", "--config.data.sampling=balanced", f"--config.{field}"]
    assert main(["train", *flags, f"--workdir={tmp_path / 'x'}"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "x").exists()
