"""Scripts of `vitjax launch`: golden files, schemas, shells, and programs that play a cloud."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from vitjax.cli import main
from vitjax.tools.launch import KINDS, VALUE, Run, fill, read_template, settings
from vitjax.train.signals import STALLED, STOPPED

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests/golden/launch"
RUN = Run("digits", {"seed": "3", "data.image_size": "(8, 8)"}, "/runs/digits")
SETTINGS = {
    "slurm": "nodes=4 gpus=8 partition=h100 venv=/home/me/vitjax",
    "slurm-array": "array=0-47%8 gpus=1",
    "jobset-gpu": "nodes=4 image=me/vitjax:cuda claim=runs accelerator=nvidia-h100-80gb",
    "jobset-tpu": "topology=4x8 accelerator=tpu-v5-lite-podslice slices=2 image=v:tpu claim=runs",
    "tpu-vm": "zone=us-west4-a accelerator=v5litepod-16 nfs=10.0.0.2:/runs",
    "queued-resources": "zone=us-central2-b accelerator=v4-32 nfs=10.0.0.2:/runs name=b16",
    "xpk": "cluster=pods accelerator=v5litepod-16 image=me/vitjax:tpu restarts=50",
    "sky": "accelerator=H100:8 nodes=2 bucket=my-runs",
}


def filled(kind: str, run: Run | None = None, **more: str) -> str:
    run = run or (Run("digits", {}, "/runs/digits") if kind == "slurm-array" else RUN)
    given = dict(pair.split("=", 1) for pair in SETTINGS[kind].split())
    return fill(kind, run, {**given, **more})


@pytest.mark.parametrize("kind", KINDS)
def test_the_filled_template_is_the_golden_one(kind: str) -> None:
    """`VITJAX_WRITE_GOLDEN=1` writes them: read the difference before it is committed."""
    path = GOLDEN / KINDS[kind].template
    if os.environ.get("VITJAX_WRITE_GOLDEN"):
        path.write_text(filled(kind))
    assert filled(kind) == path.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_has_one_default_a_hole_and_says_what_exit_codes_mean(kind: str) -> None:
    text = read_template(KINDS[kind].template)
    for name, default in settings(text).items():
        assert len(set(re.findall(rf"@\{{{name}(\?|=[^}}]*)?\}}", text))) == 1
        assert default is None or VALUE.fullmatch(default)
    assert "@{" not in filled(kind)
    assert str(STOPPED) in filled(kind)
    assert str(STALLED) not in filled(kind) or kind.startswith("jobset")
    grace = {"slurm": "120 s", "jobset": "120 s", "sky": "30 s", "xpk": "30 s"}
    assert grace.get(kind.split("-")[0], "30 s") in filled(kind) or kind == "slurm-array"


def test_a_sweep_and_seeds_are_elements_of_an_array() -> None:
    text = filled("slurm-array", Run(sweep="my sweep.py"))
    assert "vitjax sweep run 'my sweep.py' --index \"$SLURM_ARRAY_TASK_ID\"\n" in text
    text = filled("slurm-array", Run("digits", {}, "/runs/d"))
    assert '--workdir=/runs/d/seed_"$SLURM_ARRAY_TASK_ID" --config.seed="$SLURM_ARR' in text


@pytest.mark.parametrize(
    ("kind", "run", "more", "words"),
    [
        ("slurms", RUN, {}, "Unknown kind of launch 'slurms'; did you mean 'slurm'"),
        ("slurm", RUN, {"zones": "a"}, "Unknown setting of slurm 'zones'"),
        ("slurm", RUN, {"partition": "a; rm x"}, "characters that scripts read in another way"),
        ("sky", RUN, {"name": "My_run"}, "at most 40 of a-z, 0-9 and -"),
        ("slurm", Run("digits"), {}, "Where to"),
        ("slurm", Run(sweep="s.py"), {}, "--sweep is for slurm-array"),
        ("slurm-array", RUN, {}, "gives each element its own --config.seed"),
        ("sky", Run("digits", {}, "runs/a"), {}, "runs/a is not below /runs"),
        ("xpk", RUN, {"zone": "a"}, r"xpk needs cluster, accelerator, image: --set cluster=…"),
        ("tpu-vm", RUN, {"accelerator": "v9-8"}, "Unknown type of TPU VM"),
        ("jobset-tpu", RUN, {"topology": "v5e"}, "sides of a slice, such as 4x4"),
    ],
)
def test_mistakes_are_one_sentence(kind: str, run: Run, more: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fill(kind, run, more)


def test_hosts_follow_from_the_topology() -> None:
    for more, hosts in (({}, 8), ({"topology": "2x2"}, 1), ({"topology": "16x16"}, 64)):
        (job,) = yaml.safe_load(filled("jobset-tpu", **more))["spec"]["replicatedJobs"]
        assert job["template"]["spec"]["completions"] == hosts
    assert "--version=v2-alpha-tpuv6e " in filled("tpu-vm", accelerator="v6e-8")
    assert "--version=other " in filled("tpu-vm", accelerator="v9-8", runtime="other")


def check(value: Any, schema: dict[str, Any], where: str = "") -> None:
    """Hold a value against a schema of OpenAPI, as far as `jobset_schema.py` keeps it."""
    if schema.get("x-kubernetes-int-or-string"):
        assert isinstance(value, int | str), where
        return
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    assert type(value) is kinds[schema["type"]], f"{where} is no {schema['type']}"
    assert value in schema.get("enum", [value]), where
    if schema["type"] == "integer":
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), where
    if schema["type"] == "array":
        for number, item in enumerate(value):
            check(item, schema["items"], f"{where}[{number}]")
    if schema["type"] == "object":
        assert set(schema.get("required", ())) <= value.keys(), f"{where} lacks what is required"
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            assert inner is not None, f"{where} has no field {name!r}"
            check(item, inner, f"{where}.{name}")


@pytest.mark.parametrize("kind", ["jobset-gpu", "jobset-tpu"])
def test_manifests_follow_the_published_schemas(kind: str) -> None:
    schema = json.loads((ROOT / "tests/golden/jobset_schema.json").read_text())
    found = yaml.safe_load(filled(kind))
    metadata = found.pop("metadata")  # whose schema is not in JobSet's
    assert set(metadata) <= {"name", "annotations"}
    check(found, schema)
    for wrong in ({"spec": {"replicatedJob": []}}, {"kind": 3}):
        with pytest.raises(AssertionError):
            check({**found, **wrong}, schema)

    (job,) = found["spec"]["replicatedJobs"]
    spec, pod = job["template"]["spec"], job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == RUN.words()
    # What Kubernetes' own checks of a Job say beyond its schema.
    assert pod["restartPolicy"] == "Never" and spec["completions"] == spec["parallelism"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert STOPPED not in rule["onExitCodes"]["values"]
    names = {volume["name"] for volume in pod["volumes"]}
    assert names >= {mount["name"] for mount in container["volumeMounts"]}


def test_pods_of_a_jobset_find_each_other_without_rights() -> None:
    from vitjax.train.cluster import Machine, find_place

    found = yaml.safe_load(filled("jobset-gpu", name="b16"))
    spec = found["spec"]["replicatedJobs"][0]["template"]["spec"]
    env = {row["name"]: row["value"] for row in spec["template"]["spec"]["containers"][0]["env"]}
    pod = {**env, "KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}
    place = find_place(pod, Machine(gpus=8))
    assert (place.coordinator, place.count, place.index) == ("b16-workers-0-0.b16:8476", 4, 3)
    assert place.devices is None


def test_the_other_yaml() -> None:
    sky = yaml.safe_load(filled("sky"))
    assert sky["resources"]["job_recovery"]["recover_on_exit_codes"] == [STOPPED]
    assert sky["num_nodes"] == 2 and "infra" not in sky["resources"]
    assert sky["run"].splitlines()[-1].startswith("exec vitjax train --config=digits")


SHELL = [kind for kind in KINDS if not KINDS[kind].template.endswith("yaml")]


@pytest.mark.parametrize("kind", SHELL)
def test_shells_understand_the_scripts(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "script.sh"
    path.write_text(filled(kind))
    subprocess.run(["bash", "-n", path], check=True)
    worker = re.search(r"<< 'END_OF_WORKER'\n(.*?)END_OF_WORKER", path.read_text(), re.S)
    (tmp_path / "worker.sh").write_text(worker.group(1) if worker else "#!/bin/bash\n")
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (apt install shellcheck)")
    # Of SC1091: the user's virtual environment is not here.
    command = ["shellcheck", "--exclude=SC1091", path, tmp_path / "worker.sh"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def play(folder: pathlib.Path, **programs: str) -> dict[str, str]:
    """Write programs that log their words and then do something; return the environment."""
    for name, body in programs.items():
        path = folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/log\n{body}\n')
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "POLL": "0.01"}


@pytest.mark.parametrize(
    ("codes", "state", "restarts", "again"),
    [
        (75, "RUNNING", "0", True),
        (75, "RUNNING", "100", False),
        (75, "CANCELLED", "0", False),
        (1, "RUNNING", "0", False),
        (0, "RUNNING", "0", False),
    ],
)
def test_slurm_requeues_what_was_stopped_and_nothing_else(
    codes: int, state: str, restarts: str, again: bool, tmp_path: pathlib.Path
) -> None:
    env = play(tmp_path, srun=f"exit {codes}", squeue=f"echo {state}", scontrol="")
    (tmp_path / "job").write_text(fill("slurm", RUN, {}))
    env |= {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": restarts}
    assert subprocess.run(["bash", tmp_path / "job"], env=env).returncode == codes
    log = (tmp_path / "log").read_text().splitlines()
    assert log[0].startswith("srun --cpus-per-task=16 vitjax train --config=digits --config.seed=3")
    assert ("scontrol requeue 7" in log) is again


@pytest.mark.parametrize(
    ("kind", "gone"), [("tpu-vm", "PREEMPTED"), ("queued-resources", "FAILED")]
)
@pytest.mark.parametrize("code", [0, 1])
def test_a_tpu_is_created_watched_and_created_again(
    kind: str, gone: str, code: int, tmp_path: pathlib.Path
) -> None:
    there = "READY" if kind == "tpu-vm" else "ACTIVE"
    states = ["", "PROVISIONING", there, gone, "", there, there, there]
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    (tmp_path / "codes").write_text(f"\n\n75\n{code}\n")
    gcloud = (
        f"cd {tmp_path}\n"
        'next() { head -n1 "$1"; sed -i 1d "$1"; }\n'
        'case "$*" in *" describe "*) text=$(next states); [ -n "$text" ] && echo "$text";;\n'
        '*vitjax.exit*) text=$(next codes); [ -n "$text" ] && echo "$text";; esac'
    )
    (tmp_path / "job").write_text(filled(kind))
    done = subprocess.run(
        ["bash", tmp_path / "job"],
        env=play(tmp_path, gcloud=gcloud),
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    log = (tmp_path / "log").read_text()
    assert log.count(" create ") == 2
    assert log.count(" delete ") == (1 if kind == "tpu-vm" else 2)
    assert "the run ended with 75" in done.stdout and f"ended with {code}\n" in done.stdout
    assert "startup-script=" in log and "journalctl" in log


def test_the_image_is_made_of_what_is_here() -> None:
    text = (ROOT / "launch/Dockerfile").read_text()
    for line in re.findall(r"^COPY (.*) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in line.split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert re.findall(r"AS (\w+)", text) == ["base", "cpu", "cuda", "tpu"]
    for names in re.findall(r"'\.\[(.*)\]'", text):
        assert set(names.split(",")) <= extras.keys()
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert wheel["launch"] == "vitjax/launch"


def test_the_command_prints_or_submits(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["launch", "slurm", "--config=digits", "--workdir=/runs/d", "--set", "nodes=2"]
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text == fill("slurm", Run("digits", {}, "/runs/d"), {"nodes": "2"})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(words) == 2
    assert "sbatch is not installed here. With --dry-run > FILE" in capsys.readouterr().err
    script = tmp_path / "sbatch"
    script.write_text(f"#!/bin/sh\n/bin/cat $1 > {tmp_path}/taken; exit 3\n")
    script.chmod(0o755)
    assert main(words) == 3
    assert (tmp_path / "taken").read_text() == text
    assert main(["launch", "slurm", "--config=digits", "--config.depht=3", "--workdir=/r"]) == 2
    assert "Unknown config field 'depht'" in capsys.readouterr().err
    assert main(["launch", "slurm", "--config=digits", "--workdir=/r", "--set", "nodes"]) == 2
    assert "--set 'nodes' must be NAME=VALUE" in capsys.readouterr().err
    assert main(["launch", "slurm"]) == 2
    assert "launch takes --config=FILE, or --sweep=FILE" in capsys.readouterr().err
