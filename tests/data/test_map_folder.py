"""Folders of images with label files, and of pairs: layouts, partners, and what is refused."""

import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from vitjax.data import open_source
from vitjax.data.kinds import Image, SemanticMap
from vitjax.data.pipeline import eval_batches, train_batches

KINDS = {"image": Image((7, 11)), "map": SemanticMap((7, 11))}
NAMES = "wall\nsky\ntree\n"


def write(path: pathlib.Path, array: np.ndarray, palette: list[int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Pillow.fromarray(array)
    if palette:
        picture = Pillow.fromarray(array, "P")
        picture.putpalette(palette)
    picture.save(path)


def fill(root: pathlib.Path, layout: str, count: int = 3, **kwargs) -> None:
    """Write images and label files; `layout` has {half}, images or labels, and {split}."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(count):
            image = rng.integers(0, 256, (7, 11, 3), dtype=np.uint8)
            labels = (image[..., 0] // 86).astype(np.uint8)
            write(root / layout.format(half="images", split=split) / f"{i}.png", image)
            write(root / layout.format(half="labels", split=split) / f"{i}.png", labels, **kwargs)
    (root / "classes.txt").write_text(NAMES)


@pytest.mark.parametrize("layout", ["{half}/{split}", "{split}/{half}"])
def test_images_have_their_label_files(tmp_path: pathlib.Path, layout: str) -> None:
    fill(tmp_path, layout)
    for split in ("train", "test", "val"):
        source = open_source(f"maps://{tmp_path}", split)
        assert source.info.classes == ("wall", "sky", "tree") and len(source) == 3
        (batch,) = eval_batches(source, kinds=KINDS, batch_size=3, num_threads=0)
        np.testing.assert_array_equal(batch["map"], batch["image"][..., 0] // 86)
    assert source.info.fingerprint != open_source(f"maps://{tmp_path}", "train").info.fingerprint


def test_palettes_give_numbers_and_must_agree(tmp_path: pathlib.Path) -> None:
    palette = [7, 8, 9, 100, 0, 0, 0, 100, 0]
    fill(tmp_path, "{half}/{split}", palette=palette)
    source = open_source(f"maps://{tmp_path}", "train")
    (batch,) = eval_batches(source, kinds=KINDS, batch_size=3, num_threads=0)
    np.testing.assert_array_equal(batch["map"], batch["image"][..., 0] // 86)
    write(tmp_path / "labels/train/2.png", batch["map"][2], palette[::-1])
    with pytest.raises(ValueError, match=r"2\.png.*palette.*first file.*write all with one"):
        list(eval_batches(source, kinds=KINDS, batch_size=3, num_threads=0))


def test_zero_means_no_class_once(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, "{half}/{split}")
    (tmp_path / "classes.txt").write_text("sky\ntree\n")
    source = open_source(f"maps://{tmp_path}?reduce_zero=1", "train")
    (batch,) = eval_batches(source, kinds=KINDS, batch_size=3, num_threads=0)
    stored = batch["image"][..., 0] // 86
    np.testing.assert_array_equal(batch["map"], np.where(stored == 0, 255, stored - 1))


def test_cityscapes_as_it_comes(tmp_path: pathlib.Path) -> None:
    image = np.zeros((7, 11, 3), np.uint8)
    for split in ("train", "val"):
        write(tmp_path / f"leftImg8bit/{split}/bonn/a_leftImg8bit.png", image)
        for end, value in (("labelTrainIds", 2), ("labelIds", 26), ("color", 90)):
            write(tmp_path / f"gtFine/{split}/bonn/a_gtFine_{end}.png", image[..., 0] + value)
    source = open_source(f"maps://{tmp_path}?classes=19", "test")
    assert (source[0]["map"].read() == 2).all() and len(source) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "labels/train/1.png").unlink(), r"'1\.png' in .*images.* has no partner"),
        (lambda r: (r / "images/train/1.png").unlink(), r"'1\.png' in .*labels.* has no partner"),
        (
            lambda r: (r / "classes.txt").unlink(),
            r"classes\.txt' does not exist: write.*\?classes=",
        ),
        (lambda r: (r / "classes.txt").write_text("a\na\n"), "has the name 'a' twice"),
        (lambda r: (r / "classes.txt").write_text("\n"), "has no names"),
        (lambda r: write(r / "labels/train/1.jpg", np.zeros((7, 11), np.uint8)), "not clear which"),
        (
            lambda r: (r / "labels").rename(r / "label"),
            "needs images/ and labels/ inside of train/",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: pathlib.Path, spoil, message: str) -> None:
    fill(tmp_path, "{half}/{split}")
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        open_source(f"maps://{tmp_path}", "train")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((7, 11), 3, np.uint8), r"1\.png' has the number 3, and there are 3 classes"),
        (np.zeros((7, 12), np.uint8), "its map has 7×12 pixels, and its image 7×11"),
        (np.zeros((7, 11), np.uint16), "16 bits a pixel"),
        (np.zeros((7, 11, 4), np.uint8), "pixels of RGBA"),
        (np.zeros((7, 11, 3), np.uint8), "pixels of RGB"),
    ],
)
def test_label_files_are_checked(tmp_path: pathlib.Path, labels, message: str) -> None:
    fill(tmp_path, "{half}/{split}")
    source = open_source(f"maps://{tmp_path}", "train")
    write(tmp_path / "labels/train/1.png", labels)
    with pytest.raises(ValueError, match=r"Image '1\.png'.*" + message):
        next(train_batches(source, kinds=KINDS, batch_size=3, num_threads=0))


def test_a_damaged_label_file_is_a_bad_image(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, "{half}/{split}")
    source = open_source(f"maps://{tmp_path}", "train")
    (tmp_path / "labels/train/1.png").write_bytes(b"no picture")
    options = dict(kinds=KINDS, batch_size=3, num_threads=0, on_bad_image="skip")
    (batch,) = eval_batches(source, **options)
    assert batch["mask"].tolist() == [1, 0, 1] and (batch["map"][1] == 255).all()


def test_pairs_share_a_view(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        image = rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)
        write(tmp_path / "train/input" / f"{i}.png", 255 - image)
        write(tmp_path / "train/target" / f"{i}.png", image)
    source = open_source(f"pairs://{tmp_path}", "train")
    assert source.info.classes == () and source.info.fields == {"image", "target"}
    kinds = {"image": Image(13), "target": Image(13)}
    augment = "scaled_crop(scale=(1, 1)) | flip"
    batches = train_batches(source, kinds=kinds, batch_size=3, augment=augment, num_threads=0)
    for _ in range(3):
        batch = next(batches)
        np.testing.assert_array_equal(batch["image"], 255 - batch["target"])
    (tmp_path / "train/target/2.png").unlink()
    with pytest.raises(ValueError, match=r"every image needs a target of the same name"):
        open_source(f"pairs://{tmp_path}", "train")


def test_the_crop_limits_one_class() -> None:
    from vitjax.data.transforms.augment import parse_augmentation

    labels = np.zeros((97, 97), np.int32)
    labels[:, :20] = 1
    sample = {"image": cv2.merge([labels.astype(np.uint8)] * 3), "map": labels}
    kinds = {"image": Image(24), "map": SemanticMap(24)}

    def shares(line: str) -> list[float]:
        augment = parse_augmentation(line)
        rngs = map(np.random.default_rng, range(60))
        return [augment(sample, kinds, rng)["map"].mean() for rng in rngs]

    free, limited = (
        shares("scaled_crop(scale=(1, 1))"),
        shares("scaled_crop(scale=(1, 1), max_share=0.75)"),
    )
    one_class = [sum(not 0.25 <= s <= 0.75 for s in found) for found in (free, limited)]
    assert one_class[0] > 40 and one_class[1] < 25
    with pytest.raises(ValueError, match=r"max_share=2.*at most 1"):
        parse_augmentation("scaled_crop(max_share=2)")
