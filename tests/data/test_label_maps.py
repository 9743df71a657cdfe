import itertools
import json
import pickle

import numpy as np
import pytest

from tests.data.pictures import Numbered, eval_batches, noise
from vitjax.data import Source, pipeline
from vitjax.data.codecs.image import Box
from vitjax.data.kinds import Image, TokenScores, image_and_label
from vitjax.data.label_maps import read_label_maps, with_label_maps
from vitjax.data.source import BadImage
from vitjax.data.transforms.augment import parse_augmentation
from vitjax.data.transforms.crops import crop_and_resize


def write_maps(folder, source, **changes):
    """Write maps [N, 2, 3, 3] whose classes are the image's number."""
    number = np.arange(len(source), dtype=np.uint16)[:, None, None, None]
    np.save(folder / "classes.npy", np.broadcast_to(number, (len(source), 2, 3, 3)))
    np.save(folder / "scores.npy", np.full((len(source), 2, 3, 3), 0.5, np.float16))
    about = dict(complete=True, data="here://", split="train", images=len(source),
                 fingerprint=source.info.fingerprint)  # fmt: skip
    (folder / "labels.json").write_text(json.dumps(about | changes))
    return str(folder)


def maps_of(folder, source):
    maps = read_label_maps(folder)
    with_label_maps(source, maps)
    return maps


def placed(augmentation, image, seed):
    kinds = {"image": Image(16), "map": TokenScores((1, 1, 1))}
    sample = {"image": image, "map": (None, None)}
    found = augmentation(sample, kinds, np.random.default_rng(seed))
    return found["image"], found["map"]


@pytest.mark.parametrize("line", ["crop | flip", "simple_crop | randaugment | flip(p=1.0)"])
def test_a_placement_is_where_the_square_was_cut(line):
    image, found = noise(40, 30), set()
    for seed in range(8):
        augmentation = parse_augmentation(line.replace(" | randaugment", ""))
        square, (_, _, box, flipped) = placed(augmentation, image, seed)
        top, left, height, width = (round(x * side) for x, side in zip(box, (40, 30, 40, 30)))
        expected = crop_and_resize(image, Box(top, left, height, width), 16, exact=False)
        np.testing.assert_array_equal(square, expected[:, ::-1] if flipped else expected)
        found.add(flipped)
        again = placed(parse_augmentation(line), image, seed)[1]
        assert again.box == box
    assert found == ({True} if "p=1.0" in line else {True, False})


class Holey(Numbered):
    def __getitem__(self, i):
        if i == 3:
            raise BadImage("three", "it is not there")
        return super().__getitem__(i)


def test_a_batch_has_the_maps_of_its_images(tmp_path):
    source = Holey(10)
    maps = maps_of(write_maps(tmp_path, source), source)

    def batches(start, threads=2, label_maps=None, **more):
        kinds: dict = image_and_label(source.info, 8)
        samples: Source = source
        if label_maps:
            kinds |= {"map": TokenScores(label_maps.shape)}
            samples = with_label_maps(source, label_maps)
        stream = pipeline.train_batches(
            samples, kinds=kinds, batch_size=4, augment="crop | flip", on_bad_image="skip",
            start_step=start, num_threads=threads, **more,
        )  # fmt: skip
        return list(itertools.islice(stream, 6 - start))

    with_maps, plain = batches(0, label_maps=maps), batches(0)
    for batch, other in zip(with_maps, plain):
        for name, value in other.items():
            np.testing.assert_array_equal(batch[name], value)
        read = batch["mask"] == 1
        assert (batch["map_classes"] == batch["label"][:, None, None, None]).all()
        assert (batch["map_scores"][read] == 0.5).all()
        assert (batch["map_scores"][~read] == 0).all()
        assert (batch["map_box"][read, 2:] > 0).all()
    assert any((batch["mask"] == 0).any() for batch in with_maps)
    later = batches(3, threads=0, label_maps=pickle.loads(pickle.dumps(maps)), rows=[1, 2])
    for batch, other in zip(later, with_maps[3:]):
        assert batch.keys() == other.keys()
        for name, value in batch.items():
            np.testing.assert_array_equal(value, other[name][1:3])


def test_maps_of_other_images_are_refused(tmp_path):
    source = Numbered(4)
    with pytest.raises(ValueError, match=r"holds no label maps.*vitjax token-labels"):
        maps_of(str(tmp_path), source)
    folder = write_maps(tmp_path, source, fingerprint="1" * 16)
    with pytest.raises(ValueError, match=r"of other images.*here://.*1111.*0000"):
        maps_of(folder, source)
    with pytest.raises(ValueError, match="are incomplete"):
        maps_of(write_maps(tmp_path, source, complete=False), source)
    maps_of(write_maps(tmp_path, source), source)


def test_an_annotator_sees_the_whole_image_from_any_batch_on():
    source = Numbered(10)
    options = dict(batch_size=3, image_size=8, crop=0.0, interpolation="bilinear")
    everything = list(eval_batches(source, **options))
    for batch, other in zip(eval_batches(source, start_step=2, **options), everything[2:]):
        np.testing.assert_array_equal(batch["image"], other["image"])
    first = source[0]["image"]
    whole = crop_and_resize(first, Box(0, 0, *first.shape[:2]), 8, "bilinear")
    np.testing.assert_array_equal(everything[0]["image"][0], whole)
