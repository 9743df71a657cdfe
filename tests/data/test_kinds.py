"""Every field of a sample follows the same crop and the same moves."""

import cv2
import numpy as np
import pytest

from tests.data.pictures import noise
from vitjax.data import DataInfo, pipeline
from vitjax.data.codecs.image import Box
from vitjax.data.kinds import Image, Label, SemanticMap, batch_spec
from vitjax.data.source import WithField
from vitjax.data.transforms.augment import evaluation, parse_augmentation
from vitjax.data.transforms.moves import View

COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [240, 240, 30]], np.uint8)
IGNORE = 255


def scene(height, width, seed=0):
    """Large blobs of four classes, and an image whose colours say which."""
    coarse = np.random.default_rng(seed).integers(0, 4, (5, 6)).astype(np.uint8)
    classes = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return COLOURS[classes], classes.astype(np.int32)


def agreement(image, classes):
    """Share of the pixels whose colour is that of their class, where the map says one."""
    distance = np.abs(image[..., None, :].astype(int) - COLOURS).sum(-1)
    known = classes != IGNORE
    return np.mean((distance.argmin(-1) == classes)[known]), known.mean()


@pytest.mark.parametrize(
    "line",
    [
        "crop | flip",
        "crop(area=(0.5, 1.0), interpolation='bicubic') | flip(p=1.0)",
        "simple_crop(pad=6) | affine(degrees=30)",
        "centre(fraction=0.8) | affine | flip",
        "crop | flip | jitter(brightness=0.1, contrast=0.0, saturation=0.1)",
    ],
)
@pytest.mark.parametrize("size", [64, (48, 83)])
def test_a_map_follows_its_image(line, size):
    kinds = {"image": Image(size), "mask": SemanticMap(size)}
    found = []
    for seed in range(12):
        image, classes = scene(157, 211, seed)
        sample = {"image": image, "mask": classes}
        out = parse_augmentation(line)(sample, kinds, np.random.default_rng(seed))
        assert out["image"].shape[:2] == out["mask"].shape == kinds["image"].shape
        found.append(agreement(out["image"], out["mask"]))
    share, known = np.mean(found, axis=0)
    assert share > 0.97  # the image mixes colours along the edges, and the map does not
    assert known > 0.8
    if "affine" not in line:
        assert known == 1.0


def test_turned_policies_take_the_map_along():
    kinds = {"image": Image(96), "mask": SemanticMap(96)}
    image, classes = scene(96, 96)
    seen = 0
    for seed in range(60):
        augment = parse_augmentation("centre | randaugment(n=1, m=9, mstd=0.0, p=1.0)")
        sample = {"image": image, "mask": classes}
        out = augment(sample, kinds, np.random.default_rng(seed))
        if (out["mask"] != classes).any():  # a turn, a shear or a shift: colours are as they were
            seen += 1
            assert agreement(out["image"], out["mask"])[0] > 0.95
    assert 10 < seen < 40


@pytest.mark.parametrize("crop", [0.0, 0.6, 1.0, 1.7])
def test_evaluation_shows_both_the_same(crop):
    image, classes = scene(120, 170)
    kinds = {"image": Image(60), "mask": SemanticMap(60)}
    out = evaluation(crop)({"image": image, "mask": classes}, kinds, None)
    assert agreement(out["image"], out["mask"])[0] > 0.96
    padded = (out["image"] == 0).all(-1)
    np.testing.assert_array_equal(out["mask"] == IGNORE, padded)


def test_the_nearest_pixel_is_opencvs_exact_one():
    classes = np.random.default_rng(0).integers(0, 9, (37, 53))
    kind = SemanticMap((16, 24))
    found = kind.view(classes, View(Box(4, 3, 31, 47), (37, 53)))
    part = classes[4:35, 3:50].astype(np.uint8)
    expected = cv2.resize(part, (24, 16), interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(found, expected)


def test_a_map_of_another_size_is_refused():
    kinds = {"image": Image(8), "mask": SemanticMap(8)}
    sample = {"image": noise(10, 12), "mask": np.zeros((12, 10), int)}
    with pytest.raises(ValueError, match="its map has 12×10 pixels, and its image 10×12"):
        evaluation()(sample, kinds, None)


class Scenes:
    info = DataInfo(("a", "b", "c", "d"), "0" * 16)

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return {"image": scene(40 + i, 50, i)[0], "label": i % 4}

    def example_name(self, i):
        return f"scene {i}"


class Maps:
    def __getitem__(self, i):
        return scene(40 + i, 50, i)[1]


def test_a_batch_has_the_arrays_of_its_kinds():
    source = WithField(Scenes(), "map", Maps(), "maps")
    kinds = {"image": Image(16), "map": SemanticMap(16), "label": Label(4)}
    (batch, last) = pipeline.eval_batches(source, kinds=kinds, batch_size=3, num_threads=0)
    described = {k: (s.shape, np.dtype(s.dtype)) for k, s in batch_spec(kinds).items()}
    assert {k: (v.shape[1:], v.dtype) for k, v in batch.items()} == described
    assert agreement(batch["image"], batch["map"])[0] > 0.9
    assert last["mask"].tolist() == [1, 1, 0]
    assert (last["map"][2] == IGNORE).all() and not last["image"][2].any()
    assert source.info.fingerprint != Scenes.info.fingerprint


def test_a_field_that_the_data_lacks_is_named():
    kinds = {"image": Image(16), "map": SemanticMap(16)}
    message = r"reads map, and the data has only image, label"
    with pytest.raises(ValueError, match=message):
        pipeline.train_batches(Scenes(), kinds=kinds, batch_size=2)
