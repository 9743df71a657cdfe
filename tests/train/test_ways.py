"""What is said by hand replaces the file's other way of saying it, and the log says so."""

import json
import pathlib

import pytest

from vitjax.train.config import flat_config
from vitjax.train.ways import without_split
from vitjax.training import load_config

ZERO = (("head/.*", 1.0), (".*", 0.0))
PREFIX = {"warmup_steps": 5, "start_factor": 0.1, "warmup_prefix": False}


@pytest.mark.parametrize(
    ("file", "by_hand", "resolved", "replaced"),
    [
        ({"epochs": 3.5}, {"steps": "7"}, {"steps": 7, "epochs": 0}, "epochs=3.5"),
        ({"steps": 9}, {"epochs": "2.5"}, {"steps": 0, "epochs": 2.5}, "steps=9"),
        (  # the URI's option would be read alone
            {"data": {"train": "folder:///x?split=train&test_fraction=0.1"}},
            {"data.train_split": "train[:80%]"},
            {"data.train": "folder:///x?test_fraction=0.1", "data.train_split": "train[:80%]"},
            "data.train=folder:///x?split=train&test_fraction=0.1",
        ),
        (
            {"data": {"test": "/x?split=val"}},
            {"data.test_split": "test"},
            {"data.test": "/x", "data.test_split": "test"},
            "data.test=/x?split=val",
        ),
        (
            {"data": {"train_split": "train[:80%]"}},
            {"data.train": "/x?split=all"},
            {"data.train": "/x?split=all", "data.train_split": "train"},
            "data.train_split=train[:80%]",
        ),
        (  # the training's option is not the test's
            {"data": {"train": "/x?split=train[:80%]"}},
            {"data.test_split": "train[80%:]"},
            {"data.train": "/x", "data.train_split": "train[:80%]"},
            "",
        ),
        (
            {"data": {"on_bad_image": "skip", "max_bad_images": 9}},
            {"data.on_bad_image": "fail"},
            {"data.on_bad_image": "fail", "data.max_bad_images": -1},
            "data.max_bad_images=9",
        ),
        (
            {"data": {"num_processes": 3}},
            {"data.num_threads": "7"},
            {"data.num_threads": 7, "data.num_processes": 0},
            "data.num_processes=3",
        ),
        (
            {"data": {"num_threads": 7}},
            {"data.num_processes": "3"},
            {"data.num_threads": 4, "data.num_processes": 3},
            "data.num_threads=7",
        ),
        (
            {"model": {"name": "vit_s16", "image_size": 224}},
            {"data.image_size": "64"},
            {"data.image_size": 64, "model.image_size": None},
            "model.image_size=224",
        ),
        (
            {"data": {"image_size": 96}},
            {"model.image_size": "64"},
            {"data.image_size": 64, "model.image_size": 64},
            "data.image_size=96",
        ),
        (
            {"loss": {"head_bias": -10.0}},
            {"init": "w.npz"},
            {"loss.head_bias": 0.0, "init": "w.npz"},
            "loss.head_bias=-10.0",
        ),
        (
            {"init": "w.npz"},
            {"loss.head_bias": "-10"},
            {"loss.head_bias": -10.0, "init": ""},
            "init=w.npz",
        ),
        (
            {"task": "restoration", "restoration": {"degradation": "noise(sigma=25)"}},
            {"data.train": "pairs:///sidd"},
            {"restoration.degradation": ""},
            "restoration.degradation=noise(sigma=25)",
        ),
        (
            {"optimizer": {"learning_rate_rules": ZERO}},
            {"optimizer.freeze": "()"},
            {"optimizer.freeze": (), "optimizer.learning_rate_rules": ((".*", 1.0),)},
            "optimizer.learning_rate_rules=",
        ),
        (
            {"optimizer": {"freeze": ("stem/.*",)}},
            {"optimizer.learning_rate_rules": repr(ZERO)},
            {"optimizer.freeze": (), "optimizer.learning_rate_rules": ZERO},
            "optimizer.freeze=('stem/.*',)",
        ),
        (
            {"schedule": PREFIX},
            {"schedule.warmup_steps": "0"},
            {"schedule.start_factor": 0.0, "schedule.warmup_prefix": True},
            "schedule.start_factor=0.1",
        ),
        (
            {"token_labels": {"maps": "/m", "weight": 0.5, "class_target": "maps"}},
            {"token_labels.weight": "0"},
            {"token_labels.maps": "", "token_labels.class_target": "label"},
            "token_labels.maps=/m",
        ),
    ],
)
def test_what_is_said_by_hand_counts(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, file, by_hand, resolved, replaced
) -> None:
    path = tmp_path / "run.py"
    path.write_text(f"def get_config():\n    return {file!r}\n")
    config = load_config(str(path), by_hand)
    for key, value in resolved.items():
        assert flat_config(config).get(key) == json.loads(json.dumps(value)), key
    if replaced:
        assert f"sets {replaced}" in caplog.text
        assert f"--config.{next(iter(by_hand))} replaces it." in caplog.text
    caplog.clear()
    load_config(str(path), {})
    assert not caplog.text  # a file alone stays as it is


@pytest.mark.parametrize(
    ("by_hand", "message"),
    [
        (
            {"data.train": "/x?split=all", "data.train_split": "train"},
            "has split=all, and .*'train",
        ),
        ({"data.num_threads": "2", "data.num_processes": "2"}, "in processes instead of threads"),
    ],
)
def test_both_by_hand_is_refused(file: str, by_hand: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(file, by_hand)


def test_what_does_not_contradict_stays(file: str, caplog: pytest.LogCaptureFixture) -> None:
    """Rates without a 0 freeze nothing; one thing may be said twice in the same words."""
    rules = {"optimizer.learning_rate_rules": "((r'head/.*', 10), ('.*', 1.0))"}
    config = load_config(file, {**rules, "optimizer.freeze": "('stem/.*',)"})
    assert (
        config.optimizer.freeze == ("stem/.*",) and len(config.optimizer.learning_rate_rules) == 2
    )
    twice = {"data.train": "/x?split=all", "data.train_split": "all"}
    assert load_config(file, twice).data.train == "/x?split=all"
    assert load_config(file, {"data.num_threads": "2", "data.num_processes": "0"})
    assert not caplog.text


def test_a_split_leaves_a_uri() -> None:
    for before, after in (
        ("/x?split=val", "/x"),
        ("/x?split=val&a=1", "/x?a=1"),
        ("/x?a=1&split=train[:80%]&b=2", "/x?a=1&b=2"),
        ("/x?a=1&split=val", "/x?a=1"),
        ("/x?test_split=1", "/x?test_split=1"),
        ("0.5*/x?split=val + 0.5*/y?a=1&split=val", "0.5*/x + 0.5*/y?a=1"),
    ):
        assert without_split(before) == after
