import os

import numpy as np
import pytest

from tests.data.pictures import write_folders
from vitjax.data import Source, open_source


@pytest.fixture
def photos(tmp_path):
    return write_folders(tmp_path / "photos", {"cat": 20, "dog": 10})


def names(source):
    return [source.example_name(i) for i in range(len(source))]


def test_a_folder_by_uri_and_by_path(photos, monkeypatch):
    monkeypatch.chdir(os.path.dirname(photos))
    expected = open_source(f"folder://{photos}", "train")
    assert len(expected) == 24  # a fifth of each class is held out
    for uri in (photos, "photos", "folder://photos", "./photos/"):
        assert open_source(uri, "train").info.fingerprint == expected.info.fingerprint


def test_options(photos):
    test = open_source(f"folder://{photos}?test_fraction=0.2", "test")
    assert len(test) == len(open_source(f"{photos}?test_fraction=0.2", "test")) == 6
    assert len(open_source(f"{photos}?test_fraction=0.2", "train")) == 24


@pytest.mark.parametrize("bounds", [("[:80%]", "[80%:]"), ("[:7]", "[7:]"), ("[:3%]", "[3%:100%]")])
def test_slices_are_disjoint_and_complete(photos, bounds):
    first, second = (open_source(photos, f"train{bound}") for bound in bounds)
    assert isinstance(first, Source)
    assert len(first) + len(second) == 24
    assert sorted(names(first) + names(second)) == names(open_source(photos, "train"))
    assert first.info.fingerprint != second.info.fingerprint
    assert first.info.classes == ("cat", "dog")


def test_a_slice_mixes_the_classes(photos):
    half = open_source(photos, "train[:50%]")
    labels = [half[i]["label"] for i in range(len(half))]
    assert set(labels) == {0, 1}
    assert [name.startswith("dog") for name in names(half)] == [label == 1 for label in labels]


def test_a_slice_is_fixed():
    first, again = (open_source("digits://", "train[:25%]") for _ in range(2))
    assert len(first) == 359
    assert names(first) == names(again)
    assert first.info.fingerprint == again.info.fingerprint
    np.testing.assert_array_equal(first[5]["image"], again[5]["image"])


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("digit://", "Unknown data source 'digit://'; did you mean 'digits://'.*folder://"),
        ("digits", "Unknown data source 'digits'; did you mean 'digits://'"),
        ("digits://x", "takes no path"),
        ("digits://?test_fraction=0.2", "Unknown option of digits:// 'test_fraction'"),
        ("{photos}?test_fractoin=0.2", "did you mean 'test_fraction'"),
        ("{photos}?test_fraction=a", "test_fraction='a' of .* is not a number"),
        ("{photos}?test_fraction=2", "must lie between 0 and 1"),
        ("folder://", "no path; write folder:"),
        ("{photos}s", "has no 'photoss'; did you mean '{photos}'"),
        ("folder://{photos}s/train", "has no 'photoss'; did you mean '{photos}'"),
        ("{photos}/cat/000.png", "is a file; give the folder"),
    ],
)
def test_wrong_uris(photos, uri, message):
    with pytest.raises(ValueError, match=message.replace("{photos}", photos)):
        open_source(uri.replace("{photos}", photos), "train")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tset", "Unknown split 'tset'; did you mean 'test'. Choose from: train, test"),
        ("train[:80%", "'train.:80%' does not parse.*train.:80%"),
        ("train[80%]", "does not parse"),
        ("train[-5:]", "does not parse"),
        ("train[:31]", "reaches 31 and there are 24 images"),
        ("train[:150%]", "reaches 150% and there are 24 images"),
        ("train[20:10]", "slice 20:10 of the 24 train images is empty"),
        ("train[:0%]", "is empty"),
    ],
)
def test_wrong_splits(photos, split, message):
    with pytest.raises(ValueError, match=message):
        open_source(photos, split)
