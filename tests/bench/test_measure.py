"""`vitjax bench`: turns, ratios, short memory, refusals, with contestants that only pretend."""

import json
import math
import pathlib
import sys
from typing import Any

import pytest

from vitjax import cli
from vitjax.tools.bench import contest, measure
from vitjax.tools.bench.contest import Contestant, ContestantError, Worker

PRETENDED = """
import os, sys, time

KIND = {kind!r}


def device():
    return (lambda n: 0.0), dict(platform={platform!r}, device=KIND), dict


def forward(model, batch, size, dtype, seconds=0.004, **others):
    if batch > {most}:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

    def run(n):
        for _ in range(n):
            time.sleep(seconds)
        return {value}

    about = dict(size=size, dtype=dtype, device=KIND, version="pretended 1", compile=0.5,
                 parameters=2_000_000, macs=10**9, planned=7)
    return run, about, lambda: dict(peak=11, used=5, of="the device")


train = forward
"""


def pretend(folder: pathlib.Path, **fields: Any) -> None:
    """Write contestants that sleep: ours 4 ms a step, timm's 12."""
    given = dict(kind="NVIDIA H100 80GB HBM3", platform="gpu", most=99, value="1.5") | fields
    (folder / "ours.py").write_text(PRETENDED.format(**given))
    theirs = PRETENDED.format(**given).replace("seconds=0.004", "seconds=0.012")
    (folder / "rivals.py").write_text(theirs)


@pytest.fixture
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(measure, "HERE", tmp_path)
    return tmp_path


def rows(settings: measure.Settings, *models: str) -> tuple[list[measure.Row], list[str]]:
    said: list[str] = []
    return list(measure.measure(models, settings, said.append)), said


def test_the_columns_of_a_row_follow_from_its_times(here: pathlib.Path) -> None:
    pretend(here)
    settings = measure.Settings(("forward", "train"), batch=31, size=32, seconds=0.0)
    (row,), _ = rows(settings, "vit_s16")
    for p, operations in (("infer", 2), ("train", 6)):
        seconds = row[f"{p}_step_time"] / 1e3
        assert row[f"{p}_step_time_min"] <= row[f"{p}_step_time"] <= row[f"{p}_step_time_max"]
        assert seconds > 0.004
        assert row[f"{p}_samples_per_sec"] == pytest.approx(31 / seconds)
        assert row[f"{p}_mfu"] == pytest.approx(operations * 1e9 * 31 / (seconds * 989e12))
        assert row[f"{p}_peak_memory"] == 11
    assert (row["param_count"], row["infer_gmacs"]) == (2.0, 1.0)
    assert "H100 SXM datasheet" in row["peak_source"]
    assert row["repeats"] == 5
    assert row["dtype"] == "bfloat16"  # of what is no CPU


def test_timm_takes_turns_with_us(here: pathlib.Path) -> None:
    pretend(here)
    settings = measure.Settings(batch=8, seconds=0.02, against=("timm",))
    (row, alone), _ = rows(settings, "swin_tiny", "biformer_tiny")
    assert 1.5 < row["infer_timm_ratio_min"] <= row["infer_timm_ratio"]
    assert row["infer_timm_ratio"] <= row["infer_timm_ratio_max"]
    assert row["infer_timm_samples_per_sec"] < row["infer_samples_per_sec"]
    assert "timm does not run: timm has no biformer_tiny" in alone["notes"]
    assert "infer_timm_ratio" not in alone


def test_a_busy_cpu_gives_times_and_no_ratios(
    here: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(here, kind="cpu", platform="cpu")
    monkeypatch.setattr(contest.os, "getloadavg", lambda: (1e3, 0.0, 0.0))
    settings = measure.Settings(batch=8, seconds=0.0, against=("timm",))
    (row,), said = rows(settings, "vit_s16")
    assert row["infer_timm_step_time"] > 0
    assert row["infer_timm_ratio"] is None
    assert "other programs run" in row["notes"]
    assert "would mislead" in said[0]
    assert row["infer_mfu"] is None  # of a CPU no peak is known
    assert row["dtype"] == "float32"


def test_the_batch_is_halved_until_it_fits(here: pathlib.Path) -> None:
    pretend(here, most=13)
    (row,), said = rows(measure.Settings(batch=52, seconds=0.0), "vit_s16")
    assert row["infer_batch_size"] == 13
    assert said == [
        "vit_s16 infer: 52 images do not fit; trying 26.",
        "vit_s16 infer: 26 images do not fit; trying 13.",
    ]
    assert "infer: 26 images do not fit" in row["notes"]
    pretend(here, most=0)
    with pytest.raises(ContestantError, match=r"vit_s16 infer: .*RESOURCE_EXHAUSTED"):
        rows(measure.Settings(batch=2, seconds=0.0), "vit_s16")


def test_a_loss_that_is_no_number_is_refused(here: pathlib.Path) -> None:
    pretend(here, value="float('nan')")
    with pytest.raises(ValueError, match="vitjax vit_s16 train: the loss is nan after 5 turns"):
        rows(measure.Settings(("train",), batch=2, seconds=0.0), "vit_s16")


def test_a_model_that_fails_costs_its_own_row(here: pathlib.Path, capsys: Any) -> None:
    pretend(here, value="float('inf') if model == 'vit_b16' else 1.0")
    assert cli.main(["bench", "vit_?16", "--batch-size=2", "--seconds=0", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [row["figures"] for row in found] == ["measured", "failed", "measured"]
    assert "mean of the outputs is inf" in found[1]["notes"]


def test_a_process_that_dies_says_its_last_words(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(
        "import os, sys\n\n\ndef go():\n    print('no card', file=sys.stderr, "
        "flush=True)\n    os._exit(3)\n"
    )
    with pytest.raises(ContestantError, match="no card") as caught:
        Worker(Contestant(file, "go", {}, sys.executable, ""))
    assert not caught.value.short
    file.write_text("import os, signal\n\n\ndef go():\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(ContestantError, match="killed") as caught:
        Worker(Contestant(file, "go", {}, sys.executable, ""))
    assert caught.value.short  # by a system without memory, as a rule


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("vit_l16", "vit_large_patch16_224"),
        ("swinv2_tiny_w8", "swinv2_tiny_window8_256"),
        ("pvt_v2_b2", "pvt_v2_b2"),
        ("vit_small_patch16_224", "vit_small_patch16_224"),
        ("vit_s16(depth=2)", None),
        ("debiformer_tiny", None),
    ],
)
def test_names_in_timm(model: str, name: str | None) -> None:
    assert measure.name_in_timm(model) == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_x16"], "Unknown model 'vit_x16'"),
        (["vit_s16", "--repeats=4"], "need 5 turns or more"),
        (["vit_s16", "--no-infer"], "add --train"),
        (["vit_s16", "--topology=cpu", "--against=timm"], "give one of them"),
        (["vit_s16", "--against=timm", "--torch-python=/nowhere"], "/nowhere does not run"),
        (["vit_s16(depth", "--topology=cpu"], "does not parse"),
    ],
)
def test_a_mistake_is_one_sentence(capsys: Any, arguments: list[str], message: str) -> None:
    assert cli.main(["bench", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_rows_as_json_and_csv(
    here: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(here)
    arguments = ["bench", "vit_?16", "--batch-size=8", "--seconds=0", f"--csv={tmp_path}/a.csv"]
    assert cli.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in found] == ["vit_s16", "vit_b16", "vit_l16"]
    head, *lines = (tmp_path / "a.csv").read_text().splitlines()
    assert head.startswith("model,")
    assert len(lines) == 3
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "MFU is of 989 TFLOP/s (NVIDIA H100 SXM datasheet)" in text
    assert text.count("infer  batch 8") == 3


@pytest.mark.slow
def test_our_steps_compute_what_they_say() -> None:
    from vitjax.tools.bench import ours

    model = "vit_ti16(depth=1, width=16, num_heads=2)"
    run, about, _ = ours.train(model, 3, 32, "float32")
    losses = [run(1) for _ in range(20)]
    assert losses[0] == pytest.approx(math.log(1000), rel=0.01)  # of noise in 1000 classes
    assert losses[-1] < losses[0]
    tokens, width = 5, 16
    block = 4 * width**2 * tokens + 2 * tokens**2 * width + 8 * width**2 * tokens
    assert about["macs"] == 4 * 3 * 16**2 * width + block + 1000 * width
    assert about["batch"] == 3


@pytest.mark.slow
def test_a_plan_says_that_it_is_one() -> None:
    from vitjax.plan.topology import open_topology
    from vitjax.tools.bench.planned import planned
    from vitjax.tools.bench.report import report

    settings = measure.Settings(("forward", "train"), batch=3, size=32, dtype="float32")
    row = planned("vit_ti16(depth=1, width=16, num_heads=2)", settings, open_topology("cpu"))
    assert row["figures"] == "planned"
    assert row["train_planned_memory"] > row["infer_planned_memory"] > 4e6 * row["param_count"]
    assert not any("step_time" in name for name in row)  # a CPU's time nothing here estimates
    assert "MFU" not in report([row])
