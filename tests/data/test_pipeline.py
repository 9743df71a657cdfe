import itertools
import logging
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.data.pictures import Numbered, encoded, eval_batches, noise, train_batches, write_folders
from vitjax.data import BadImage, open_source
from vitjax.data.order import epoch_order, sample_rngs


def take(count, source, **options):
    options = {"batch_size": 4, "image_size": 8, "augment": "digits"} | options
    batches = train_batches(source, **options)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches])


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert batch.keys() == other.keys() == {"image", "label", "mask"}
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


def test_shapes_and_types():
    (batch,) = take(1, Numbered(10))
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        "image": ((4, 8, 8, 3), np.uint8),
        "label": ((4,), np.int32),
        "mask": ((4,), np.float32),
    }
    assert (batch["mask"] == 1).all()


@pytest.mark.parametrize("batch_size", [1, 4, 7, 10])
def test_every_epoch_has_every_image_once_in_a_new_order(batch_size):
    steps = -(-30 // batch_size)
    seen = labels(take(steps, Numbered(10), batch_size=batch_size))[:30].reshape(3, 10)
    for epoch in seen:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in seen}) == 3


def test_the_order_is_that_of_the_seed_and_epoch():
    seen = labels(take(5, Numbered(10), seed=3))
    expected = np.concatenate([epoch_order(3, 10, epoch) for epoch in range(2)])
    np.testing.assert_array_equal(seen, expected)
    assert epoch_order(3, 10, 1).tolist() != epoch_order(4, 10, 0).tolist()


def test_seeds_differ_in_order_and_in_augmentation():
    first, second = (take(3, Numbered(10), seed=seed) for seed in (0, 1))
    assert labels(first).tolist() != labels(second).tolist()
    rows = [
        {int(label): image for b in batches for label, image in zip(b["label"], b["image"])}
        for batches in (first, second)
    ]
    shared = rows[0].keys() & rows[1].keys()
    assert shared
    assert all((rows[0][label] != rows[1][label]).any() for label in shared)


@pytest.mark.parametrize("augment", ["digits", "crop_flip"])
@pytest.mark.parametrize("start", [1, 2, 3, 7, 12])
def test_starting_late_is_going_on(start, augment):
    source = Numbered(10)
    whole = take(15, source, augment=augment)
    assert_equal(take(15 - start, source, augment=augment, start_step=start), whole[start:])


def test_starting_very_late_needs_no_replay():
    began = time.perf_counter()
    (batch,) = take(1, Numbered(1000), start_step=10**9)
    assert time.perf_counter() - began < 1
    expected = epoch_order(0, 1000, 4 * 10**6)[:4]
    np.testing.assert_array_equal(batch["label"], expected)


@pytest.mark.parametrize("num_threads", [0, 1, 3, 8])
def test_threads_change_nothing(num_threads):
    source = Numbered(50)
    assert_equal(take(20, source, num_threads=num_threads), take(20, source, num_threads=2))


def test_augmentation_is_of_the_sample_not_of_the_batch():
    wide, narrow = (take(steps, Numbered(12), batch_size=b) for steps, b in ((2, 6), (3, 4)))
    images = [np.concatenate([batch["image"] for batch in batches]) for batches in (wide, narrow)]
    np.testing.assert_array_equal(*images)


def test_sample_rngs_are_independent_of_what_was_drawn_before():
    some = {}
    for position, rng in zip(range(100, 104), sample_rngs(5, range(100, 104))):
        rng.random(position - 99)  # each takes another number
        some[position] = rng.random()
    for position, value in some.items():
        (rng,) = sample_rngs(5, [position])
        assert rng.random(position - 98)[-1] == value
    draws = [rng.random() for rng in sample_rngs(5, range(1000))]
    assert len(set(draws)) == 1000
    assert abs(np.mean(draws) - 0.5) < 0.05


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_evaluation_has_every_image_once_and_pads(size, batch_size):
    batches = list(eval_batches(Numbered(size), batch_size=batch_size, image_size=8))
    assert len(batches) == -(-size // batch_size)
    assert all(batch["image"].shape == (batch_size, 8, 8, 3) for batch in batches)
    mask = np.concatenate([batch["mask"] for batch in batches])
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < size)
    np.testing.assert_array_equal(labels(batches)[:size], np.arange(size))
    padding = np.concatenate([batch["image"] for batch in batches])[size:]
    assert not padding.any()
    assert not labels(batches)[size:].any()


def test_thirty_photos_of_different_sizes(tmp_path):
    root = write_folders(tmp_path, {"cat": 20, "dog": 10})
    source = open_source(f"{root}?test_fraction=0.2", "train")
    batches = take(12, source, batch_size=6, image_size=32, augment="crop_flip")
    assert labels(batches).sum() == 3 * 8  # three epochs of eight dogs


@pytest.fixture
def damaged(tmp_path):
    root = write_folders(tmp_path, {"train/a": 6, "train/b": 6})
    (tmp_path / "train" / "a" / "001.jpg").write_bytes(encoded(".jpg", noise(40, 40))[:-300])
    (tmp_path / "train" / "b" / "003.png").write_bytes(b"")
    return open_source(root, "train")


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_bad_image_fails_by_name(damaged, num_threads):
    with pytest.raises(
        BadImage, match=r"'train/(a/001\.jpg|b/003\.png)': .*on_bad_image='skip'"
    ) as error:
        take(3, damaged, num_threads=num_threads)
    assert error.value.name in ("train/a/001.jpg", "train/b/003.png")
    with pytest.raises(BadImage, match=r"a/001\.jpg"):
        list(eval_batches(damaged, batch_size=4, image_size=8, num_threads=num_threads))


def test_a_bad_image_is_skipped_when_asked_to(damaged, caplog):
    with caplog.at_level(logging.WARNING):
        batches = list(eval_batches(damaged, batch_size=12, image_size=8, on_bad_image="skip"))
    (batch,) = batches
    assert np.flatnonzero(batch["mask"] == 0).tolist() == [1, 9]
    assert not batch["image"][[1, 9]].any()
    assert not batch["label"][[1, 9]].any()
    assert sorted(record.getMessage() for record in caplog.records) == [
        "Skipped: Cannot read image 'train/a/001.jpg': it is truncated, damaged or in no format "
        "that OpenCV reads.",
        "Skipped: Cannot read image 'train/b/003.png': the file is empty.",
    ]
    trained = take(6, damaged, on_bad_image="skip")
    assert sum((batch["mask"] == 0).sum() for batch in trained) == 4  # two epochs of two
    assert_equal(trained[2:], take(4, damaged, on_bad_image="skip", start_step=2, num_threads=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 11}, "Batch size 11 is larger than the data set, which has 10 images"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_threads": -1}, "num_threads=-1"),
        ({"augment": "digit"}, "Unknown augmentation 'digit'; did you mean 'digits'"),
        ({"on_bad_image": "skp"}, "Unknown on_bad_image 'skp'; did you mean 'skip'"),
        ({"seed": -1}, "seed=-1"),
        ({"start_step": -1}, "start_step=-1"),
    ],
)
def test_wrong_options_fail_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        train_batches(Numbered(10), **({"batch_size": 4, "image_size": 8} | options))


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]


def wait_for_threads_to_end():
    for _ in range(100):
        if not prefetch_threads():
            return
        time.sleep(0.05)
    raise AssertionError(prefetch_threads())


def test_threads_end_with_the_iterator():
    wait_for_threads_to_end()
    batches = train_batches(Numbered(10), batch_size=4, image_size=8)
    next(batches)
    assert prefetch_threads()
    del batches
    wait_for_threads_to_end()
    list(eval_batches(Numbered(10), batch_size=4, image_size=8))
    wait_for_threads_to_end()


@pytest.mark.slow
def test_a_process_may_end_in_the_middle():
    program = (
        "from vitjax.data import open_source; from vitjax.data.pipeline import train_batches\n"
        "from vitjax.data.kinds import image_and_label\n"
        "source = open_source('digits://', 'train')\n"
        "kinds = image_and_label(source.info, 8)\n"
        "batches = train_batches(source, batch_size=64, kinds=kinds)\n"
        "next(batches)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_rows_of_several_processes_are_the_whole_batch():
    source = Numbered(10)
    whole = take(5, source)
    first, last = (take(5, source, rows=rows) for rows in ([0, 3], [1, 2]))
    for batch, a, b in zip(whole, first, last):
        for key in batch:
            np.testing.assert_array_equal(batch[key][[0, 3]], a[key])
            np.testing.assert_array_equal(batch[key][[1, 2]], b[key])
    tested = [
        list(eval_batches(source, batch_size=4, image_size=8, rows=rows))
        for rows in (None, [0, 1], [2, 3])
    ]
    for batch, a, b in zip(*tested, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([a[key], b[key]]))
    for rows in ([], [1, 0], [0, 0], [3, 4]):
        with pytest.raises(ValueError, match="among 0 to 3"):
            take(1, source, rows=rows)
