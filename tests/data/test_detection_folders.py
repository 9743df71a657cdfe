"""Folders of COCO's and YOLO's layout: what is read, and what is refused in a sentence."""

import json
import pathlib

import numpy as np
import pytest

from tests.data.pictures import encoded, noise
from vitjax.data import open_source, pipeline
from vitjax.data.codecs.masks import RunLengths
from vitjax.data.crop_kinds import PaddedImage
from vitjax.data.instances import Instances

RING = [1, 1, 6, 1, 6, 5, 1, 5]


def content() -> dict:
    """Three images, of which the last has no objects; categories 3 and 8."""
    sizes = {4: ("b.jpg", 7, 11), 2: ("a.png", 13, 17), 9: ("c.png", 5, 5)}
    return {
        "images": [
            {"id": i, "file_name": n, "height": h, "width": w} for i, (n, h, w) in sizes.items()
        ],
        "categories": [{"id": 8, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 70, "image_id": 4, "category_id": 8, "bbox": [1, 1, 5, 4], "area": 20.5,
             "iscrowd": 0, "segmentation": [RING, [8, 1, 9, 1, 9, 2]]},
            {"id": 71, "image_id": 2, "category_id": 3, "bbox": [0, 0, 17, 13], "area": 9,
             "iscrowd": 1, "segmentation": {"counts": [13, 9, 199], "size": [13, 17]}},
            {"id": 72, "image_id": 4, "category_id": 3, "bbox": [9.5, 2.25, 3, 2]},
        ],
    }  # fmt: skip


def write(root: pathlib.Path, said: dict | str, file="annotations/instances_train2017.json") -> str:
    """Write annotations and the pictures of `content`; the URI."""
    for folder in ("annotations", "train2017"):
        (root / folder).mkdir(exist_ok=True, parents=True)
    for image in content()["images"]:
        name = image["file_name"]
        picture = noise(image["height"], image["width"], image["id"])
        (root / "train2017" / name).write_bytes(encoded(name[-4:], picture))
    (root / file).write_text(said if isinstance(said, str) else json.dumps(said))
    return f"coco://{root}"


def test_coco_as_it_comes(tmp_path: pathlib.Path) -> None:
    source = open_source(write(tmp_path, content()), "train")
    assert source.info.classes == ("cat", "dog") and source.info.fields == {"image", "objects"}
    assert [source.example_name(i) for i in range(3)] == ["a.png", "b.jpg", "c.png"]  # by id
    first, second, third = (source[i]["objects"] for i in range(3))
    np.testing.assert_array_equal(second.boxes, [[1, 1, 6, 5], [9.5, 2.25, 12.5, 4.25]])
    assert (
        second.classes.tolist() == [1, 0] and second.areas[0] == 20.5 and np.isnan(second.areas[1])
    )
    rings = second.masks[0].rings
    np.testing.assert_array_equal(np.concatenate(rings).ravel(), [*RING, 8, 1, 9, 1, 9, 2])
    assert second.masks[1] is None and second.size == (7, 11) and second.number == 1
    assert first.masks == (RunLengths((13, 17), (13, 9, 199)),) and first.crowd.tolist() == [True]
    assert third.boxes.shape == (0, 4) and third.masks == ()
    kinds = {"image": PaddedImage(17), "objects": Instances(17)}
    batch = next(
        pipeline.train_batches(
            source, kinds=kinds, batch_size=3, augment="lsj(scale=(1, 1))", num_threads=0
        )
    )
    assert sorted(batch["objects_valid"].sum(1)) == [0, 1, 2]
    sliced = open_source(f"coco://{tmp_path}", "train[:2]")
    assert len(sliced) == 2 and sliced[1]["objects"].number in (1, 2)


@pytest.mark.parametrize(
    ("file", "options", "split"),
    [
        ("annotations/instances_val2017.json", "images=train2017", "test"),
        ("annotations/instances_val2017.json", "images=train2017", "val2017"),
        ("annotations/train2017.json", "", "train"),
        ("annotations/train2017.json", "", "train2017"),
        ("mine.json", "annotations=mine.json&images=train2017", "train"),
        ("train2017/_annotations.coco.json", "", "train2017"),
    ],
)
def test_where_annotations_may_lie(tmp_path, file: str, options: str, split: str) -> None:
    assert len(open_source(f"{write(tmp_path, content(), file)}?{options}", split)) == 3


def changed(path: str, value) -> dict:
    """The content with one value replaced, "annotations/1/bbox" say."""
    said = part = content()
    *keys, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in keys:
        part = part[key]
    part[last] = value
    return said


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            changed("annotations/2/bbox", [9, 2, -3, 2]),
            r"annotation 72 .* has the box \[9, 2, -3, 2\] .* is inverted or outside of its image "
            r"'b.jpg', 11 wide and 7 high; repair",
        ),
        (changed("annotations/2/bbox", [12, 2, 3, 2]), "inverted or outside of its image 'b.jpg'"),
        (changed("annotations/2/bbox", [1, 2, 3]), "annotation 72 .* box or mask that cannot be"),
        (changed("annotations/2/category_id", 5), "72 .* has category 5; listed are 3, 8"),
        (changed("annotations/2/image_id", 5), "annotation 72 .* is of image 5, which is not list"),
        (changed("annotations/2/id", 70), "has two annotations of the id 70; each needs"),
        (changed("images/2/id", 4), "has two images of the id 4"),
        (changed("images/2/file_name", "no.png"), "names 'no.png', not to be found in .*train2017"),
        (changed("images/2", {"id": 1}), "image of .* has no 'file_name'"),
        (changed("categories/1/name", "dog"), "two categories called 'dog'"),
        (changed("annotations/1/segmentation/size", [17, 13]), "a mask of 17×13 pixels, and its"),
        (changed("annotations/0/segmentation/0", [1, 2, 3, 4, 5, 6, 7]), "an odd number of coord"),
        (changed("annotations", None), "has no list of annotations: a file of COCO's objects"),
        ("[1, 2", r"is no valid JSON: .* at line 1, column 6; copy it again"),
        ('{"images": []}', "has no list of annotations"),
    ],
)
def test_what_is_wrong_with_annotations_is_said(tmp_path, said, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(write(tmp_path, said), "train")


def test_missing_splits_and_several_years(tmp_path: pathlib.Path) -> None:
    uri = write(tmp_path, content())
    with pytest.raises(
        ValueError, match=r"no annotations of the split 'test': it needs .*val….json"
    ):
        open_source(uri, "test")
    write(tmp_path, content(), "annotations/instances_train2014.json")
    with pytest.raises(ValueError, match=r"Several files are .*Say which .*\?split=train2017"):
        open_source(uri, "train")
    with pytest.raises(
        ValueError, match=r"folder of images .* 'train2014'; did you mean 'train2017'"
    ):
        open_source(uri, "train2014")


NAMES = "names: [cat, dog]\n"


def write_yolo(root: pathlib.Path, yaml: str, labels: dict[str, str], layout="images/train") -> str:
    """Write three pictures and some label files; the URI."""
    folder = root / layout
    for name in ("a.jpg", "b.png", "deep/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(name[-4:], noise(20, 40)))
    for name, text in labels.items():
        file = root / layout.replace("images", "labels") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "data.yaml").write_text(yaml)
    return f"yolo://{root}"


LABELS = {"a.txt": "1 0.5 0.25 0.5 0.1\n\n0 0 0 1 0 1 1\n", "deep/c.txt": "0 0.1 0.1 0.3 0.3\n"}


@pytest.mark.parametrize(
    ("layout", "yaml"),
    [
        ("images/train", "train: images/train\nval: images/train"),
        ("train/images", "train: ../train/images\nval: ../train/images"),
        ("images/train", "path: .\ntrain: [images/train]\nval: list.txt"),
    ],
)
def test_yolo_folders(tmp_path: pathlib.Path, layout: str, yaml: str) -> None:
    (tmp_path / "list.txt").write_text("".join(f"./{layout}/{n}\n" for n in ("a.jpg", "b.png")))
    uri = write_yolo(tmp_path, NAMES + yaml, LABELS, layout)
    source = open_source(uri, "train")
    assert source.info.classes == ("cat", "dog") and len(source) == 3
    first, second = source[0]["objects"], source[1]["objects"]
    np.testing.assert_allclose(first.boxes, [[0.25, 0.2, 0.75, 0.3], [0, 0, 1, 1]])
    assert first.classes.tolist() == [1, 0] and first.masks[0] is None and len(second.boxes) == 0
    kinds = {"image": PaddedImage(40), "objects": Instances(40)}
    augment = "lsj(scale=(1, 1))"
    batch = next(
        pipeline.train_batches(source, kinds=kinds, batch_size=3, augment=augment, num_threads=0)
    )
    (row,) = np.flatnonzero(batch["objects_valid"].sum(1) == 2)
    np.testing.assert_allclose(batch["objects_boxes"][row, :2], [[10, 4, 30, 6], [0, 0, 40, 20]])
    assert len(open_source(uri, "test")) == (2 if "list" in yaml else 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            "2 0.5 0.5 0.1 0.1",
            r"line 1 of its label file 'labels/train/a.txt' has class 2, and data",
        ),
        ("0 0.5 0.5 0.1 0.1\n1 0.5", "line 2 .* has 1 numbers behind the class; a box has four"),
        ("cat 0.5 0.5 0.1 0.1", "line 1 .* is 'cat 0.5 0.5 0.1 0.1', and must be numbers"),
        ("0 1.5 0.5 0.1 0.1", "object 0 .*, x 58 to 62 and y 9 to 11, is inverted or outside"),
        ("0 0.5 0.5 -0.1 0.1", "is inverted or outside of the image, which is 40 wide and 20 high"),
    ],
)
def test_what_is_wrong_with_labels_is_said(tmp_path, labels: str, message: str) -> None:
    uri = write_yolo(tmp_path, NAMES + "train: images/train", {"a.txt": labels})
    source, kinds = open_source(uri, "train"), {"objects": Instances(40), "image": PaddedImage(40)}
    with pytest.raises(ValueError, match=rf"(?s)Image 'images/train/a.jpg': .*{message}"):
        next(pipeline.train_batches(source, kinds=kinds, batch_size=3, num_threads=0))


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [cat, cat]\ntrain: images/train", "must be a list of different names"),
        ("names: {1: cat}\ntrain: images/train", "must be a list of different names"),
        ("train: images/train", "names: in .* must be a list"),
        (NAMES + "train: images/other", "names 'images/other', which does not exist"),
        (NAMES + "val: images/train", "Unknown split .* 'train'"),
        ("names: [cat", "is no valid YAML"),
        ("names", "has no keys; it needs names: and train:"),
    ],
)
def test_what_is_wrong_with_data_yaml_is_said(tmp_path, yaml: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(write_yolo(tmp_path, yaml, LABELS), "train")


def test_yolo_needs_its_files(tmp_path: pathlib.Path) -> None:
    uri = write_yolo(tmp_path, NAMES + "train: images/train", {})
    with pytest.raises(ValueError, match="have no label files: 'labels/train' in"):
        open_source(uri, "train")
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(ValueError, match=r"data.yaml' does not exist; write it, with names"):
        open_source(uri, "train")
