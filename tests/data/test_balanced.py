"""Balanced sampling, and the labels that it needs, which no image is read for."""

import itertools
import pickle

import numpy as np
import pytest

from tests.data.pictures import (
    Numbered,
    encoded,
    eval_batches,
    noise,
    train_batches,
    write_folders,
    write_tar,
)
from vitjax.data import open_source
from vitjax.data.order import Balanced
from vitjax.data.sets import with_classes
from vitjax.data.source import DataInfo, WithField, class_counts, class_labels
from vitjax.data.sources.arrays import Arrays
from vitjax.data.sources.mixture import Mixture

RARE = np.repeat([0, 2, 3], [97, 11, 1])  # class 1 has no image
TINY = noise(2, 2)


def arrays(labels, names=None):
    return Arrays([TINY] * len(labels), labels, names)


def sources(folder):
    write_folders(folder / "photos", {"train/cat": 5, "train/dog": 2, "train/fox": 3})
    jpg = encoded(".jpg", noise(8, 8))
    files = [
        (f"{i}.{kind}", data)
        for i, label in enumerate((3, 0, 3, 1))
        for kind, data in (("jpg", jpg), ("cls", str(label).encode()))
    ]
    write_tar(folder / "a.tar", files)
    first, second = arrays([0, 1, 1], ["cat", "dog"]), arrays([1, 0, 2], ["dog", "elk", "cat"])
    return [
        open_source("digits://", "train[:5%]"),
        open_source("synthetic://?size=23&classes=7", "train"),
        open_source(f"{folder / 'photos'}", "train"),
        open_source(f"tar://{folder / 'a.tar'}", "train"),
        first,
        Mixture([first, second], [0.75, 0.25]),
        with_classes(second, DataInfo(("cat", "dog", "elk", "fox"), ""), "other"),
        WithField(second, "more", [0, 0, 0], ""),
    ]


def test_labels_are_those_of_the_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for source in sources(tmp_path):
        expected = [source[i]["label"] for i in range(len(source))]
        assert class_labels(source).tolist() == expected, source
        counts = np.bincount(expected, minlength=len(source.info.classes))
        np.testing.assert_array_equal(class_counts(source), counts)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Numbered(3), "the source of 'number 0' cannot tell them without reading every image"),
        (Arrays([TINY]), "the data has only image"),
        (arrays(np.eye(3)), "these images may have several"),
        (arrays([0, -1, 1, -1]), "and 2 of 4 have none; the first is 'array 1'"),
        (Mixture([arrays([0]), Numbered(1)], [0.5, 0.5]), "the source of 'number 0' cannot"),
    ],
)
def test_who_cannot_tell_says_so_in_a_sentence(source, message):
    with pytest.raises(ValueError, match=message) as error:
        class_labels(source)
    assert "\n" not in str(error.value)


def test_classes_and_their_images_are_visited_equally_often():
    order, size = Balanced(5, RARE), len(RARE)
    visits = np.zeros(size, int)
    for epoch in range(7):
        found = order(epoch)
        assert len(found) == size
        visits += np.bincount(found, minlength=size)
        assert np.ptp(np.bincount(RARE[found])[[0, 2, 3]]) <= 1
        of_class = [visits[c == RARE] for c in (0, 2, 3)]
        assert np.ptp([v.sum() for v in of_class]) <= 1
        assert all(np.ptp(v) <= 1 for v in of_class)
    assert visits.sum() == 7 * size


def test_the_order_is_that_of_the_seed_and_epoch_alone():
    first, again = Balanced(3, RARE), pickle.loads(pickle.dumps(Balanced(3, RARE)))
    np.testing.assert_array_equal(first(10**9), again(10**9))
    orders = [Balanced(seed, RARE)(epoch).tolist() for seed in (3, 4) for epoch in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def take(count, **options):
    source = arrays([0] * 9 + [1] * 2)
    options = {"batch_size": 4, "image_size": 8, "sampling": "balanced"} | options
    batches = train_batches(source, **options)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return [batch["label"] for batch in taken]


def test_batches_go_on_anywhere_and_do_not_depend_on_who_reads_them():
    whole = take(11)
    assert np.ptp(np.bincount(np.concatenate(whole))) <= 1  # four epochs of eleven
    np.testing.assert_array_equal(take(4, start_step=7), whole[7:])
    np.testing.assert_array_equal(take(11, num_threads=0), whole)
    for rows in ([0, 3], [1, 2]):
        np.testing.assert_array_equal(take(11, rows=rows), np.array(whole)[:, rows])
    source = arrays([0] * 9 + [1] * 2)
    (tested,) = eval_batches(source, batch_size=11, image_size=8)
    assert tested["label"].tolist() == [0] * 9 + [1] * 2


@pytest.mark.slow
def test_other_processes_make_the_same_batches():
    np.testing.assert_array_equal(take(5, num_processes=2), take(5))


def test_what_does_not_go_together_is_refused():
    with pytest.raises(
        ValueError, match=r"repeats=3 cannot be combined with .*sampling='balanced'"
    ):
        take(1, repeats=3)
    with pytest.raises(ValueError, match=r"Unknown config\.data\.sampling 'balance'; did you mean"):
        take(1, sampling="balance")
