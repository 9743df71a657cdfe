"""Collages: a function of (seed, index) for any index, with labels of the large digit."""

import numpy as np
import pytest

from vitjax.data.sources import open_source


def test_a_collage_is_a_function_of_seed_and_index() -> None:
    source = open_source("collages://?size=17&count=5&seed=3", "train")
    again = open_source("collages://?size=17&count=900000&seed=3", "train")
    for i in (0, 3, 4, 10**12):  # in another order, from another length, beyond any length
        np.testing.assert_array_equal(source[i]["image"], again[i]["image"])
        assert source[i]["label"] == again[i]["label"]
    assert source[0]["image"].shape == (17, 17, 3) and source[0]["image"].dtype == np.uint8
    assert (len(source), len(again)) == (5, 900_000)


def test_other_seeds_indices_and_splits_have_other_images() -> None:
    train, other, test = (
        open_source(f"collages://?seed={seed}", split)
        for seed, split in ((0, "train"), (1, "train"), (0, "test"))
    )
    images = [s[i]["image"].tobytes() for s in (train, other, test) for i in range(20)]
    assert len(set(images)) == 60
    fingerprints = {s.info.fingerprint for s in (train, other, test)}
    assert len(fingerprints) == 3 and (len(train), len(test)) == (100_000, 2000)


def test_labels_are_about_as_many_of_each_class() -> None:
    source = open_source("collages://?size=16", "train")
    counts = np.bincount([source[i]["label"] for i in range(500)], minlength=10)
    assert counts.sum() == 500 and counts.min() > 25  # 50 expected, standard deviation 6.7


def test_noise_is_of_another_strength_in_each_image() -> None:
    clear, noisy = (open_source(f"collages://?noise={n}", "train") for n in (0, 40))
    assert clear.info.fingerprint != noisy.info.fingerprint
    strengths = []
    for i in range(200):
        assert clear[i]["label"] == noisy[i]["label"]
        image = clear[i]["image"].astype(np.float32)
        within = (image > 100) & (image < 155)  # where at most a tenth is clipped
        strengths.append(float((noisy[i]["image"] - image)[within].std()))
    strengths = np.array(strengths)[~np.isnan(strengths)]
    assert abs(strengths.mean() - 20) < 3 and strengths.min() < 3 and 34 < strengths.max() < 46


def test_collages_larger_than_a_photograph_are_made() -> None:
    assert open_source("collages://?size=499", "test")[0]["image"].shape == (499, 499, 3)


def test_wrong_options_are_told() -> None:
    with pytest.raises(ValueError, match="size of 16 or more"):
        open_source("collages://?size=8", "train")
    with pytest.raises(ValueError, match="noise=-1"):
        open_source("collages://?noise=-1", "train")
    with pytest.raises(ValueError, match="takes no path"):
        open_source("collages://here", "train")
