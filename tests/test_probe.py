"""Protocols against hand-computed cases and scikit-learn; a run's features on the digits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from vitjax.cli import main
from vitjax.models import create_model
from vitjax.runs import Trained
from vitjax.tools import probe as tool
from vitjax.train import probes as probe
from vitjax.train.report import read_metrics


def blobs(count, seed=0, classes=4, width=6):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(classes, width)) * 1.5
    labels = np.arange(count) % classes
    x = centres[labels] + rng.normal(size=(count, width))
    return x.astype(np.float32), labels


def test_votes_of_neighbours():
    x = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6], [0, 1.0]], np.float32) * 3
    labels = np.array([0, 1, 1, 0])
    asked = np.array([[2.0, 0]], np.float32)  # similarities 1, 0.8, 0.8, 0
    assert probe.knn(x, labels, asked, k=1) == [0]
    assert probe.knn(x, labels, asked, k=3, temperature=0.07) == [0]  # e^14.3 > 2 e^11.4
    assert probe.knn(x, labels, asked, k=3, temperature=1.0) == [1]  # e < 2 e^0.8
    (x, labels), (asked, _) = blobs(200), blobs(300, seed=1)
    theirs = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07)
    )
    expected = theirs.fit(x, labels).predict(asked)
    assert (probe.knn(x, labels, asked) == expected).mean() > 0.995


@pytest.mark.parametrize("count", [12, 60])
def test_least_squares_is_ridge_regression(count):
    x, labels = blobs(count, width=20)
    weights, intercept, strength = probe.least_squares(x, labels, 4)
    y = 2 * np.eye(4)[labels] - 1
    theirs = Ridge(strength).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(weights, theirs.coef_.T, atol=1e-6)
    np.testing.assert_allclose(intercept, theirs.intercept_, atol=1e-6)
    errors = {}
    eigenvalue = np.linalg.norm(x - x.mean(axis=0), 2) ** 2
    for alpha in eigenvalue * 10.0 ** np.arange(-8, 1):  # one image left out, for each
        left = []
        for i in range(count):
            others = np.arange(count) != i
            fit = Ridge(alpha).fit(x[others].astype(np.float64), y[others])
            left.append(y[i] - fit.predict(x[i : i + 1])[0])
        errors[alpha] = np.mean(np.square(left))
    assert min(errors, key=errors.get) == pytest.approx(strength, rel=1e-3)


def test_few_shots_are_so_many_of_each_class():
    labels = np.array([2, 0, 0, 1, 0, 2, 2, 0])
    for seed in range(5):
        few = probe.few_shots(labels, 2, seed)
        assert sorted(labels[few]) == [0, 0, 1, 2, 2]
        assert len(set(few)) == 5
    assert list(probe.few_shots(labels, 2, 0)) == list(probe.few_shots(labels, 2, 0))


@pytest.mark.slow
def test_features_of_a_model_on_the_digits(monkeypatch, capsys, tmp_path):
    model = create_model(
        "vit_ti4", num_classes=3, image_size=8, width=16, depth=1, num_heads=1, pool="gap"
    )
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    trained = Trained(model, variables, (0.5,) * 3, (0.5,) * 3, 8, interpolation="area")
    monkeypatch.setattr(tool, "open_trained", lambda text: trained)
    flags = ["--data=digits://", "--split=train[:400]", "--test-split=test[:100]", "--json"]
    assert main(["probe", "runs/one", *flags, "--draws=2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["features"]) == (400, 16)
    assert min(found["knn"], found["linear"], found["fewshot"]) > 0.4  # of weights not trained
    assert main(["probe", "runs/one", *flags[:3], "--protocol", "knn"]) == 0
    assert f"{found['knn']:.2%}" in (out := capsys.readouterr().out) and "linear" not in out
    picture = tmp_path / "probes.png"
    layers = [*flags, "--protocol", "knn", "--layers", f"--picture={picture}"]
    assert main(["probe", "runs/one", *layers]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["knn"].keys() == {"block_0"} and found["knn"]["block_0"] > 0.4
    assert found["chance"] < 0.2 and picture.stat().st_size > 10_000
    assert main(["probe", "runs/one", *flags, f"--picture={picture}"]) == 2
    assert "goes with --layers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_probes_its_evaluations(tmp_path, capsys):
    flags = [
        "train", "--config=digits", "--config.steps=2", "--config.epochs=0",
        "--config.model.width=16", "--config.model.depth=1", "--config.model.num_heads=2",
        "--config.evals.half=digits://?split=test[:50%]", "--config.schedule.warmup_steps=0",
        "--config.probes.protocols=('fewshot', 'knn')", "--config.probes.images=300",
    ]  # fmt: skip
    refused = [*flags, f"--workdir={tmp_path / 'a'}"]
    assert main(refused) == 2  # its split is named, so that labelled images are those asked about
    assert "the labelled images for 'half' are those that are asked" in capsys.readouterr().err
    named = [*flags, "--config.probes.evals=('test',)", f"--workdir={tmp_path / 'b'}"]
    assert main(named) == 0
    rows = read_metrics(tmp_path / "b" / "metrics.jsonl")
    test, half = ([r for r in rows if r["split"] == name][-1] for name in ("test", "half"))
    assert not any("fewshot" in key for key in half)
    capsys.readouterr()
    # The same numbers as the command's, of the same images.
    command = ["--data=digits://", "--split=train[:300]", "--protocol", "knn", "fewshot", "--json"]
    assert main(["probe", str(tmp_path / "b"), *command]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("knn", "fewshot"):
        assert test[f"top1_{name}"] == pytest.approx(found[name], abs=0.01) and found[name] > 0.2
    wrong = [*flags, "--config.probes.protocols=('kn',)", f"--workdir={tmp_path / 'c'}"]
    assert main(wrong) == 2
    assert "did you mean 'knn'" in capsys.readouterr().err
