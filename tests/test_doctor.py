"""What `vitjax doctor` says of a machine, and what it refuses."""

import json

import pytest

from vitjax.cli import main
from vitjax.tools.doctor import doctor
from vitjax.train import processes
from vitjax.train.cluster import Machine

SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


def look(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], machine: Machine) -> None:
    monkeypatch.setattr(processes, "look", lambda: (env, machine))


def test_one_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    look(monkeypatch, {"NNODES": "1"}, Machine())
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["environment"], found["processes"]) == ("one process", "1")
    assert "cpu" in found["devices per process"] and found["computes"] == "yes"
    assert found["NNODES"] == "1" and "GB" in found["memory of the host"]
    assert found["wrong"] == []


def test_processes_are_described_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    look(monkeypatch, SLURM, Machine(resolve=lambda host: "10.0.0.1"))
    found, text = doctor()
    assert found["coordinator"] == "node1:61441"
    assert found["processes"] == "2 on 2 hosts, this is 1"
    assert "nothing was found" in text
    look(monkeypatch, {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, Machine(tpu=True))
    assert "run `vitjax doctor --connect`" in doctor()[0]["devices"]


def test_a_loopback_coordinator_of_several_hosts_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look(monkeypatch, SLURM, Machine(hostname="node2", resolve=lambda host: "127.0.1.1"))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "wrong" in text and "The coordinator node1 is 127.0.1.1 here" in text
    assert "devices" in text and "not asked" in text


def test_who_does_not_connect_is_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    look(monkeypatch, {}, Machine())
    found, _ = doctor("localhost:7", 2, 1, connect=1)
    assert found["wrong"][0].startswith("Process 0 did not answer at localhost:7 within 1 s")
    assert found["devices"] == "not asked"
