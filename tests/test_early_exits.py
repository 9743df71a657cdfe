"""Early exits: thresholds by hand, and inference that exits against what is simulated."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

import vitjax
from tests.models.test_pvt import noisy
from tests.models.test_ranet import SMALL
from vitjax.analysis import budget
from vitjax.analysis.cost import trace
from vitjax.cli import main
from vitjax.runs import Trained
from vitjax.tools import early_exits
from vitjax.tools.early_exits import TIMED, Cascade, all_exits


def test_thresholds_by_hand() -> None:
    """Two of five leave first, then two of the three that are left."""
    sure = np.array([[0.9, 0.1], [0.8, 0.9], [0.3, 0.8], [0.4, 0.7], [0.2, 0.6]])
    sure = np.concatenate([sure, np.ones((5, 1))], axis=1)
    thresholds = budget.find_thresholds(sure, np.array([0.4, 0.4, 0.2]))
    assert thresholds == (0.8, 0.7, -np.inf)
    assert budget.leaves_at(sure, thresholds).tolist() == [0, 0, 1, 1, 2]
    nobody = budget.find_thresholds(sure, np.array([0.0, 0.0, 1.0]))
    assert budget.leaves_at(sure, nobody).tolist() == [2] * 5


def test_as_sure_as_the_last_that_leaves_leave_too() -> None:
    sure = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.5, 1.0]])
    thresholds = budget.find_thresholds(sure, np.array([0.25, 0.75]))
    assert budget.leaves_at(sure, thresholds).tolist() == [0, 0, 0, 1]


def test_shares_and_confidence() -> None:
    np.testing.assert_allclose(budget.exit_shares(0.5, 3), np.array([4, 2, 1]) / 7)
    logits = np.log(np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]])) + 900
    np.testing.assert_allclose(budget.confidence(logits), [0.7, 0.5])


def test_points_by_hand(tmp_path: pathlib.Path) -> None:
    """The first exit is right and sure of one image, and wrong and unsure of the other."""
    logits = np.array([[[9.0, 0.0], [9.0, 0.0]], [[0.1, 0.0], [0.0, 9.0]]])
    labels, macs = np.array([0, 1]), (10, 30)
    first, last = budget.anytime(logits, labels, macs)
    assert (first.macs, first.accuracy) == (10, 0.5) and (last.macs, last.accuracy) == (30, 1.0)
    points = budget.budgeted(logits, logits, labels, macs)
    assert [point.p for point in points] == list(budget.P)
    half = next(point for point in points if point.p == 0.95)  # 51 % are to leave: one of two
    assert (half.macs, half.accuracy) == (20, 1.0)
    times = [(1.0, 1.0), (0.5, 0.5)]
    path = budget.draw(
        tmp_path / "a.png", "two images", [first, last], points, half, times, (2.0, 1.0)
    )
    assert path.stat().st_size > 1000


def test_the_last_exit_costs_what_the_model_does() -> None:
    model: Any = vitjax.create_model("ranet_cifar_3scale", **SMALL)
    macs = budget.exit_macs(model, (16, 16, 3))
    assert 0 < macs[0] < macs[1] == trace(model, (1, 16, 16, 3))[1]


@pytest.fixture(scope="module")
def trained() -> Any:
    options = {**SMALL, "scales": (1, 2), "blocks": 2, "layers": 1}  # three exits
    model = vitjax.create_model("ranet_cifar_3scale", **options)
    variables, _ = noisy(model)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (43, 16, 16, 3), np.uint8)
    return Trained(model, variables, (0.5,) * 3, (0.5,) * 3, 16), images


@pytest.mark.slow
def test_exiting_is_what_was_simulated(trained: Any) -> None:
    """Sample by sample, whatever batches are filled with: 43 images, 7 and 64 at a time."""
    model, images = trained
    logits = all_exits(model, images, 7)
    sure = budget.confidence(logits)
    for size in (7, 64):
        cascade = Cascade(model, size)
        for p in (0.3, 1.0, 1.9):
            # Half-way to the next confidence, so that rounding moves no image.
            found = budget.find_thresholds(sure, budget.exit_shares(p, 3))
            thresholds = tuple(t - 1e-6 for t in found)
            exits = budget.leaves_at(sure, thresholds)
            assert len(set(exits)) == 3
            answers = cascade(images, thresholds)
            np.testing.assert_array_equal(answers.exits, exits)
            np.testing.assert_allclose(answers.logits, logits[range(43), exits], atol=1e-5)
        parts: Any = cascade._parts
        compiled = [part._cache_size() for part in parts]
        assert compiled == [1, 1, 1]


def test_all_leave_first_or_last(trained: Any) -> None:
    model, images = trained
    cascade, inf = Cascade(model, 7), np.inf
    assert set(cascade(images, (-inf, -inf, -inf)).exits) == {0}
    assert set(cascade(images, (inf, inf, -inf)).exits) == {2}


def test_a_model_without_exits_is_refused() -> None:
    model = vitjax.create_model("vit_ti16", 5, depth=1)
    with pytest.raises(ValueError, match="has no early exits"):
        Cascade(Trained(model, None, (0.5,) * 3, (0.5,) * 3, 224), 8)


@pytest.mark.slow
def test_a_run_is_measured_by_the_command(tmp_path: pathlib.Path, capsys, monkeypatch) -> None:
    """A ViT with an exit, from training to the report; so few steps that any loss is allowed."""
    monkeypatch.setattr(early_exits, "SECONDS", 0)
    run, picture = str(tmp_path / "run"), tmp_path / "budget.png"
    model = dict(width=16, depth=2, num_heads=2, exits="(0,)")
    fields = [f"--config.model.{k}={v}" for k, v in model.items()]
    steps = ["--config.steps=3", "--config.schedule.warmup_steps=0"]
    assert not main(["train", "--config=digits", f"--workdir={run}", *fields, *steps])
    capsys.readouterr()
    assert "top1_exit2" in (tmp_path / "run" / "metrics.jsonl").read_text()
    command = ["exits", run, "--data=digits://", "--tolerance=1", "--held-out=train[:40]"]
    assert not main([*command, "--test-split=test[:50]", f"--picture={picture}", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 50 and found["differing"] == 0
    assert found["whole_accuracy"] == found["anytime"][-1]["accuracy"]
    assert found["accuracy"] == found["chosen"]["accuracy"]
    np.testing.assert_allclose(sum(found["shares"]), 1)
    simulated = {point["p"]: point["accuracy"] for point in found["budgeted"]}
    assert [x["p"] for x in found["timed"]] == list(TIMED)
    for x in found["timed"]:
        assert x["accuracy"] == simulated[x["p"]] and x["differing"] == 0 and x["seconds"] > 0
    assert picture.stat().st_size > 5000
    assert main([*command, "--test-data=nowhere"])
    assert "Folder 'nowhere' does not exist" in capsys.readouterr().err
