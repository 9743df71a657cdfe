import logging
import os

import numpy as np
import pytest

from tests.data.pictures import encoded, noise, write_folders
from vitjax.data import BadImage, Source, open_source
from vitjax.data.codecs.image import decode
from vitjax.data.config import DataConfig
from vitjax.data.sets import open_data
from vitjax.data.sources.image_folder import open_folder


def names(source):
    return [source.example_name(i) for i in range(len(source))]


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_train_and_test_folders(tmp_path, held_out):
    root = write_folders(
        tmp_path, {"train/dog": 3, "train/cat": 2, f"{held_out}/cat": 1, f"{held_out}/dog": 2}
    )
    train, test = open_folder(root, "train"), open_folder(root, "test")
    assert isinstance(train, Source)
    assert train.info.classes == test.info.classes == ("cat", "dog")
    assert names(test) == [
        f"{held_out}/cat/000.png",
        f"{held_out}/dog/000.png",
        f"{held_out}/dog/001.jpg",
    ]
    assert [train[i]["label"] for i in range(5)] == [0, 0, 1, 1, 1]
    images = [decode(train[i]["image"]) for i in range(2)]
    assert [image.shape for image in images] == [(9, 7, 3), (10, 9, 3)]
    np.testing.assert_array_equal(images[0], noise(9, 7, 0)[..., ::-1])


def test_split_by_fraction_takes_from_every_class(tmp_path):
    root = write_folders(tmp_path, {"a": 20, "b": 5, "c": 2})
    train, test = (open_folder(root, split, test_fraction=0.2) for split in ("train", "test"))
    assert len(set(names(train) + names(test))) == 27
    counts = [sum(name.startswith(letter) for name in names(test)) for letter in "abc"]
    assert counts == [4, 1, 1]


def test_split_by_fraction_holds_out_of_the_train_folder(tmp_path):
    root = write_folders(tmp_path, {"train/a": 5, "train/b": 5})
    assert len(open_folder(root, "test", test_fraction=0.4)) == 4
    assert len(open_folder(root, "train", test_fraction=0.4)) == 6


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    root = write_folders(tmp_path, {"a": 9, "b": 9})
    before = [open_folder(root, split, 0.3) for split in ("train", "test")]
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            self.entries = sorted(scandir(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    after = [open_folder(root, split, 0.3) for split in ("train", "test")]
    assert list(map(names, before)) == list(map(names, after))
    assert [s.info.fingerprint for s in before] == [s.info.fingerprint for s in after]


def test_fingerprint_changes_with_names_and_sizes(tmp_path):
    root = write_folders(tmp_path, {"train/a": 3, "train/b": 3})
    seen = {open_folder(root, "train").info.fingerprint}
    os.rename(tmp_path / "train" / "a" / "000.png", tmp_path / "train" / "a" / "zero.png")
    seen.add(open_folder(root, "train").info.fingerprint)
    (tmp_path / "train" / "a" / "zero.png").write_bytes(encoded(".png", noise(30, 30)))
    seen.add(open_folder(root, "train").info.fingerprint)
    os.rename(tmp_path / "train" / "b" / "000.png", tmp_path / "train" / "a" / "new.png")
    seen.add(open_folder(root, "train").info.fingerprint)
    assert len(seen) == 4


ALL = {"train/cat": 3, "val/cat": 2, "test/cat": 1, "extra/cat": 4}


@pytest.mark.parametrize(("split", "size"), [("train", 3), ("val", 2), ("test", 1), ("extra", 4)])
def test_splits_keep_their_names(tmp_path, split, size):
    root = write_folders(tmp_path, ALL)
    for source in (open_source(root, split), open_source(f"{root}?split={split}", "train")):
        assert names(source)[0] == f"{split}/cat/000.png" and len(source) == size
    assert len(open_source(root, "extra[:50%]")) == 2
    with pytest.raises(ValueError, match=r"'vall'; did you mean 'val'. Choose from: extra, test"):
        open_source(root, "vall")


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_a_lone_validation_split_is_the_test(tmp_path, name):
    root = write_folders(tmp_path, {"train/cat": 3, f"{name}/cat": 2})
    assert names(open_source(root, "test")) == names(open_source(root, name))
    # Without train/ these are names of classes, as any others.
    flat = write_folders(tmp_path / "flat", {"valid": 3, "invalid": 3})
    assert open_source(flat, "train").info.classes == ("invalid", "valid")


def test_a_test_folder_alone_can_be_read(tmp_path):
    root = write_folders(tmp_path, {"test/cat": 2, "val/dog": 1})
    assert len(open_source(root, "test")) == 2
    assert open_source(f"{root}?split=val", "train").info.classes == ("dog",)


def data_of(uri, **data):
    return open_data(DataConfig(train=uri, **data), {})


def test_validation_images_choose_the_checkpoint(tmp_path, caplog):
    root = write_folders(tmp_path, ALL)
    with caplog.at_level(logging.WARNING):
        assert names(data_of(root).evals["test"]) == names(open_source(root, "val"))
    (message,) = caplog.messages
    assert f"{root!r} has val/ and test/: val/ chooses the best checkpoint" in message
    assert f"config.data.test='folder://{root}?split=test' chooses by it" in message
    caplog.clear()
    for other in (
        {"test": f"folder://{root}?split=test"},
        {"test_split": "test[:100%]"},
    ):
        assert names(data_of(root, **other).evals["test"]) == names(open_source(root, "test"))
    assert len(data_of(root, test_split="val").evals["test"]) == 2
    assert len(data_of(root, test_split="extra").evals["test"]) == 4
    alone = write_folders(tmp_path / "alone", {"train/cat": 3, "test/cat": 2})
    assert len(data_of(alone).evals["test"]) == 2
    assert len(data_of("digits://").evals["test"]) == 360
    assert not caplog.messages


def test_a_flat_folder_can_be_used_whole(tmp_path):
    root = write_folders(tmp_path, {"a": 4, "b": 1})
    source = open_source(f"{root}?split=all", "train")
    assert len(source) == 5 and source.info.classes == ("a", "b")
    with pytest.raises(
        ValueError, match=r"test_fraction=0.5 holds images out, and the split 'all'"
    ):
        open_source(f"{root}?split=all&test_fraction=0.5", "train")
    with pytest.raises(ValueError, match=r"Unknown split 'val'.* Choose from: train, test, all"):
        open_source(root, "val")
    split = write_folders(tmp_path / "split", {"train/a": 2, "test/a": 1})
    with pytest.raises(ValueError, match=r"'all'.* Choose from: test, train"):
        open_source(split, "all")


def test_images_below_a_class_are_its_and_are_counted_aloud(tmp_path, caplog):
    root = write_folders(tmp_path, {"train/a": 2, "train/a/old/er": 2, "train/b/2020": 3})
    os.symlink(tmp_path / "train" / "a", tmp_path / "train" / "a" / "old" / "loop")
    with caplog.at_level(logging.WARNING):
        source = open_folder(root, "train")
    assert names(source)[:4] == [
        "train/a/000.png",
        "train/a/001.jpg",
        "train/a/old/er/000.png",
        "train/a/old/er/001.jpg",
    ]
    assert [source[i]["label"] for i in range(len(source))] == [0, 0, 0, 0, 1, 1, 1]
    (message,) = caplog.messages
    assert message.startswith("5 of 7 images of ") and "'train/a/old/er/000.png'" in message


def test_other_and_hidden_files_are_left_out(tmp_path):
    root = write_folders(
        tmp_path, {"train/a": 2, "train/b": 1, "train/.cache": 1, "train/a/.hidden": 1}
    )
    (tmp_path / "train" / "a" / "notes.txt").write_text("x")
    (tmp_path / "train" / "a" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "a" / "._000.png").write_text("x")
    (tmp_path / "train" / "b" / "UPPER.JPEG").write_bytes(encoded(".jpg", noise(4, 4)))
    assert names(open_folder(root, "train")) == [
        "train/a/000.png",
        "train/a/001.jpg",
        "train/b/000.png",
        "train/b/UPPER.JPEG",
    ]


def test_reads_lazily_and_names_the_bad_image(tmp_path):
    root = write_folders(tmp_path, {"train/a": 2, "train/b": 1})
    (tmp_path / "train" / "b" / "000.png").write_bytes(b"")
    os.symlink(tmp_path / "nowhere", tmp_path / "train" / "b" / "link.png")
    source = open_folder(root, "train")
    assert source[1]["label"] == 0
    with pytest.raises(BadImage, match=r"'train/b/000\.png': the file is empty"):
        source[2]
    with pytest.raises(BadImage, match=r"'train/b/link\.png': No such file"):
        source[3]


@pytest.mark.parametrize(
    ("folders", "split", "message"),
    [
        ({}, "train", "is empty; put each class's images into a folder of its own"),
        ({"train": 0}, "train", "train' is empty"),
        ({"": 3}, "train", "Images lie directly in .* put each class's images into a folder"),
        ({"train": 3}, "train", "Images lie directly in .*train'"),
        ({"cat": 2, "dog": 0}, "train", "Class 'dog' of .* has no images; add some"),
        ({"train/cat": 2, "train/dog": 0}, "train", "Class 'train/dog' of .* has no images"),
        ({"photos/cat": 2, "photos/dog": 2}, "train", r"Class 'photos' .* holds folders \(cat"),
        ({"train/cat": 2}, "test", "no test images: add test/<class>/ .*test_fraction=0.2"),
        ({"test/cat": 2}, "train", "has test/ and no train/"),
        ({"train/cat": 2, "test/cow": 2}, "test", "differ: test/ lacks cat; train/ lacks cow"),
        ({"train/a": 1, "train/b": 1, "val/a": 1}, "test", "differ: val/ lacks b"),
    ],
)
def test_wrong_arrangements(tmp_path, folders, split, message):
    root = write_folders(tmp_path, folders)
    with pytest.raises(ValueError, match=message):
        open_folder(root, split)


def test_fraction_beside_a_test_folder_is_refused(tmp_path):
    root = write_folders(tmp_path, {"train/a": 2, "test/a": 2})
    with pytest.raises(ValueError, match="has test/ already; leave test_fraction out"):
        open_folder(root, "train", test_fraction=0.5)


def test_fraction_of_a_class_with_one_image_is_refused(tmp_path):
    root = write_folders(tmp_path, {"a": 2, "b": 1})
    with pytest.raises(ValueError, match="Class 'b' has one image, and a split needs two"):
        open_folder(root, "train", test_fraction=0.5)


def test_thousands_of_files_are_listed_without_reading_them(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(1500):
            (tmp_path / folder / f"{i}.jpg").touch()
    source = open_source(str(tmp_path), "train[10%:]")
    assert len(source) == 2160
