import hashlib

import numpy as np
import pytest

from vitjax.data import Source, open_source
from vitjax.data.sources.digits import split_indices


@pytest.fixture(scope="module")
def digits():
    return {split: open_source("digits://", split) for split in ("train", "test")}


def test_sizes_and_names(digits):
    assert [len(digits[split]) for split in ("train", "test")] == [1437, 360]
    assert digits["train"].info.classes == tuple("0123456789")
    assert isinstance(digits["train"], Source)


FIRST_TEST = [2, 12, 13, 20, 28, 38, 44, 53]
TEST_SHA = "2def317c2558ddce"


def test_the_split_never_changes():
    train, test = split_indices("train"), split_indices("test")
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(1797))
    assert test[:8].tolist() == FIRST_TEST
    assert hashlib.sha256(test.astype("<i8").tobytes()).hexdigest()[:16] == TEST_SHA


def test_images_are_the_scans(digits):
    from sklearn.datasets import load_digits

    scans = load_digits()
    for split in ("train", "test"):
        for i in (0, 1, 100, 359):
            number = split_indices(split)[i]
            example = digits[split][i]
            assert example["label"] == scans.target[number]
            assert digits[split].example_name(i) == f"digits/{number:04d}"
            assert example["image"].shape == (8, 8, 3)
            assert example["image"].dtype == np.uint8
            for channel in range(3):
                np.testing.assert_allclose(
                    example["image"][..., channel] * (16 / 255), scans.images[number], atol=0.04
                )


def test_every_class_is_in_both_parts(digits):
    for split, smallest in (("train", 130), ("test", 25)):
        labels = [digits[split][i]["label"] for i in range(len(digits[split]))]
        assert np.bincount(labels, minlength=10).min() >= smallest


def test_fingerprint_is_of_the_split(digits):
    assert digits["train"].info.fingerprint != digits["test"].info.fingerprint
    assert digits["train"].info.fingerprint == open_source("digits://", "train").info.fingerprint
    assert len(digits["train"].info.fingerprint) == 16
