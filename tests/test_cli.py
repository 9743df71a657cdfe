"""The command line: tables for people, JSON for scripts, sentences for mistakes."""

import json
import pathlib

import pytest

from vitjax.cli import main


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list_shows_what_matches(capsys: pytest.CaptureFixture) -> None:
    code, out, _ = run(capsys, "list", "vit_?16")
    assert code == 0
    assert out.split() == ["vit_s16", "vit_b16", "vit_l16"]
    _, out, _ = run(capsys, "list", "--mixers", "--json")
    assert "full" in json.loads(out)


@pytest.mark.slow
def test_info_counts_a_model(capsys: pytest.CaptureFixture) -> None:
    code, out, _ = run(capsys, "info", "vit_ti16", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["parameters"] == 5_717_416
    assert found["macs"] == 1_253_683_200
    # Beyond two operations for each multiply-add: softmax, norms, activations.
    assert 2 * found["macs"] < found["flops"] < 2.2 * found["macs"]
    layers = {row["path"]: row for row in found["layers"]}
    assert layers["block_0/mixer"]["shape"] == "1×197×192"
    assert sum(layers[f"block_{i}"]["parameters"] for i in range(12)) == 5_338_368
    _, out, _ = run(capsys, "info", "vit_ti16", "--image-size=64")
    assert "1×17×192" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "vit_t16"], "Unknown model 'vit_t16'; did you mean 'vit_ti16'?"),
        (["info"], "info takes a model's name or --workdir"),
        (["list", "resnext*"], "Unknown model 'resnext*'"),
        (["info", "vit_ti16", "--image-size=65"], "cannot be cut into patches"),
        (["info", "--workdir=/nowhere"], "/nowhere is no run's folder"),
        (["predict", "--workdir=/nowhere", "a.png"], "/nowhere is no run's folder"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, arguments: list[str], message: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_trained_run_names_what_it_sees(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    import cv2

    import train
    from vitjax.data import open_source

    flags = ["--config.steps=300", "--config.epochs=0", "--config.eval_every=300",
             "--config.checkpoint_every=200", "--config.data.augment=none",
             "--config.model.depth=2", "--config.model.width=32"]  # fmt: skip
    workdir = tmp_path / "work"
    assert train.main(["--config=configs/digits.py", f"--workdir={workdir}", *flags]) == 0
    test = open_source("digits://", "test")
    files, labels = [], []
    for i in range(40):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), test[i]["image"][..., ::-1])
        files.append(str(path))
        labels.append(str(test[i]["label"]))
    capsys.readouterr()
    code, out, _ = run(capsys, "predict", f"--workdir={workdir}", "--json", *files)
    assert code == 0
    rows = json.loads(out)
    assert [len(row["top"]) for row in rows] == [5] * 40
    first = [row["top"][0][0] for row in rows]
    assert sum(a == b for a, b in zip(first, labels, strict=True)) >= 32
    for row in rows:
        shares = [p for _, p in row["top"]]
        assert shares == sorted(shares, reverse=True)
        assert 0.5 < sum(shares) <= 1 + 1e-6
    code, out, _ = run(capsys, "predict", f"--workdir={workdir}", files[0])
    assert "%" in out
    (tmp_path / "bad.png").write_bytes(b"no image")
    code, _, err = run(capsys, "predict", f"--workdir={workdir}", str(tmp_path / "bad.png"))
    assert code == 2
    assert "bad.png" in err
    code, _, err = run(capsys, "predict", f"--workdir={workdir}", "--step=7", files[0])
    assert code == 2
    assert "step 7: no such step; steps with a checkpoint: 200, 300" in err
