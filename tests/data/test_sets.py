"""A run's sources have the same classes, by name."""

import numpy as np
import pytest

from tests.data.pictures import noise, write_folders
from vitjax.data import open_source
from vitjax.data.config import DataConfig
from vitjax.data.sets import open_data, with_classes
from vitjax.data.sources.arrays import Arrays


def labelled(names, labels):
    return Arrays([noise(4, 4, i) for i in range(len(labels))], labels, names)


def test_the_same_classes_are_left_alone() -> None:
    source = labelled(("cat", "dog"), [0, 1])
    assert with_classes(source, source.info, "test") is source


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("fox", "cat", "dog"), [2, 0, 1]), (("dog", "fox"), [1, 2])],
)
def test_classes_are_matched_by_name(names, expected) -> None:
    train = labelled(("cat", "dog", "fox"), [0, 1, 2])
    other = labelled(names, list(range(len(names))))
    found = with_classes(other, train.info, "test")
    assert [found[i]["label"] for i in range(len(names))] == expected
    assert found.info.classes == train.info.classes
    assert found.info.fingerprint not in (other.info.fingerprint, train.info.fingerprint)
    assert found.example_name(1) == other.example_name(1) and len(found) == len(names)


def test_weights_and_several_labels_are_matched_too() -> None:
    train = labelled(("cat", "dog", "fox"), [0, 1, 2])
    weights = labelled(("fox", "dog"), np.array([[0.25, 0.75], [1.0, 0.0]]))
    found = with_classes(weights, train.info._replace(multi_label=True), "test")
    np.testing.assert_array_equal(found[0]["label"], np.float32([0, 0.75, 0.25]))


def test_other_classes_are_refused_with_both_lists() -> None:
    train = labelled(("cat", "dog", "fox"), [0, 1, 2])
    message = (
        "config.data.test has classes that the training data lacks: 'wolf', and lacks 'dog', "
        "'fox'. It has 2 classes and the training data 3"
    )
    with pytest.raises(ValueError, match=message):
        with_classes(labelled(("cat", "wolf"), [0, 1]), train.info, "config.data.test")


def test_every_evaluation_is_compared(tmp_path) -> None:
    names = ("cat", "dog", "fox")
    both = {f"train/{n}": 3 for n in names} | {f"test/{n}": 1 for n in names}
    train = write_folders(tmp_path / "a", both)
    two = {f"train/{n}": 1 for n in names[1:]} | {f"test/{n}": 2 for n in names[1:]}
    part = write_folders(tmp_path / "b", two)
    wrong = write_folders(tmp_path / "c", {"train/wolf": 1, "test/wolf": 1})
    found = DataConfig(train=train)
    data = open_data(found, {"part": part, "train": f"folder://{train}?split=train"})
    assert list(data.evals) == ["test", "part", "train"]
    assert [data.evals["part"][i]["label"] for i in range(4)] == [1, 1, 2, 2]
    assert len(data.evals["train"]) == 9
    assert data.facts().keys() == {"training", "test", "part", "train"}
    assert data.facts()["training"]["images"] == 9
    with pytest.raises(ValueError, match=r"config\.evals\.wrong has classes .*'wolf'"):
        open_data(found, {"wrong": wrong})
    with pytest.raises(ValueError, match=r"config\.data\.test has classes .*'wolf'"):
        open_data(DataConfig(train=train, test=wrong), {})
    assert open_source(part, "test")[0]["label"] == 0


def test_a_test_on_the_training_images_is_told(caplog) -> None:
    open_data(DataConfig(train="digits://", test_split="train"), {})
    assert "The test images are the training images ('digits://')" in caplog.text
    caplog.clear()
    for config in (DataConfig(), DataConfig(train_split="train[:50%]", test_split="train[50%:]")):
        open_data(config, {})
        assert not caplog.text


def test_a_limit_of_skipped_images_needs_skipping() -> None:
    assert DataConfig(on_bad_image="skip", max_bad_images=3).max_bad_images == 3
    with pytest.raises(ValueError, match="max_bad_images=3 is of images that are skipped; give"):
        DataConfig(max_bad_images=3)
