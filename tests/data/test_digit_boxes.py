"""`boxes://`: a function of (seed, index), with boxes and masks of what is seen."""

import numpy as np
import pytest

from vitjax.data import pipeline
from vitjax.data.canvas import WholeImage
from vitjax.data.instances import Instances, WholeInstances
from vitjax.data.kinds import Image
from vitjax.data.sets import with_classes
from vitjax.data.sources import open_source
from vitjax.data.sources.boxes import CONTRAST, contrasting
from vitjax.data.sources.mixture import Mixture


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    source = open_source("boxes://?size=67&count=5&seed=3", "train")
    again = open_source("boxes://?size=67&count=900000&seed=3", "train")
    for i in (0, 3, 4, 10**12):  # in another order, from another length, beyond any length
        np.testing.assert_array_equal(source[i]["image"], again[i]["image"])
        first, second = source[i]["objects"], again[i]["objects"]
        np.testing.assert_array_equal(first.boxes, second.boxes)
        np.testing.assert_array_equal(first.classes, second.classes)
    assert source[0]["image"].shape == (67, 67, 3) and source[0]["image"].dtype == np.uint8
    assert (len(source), len(again)) == (5, 900_000)


def test_other_seeds_indices_and_splits_have_other_scenes() -> None:
    train, other, test = (
        open_source(f"boxes://?size=64&seed={seed}", split)
        for seed, split in ((0, "train"), (1, "train"), (0, "test"))
    )
    images = [s[i]["image"].tobytes() for s in (train, other, test) for i in range(20)]
    assert len(set(images)) == 60
    assert len({s.info.fingerprint for s in (train, other, test)}) == 3
    assert (len(train), len(test)) == (100_000, 1000)


def test_boxes_are_those_of_the_masks_which_are_the_digits() -> None:
    source, counts, lengths = open_source("boxes://?digits=4", "train"), [], []
    for i in range(60):
        found, empty = source[i]["objects"], np.zeros((128, 128), int)
        counts.append(len(found.boxes))
        for box, mask, area in zip(found.boxes, found.masks, found.areas):
            height, width = mask.pixels.shape
            np.testing.assert_array_equal(
                box, [mask.left, mask.top, mask.left + width, mask.top + height]
            )
            assert all(side.any() for side in (*mask.pixels[[0, -1]], *mask.pixels.T[[0, -1]]))
            assert area == mask.pixels.sum() > 20
            empty[mask.top : mask.top + height, mask.left : mask.left + width] += mask.pixels
            colours = source[i]["image"][mask.top :, mask.left :][:height, :width]
            inked = colours[mask.pixels > 0].astype(int)
            lengths.append(height)
            assert (inked == inked[0]).all()  # of one colour
        assert empty.max() == 1  # a pixel is of one digit
    assert {*counts} == {1, 2, 3, 4} and min(lengths) < 36 and max(lengths) > 58


def test_a_colour_differs_from_what_it_covers_in_each_channel() -> None:
    rng = np.random.default_rng(0)
    for value in (0, 100, 255):
        covered = np.full((3, 3), value, np.float32)
        colours = np.array([contrasting(rng, covered) for _ in range(200)])
        assert colours.min() >= 0 and colours.max() <= 255
        assert np.abs(colours - value).min() >= CONTRAST and np.ptp(colours) > 100


def test_batches_of_training_and_evaluation() -> None:
    source = open_source("boxes://?size=64", "test")
    kinds = {"image": Image(53), "objects": Instances(53, limit=7, masks=11)}
    augment = "lsj(scale=(0.8, 2.0)) | flip"
    batch = next(pipeline.train_batches(source, kinds=kinds, batch_size=5, augment=augment))
    assert batch["objects_masks"].shape == (5, 7, 11, 11) and batch["objects_valid"].any()
    filled = batch["objects_masks"][batch["objects_valid"]].mean((1, 2))
    assert 0.2 < filled.mean() < 0.9
    whole = WholeImage((64, 64))
    kinds = {"image": whole, "objects": WholeInstances(whole, limit=7)}
    batch = next(pipeline.eval_batches(source, kinds=kinds, batch_size=5))
    assert batch["objects_index"].tolist() == [0, 1, 2, 3, 4]
    assert (
        batch["objects_valid"].sum(1) == [len(source[i]["objects"].boxes) for i in range(5)]
    ).all()


def test_a_mixture_numbers_its_samples_and_classes() -> None:
    a, b = (open_source(f"boxes://?size=64&count={n}", "train") for n in (2, 3))
    b.info = b.info._replace(classes=tuple("9876543210"))
    both = Mixture([a, b], [0.4, 0.6])
    assert [both[i]["objects"].number for i in range(len(both))] == list(range(5))
    np.testing.assert_array_equal(both[2]["objects"].classes, 9 - b[0]["objects"].classes)
    again = with_classes(b, a.info, "the second")  # an evaluation's, as training has them
    np.testing.assert_array_equal(again[0]["objects"].classes, 9 - b[0]["objects"].classes)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("boxes://?size=32", "needs a size of 64 or more"),
        ("boxes://?digits=0", "1 digit or more"),
        ("boxes://here", "takes no path"),
        ("boxes://?clutter=2", "Unknown option of boxes:// 'clutter'"),
    ],
)
def test_wrong_options_are_told(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(uri, "train")
