"""Other channels and sides from the command line: config, training, predict, probe, info."""

import json
import pathlib

import numpy as np
import pytest

from vitjax import runs
from vitjax.cli import main
from vitjax.names import parse_size
from vitjax.tools.probe import features
from vitjax.training import load_config

CONFIG = """
def get_config():
    return dict(
        steps=2,
        model=dict(name="vit_ti4", width=8, depth=1, num_heads=1, pool="gap"),
        data=dict(train="synthetic://?size=40&channels=5&height=11&width=19&classes=3",
                  image_size=(8, 20), channels=5, batch_size=8, eval_batch_size=8,
                  augment="crop | flip"),
        log_every=1, eval_every=2, checkpoint_every=2)
"""


@pytest.fixture
def config(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return str(path)


def test_a_mean_has_a_number_for_each_channel(config: str) -> None:
    assert load_config(config, {}).data.std == (0.5,) * 5
    assert load_config(config, {"data.channels": "1"}).data.mean == (0.5,)
    given = load_config(config, {"data.channels": "1", "data.mean": "(0.3,)"})
    assert (given.data.mean, given.data.std) == ((0.3,), (0.5,))
    for fields, message in (
        (
            {"data.mean": "(0.3, 0.3)"},
            r"data.mean=\(0.3, 0.3\) has 2 numbers, and .*channels=5; gi",
        ),
        ({"data.channels": "0"}, r"data.channels=0 must be 1 \(gray\), 3"),
        ({"data.channels": "17"}, "up to 16"),
        ({"data.image_size": "(8,)"}, "must be the side of a square, or rows and columns"),
        ({"data.image_size": "(8, 8, 3)"}, "must be the side of a square, or rows and columns"),
        ({"data.image_size": "(8, 2.5)"}, "takes a whole number or a tuple of rows and columns"),
        ({"data.image_size": "0"}, "must be the side of a square, or rows and columns"),
        ({"data.image_size": "wide"}, "takes a whole number or a tuple of rows and columns"),
    ):
        with pytest.raises(ValueError, match=message):
            load_config(config, fields)


def test_sizes_are_read_from_the_command_line(config: str) -> None:
    for text, size in (("(4, 12)", (4, 12)), ("[4, 12]", (4, 12)), ("4,12", (4, 12)), ("12", 12)):
        assert load_config(config, {"data.image_size": text}).data.image_size == size
    assert parse_size("(32, 64)") == (32, 64)
    for wrong in ("(32, 64, 3)", "0", "(8, True)", "wide", "8.0"):
        with pytest.raises(ValueError, match="must be the side of a square, or rows and columns"):
            parse_size(wrong)


@pytest.mark.slow
def test_a_run_of_five_channels_and_two_sides(
    config: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    work, array = str(tmp_path / "run"), tmp_path / "scans" / "a.npy"
    train = ["train", f"--config={config}", f"--workdir={work}"]
    assert main(train) == 0
    assert "8×20 pixels, channels: 5" in capsys.readouterr().out
    assert main(train) == 0  # it is the same run when it is read again
    trained = runs.open_trained(work)
    assert trained.image_size == (8, 20)
    assert len(trained.mean) == 5
    kernel = trained.variables["params"]["patch_embed"]["proj"]["kernel"]
    assert kernel.shape == (4, 4, 5, 8)
    capsys.readouterr()
    array.parent.mkdir()
    np.save(array, np.random.default_rng(0).integers(0, 256, (11, 19, 5), np.uint8))
    assert main(["predict", f"--workdir={work}", str(array.parent), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["top"]) == 3
    np.save(array, np.zeros((11, 19, 4), np.uint8))
    assert main(["predict", f"--workdir={work}", str(array)]) == 2
    assert "it has 4 channels, and data.channels=5" in capsys.readouterr().err
    from vitjax.data import open_source

    source = open_source("synthetic://?size=40&channels=5&height=11&width=19&classes=3", "test")
    assert features(trained, source, batch_size=4)[0].shape == (4, 8)
    restored = ["train", f"--config={config}", f"--workdir={work}2", "--config.task=restoration"]
    restored += ["--config.restoration.degradation=noise", "--config.model.name=uformer_t"]
    assert main(restored) == 2
    assert "data.channels=5: restoration is for RGB" in capsys.readouterr().err


@pytest.mark.slow
def test_info_counts_a_model_of_other_images(capsys: pytest.CaptureFixture) -> None:
    assert main(["info", "vit_ti16", "--channels=5", "--image-size=(32, 64)", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["image_size"] == [32, 64]
    # Two channels more of 16×16 pixels, and a table of 8 positions in place of 196.
    assert found["parameters"] == 5_717_416 + (2 * 256 - 188) * 192
    assert main(["info", "vit_ti16", "--channels=17"]) == 2
