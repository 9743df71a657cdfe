"""Objects in features of TFDS and columns of Hugging Face data sets, and the forms of boxes."""

import sys
import types
import warnings

import numpy as np
import pytest

from tests.data.pictures import encoded, noise
from tests.data.test_map_columns import COLOUR, FEATURES, KIND, builder_of
from vitjax.data import open_source, pipeline
from vitjax.data.canvas import WholeImage
from vitjax.data.instances import WholeInstances
from vitjax.data.sources import object_columns
from vitjax.data.sources.hf import open_hf
from vitjax.data.sources.object_columns import describe_objects

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tfds = pytest.importorskip("tensorflow_datasets")

CORNERS = np.array([[10, 20, 40, 60], [0, 5, 50, 10]], np.float64)
SIDES = [[10, 20, 30, 40], [0, 5, 50, 5]]
NAMES = ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("form", "boxes"),
    [
        ("xywh", SIDES),
        ("xyxy", CORNERS),
        ("yxyx", CORNERS[:, [1, 0, 3, 2]]),
        ("cxcywh", [[25, 40, 30, 40], [25, 7.5, 50, 5]]),
    ],
)
def test_forms_of_boxes(form: str, boxes) -> None:
    column = describe_objects(
        "objects",
        {"bbox": 0, "category": 0, "area": 0},
        "here",
        said={"category": NAMES},
        boxes=form,
    )
    values = {"bbox": boxes, "category": [2, 0], "area": [7, 8]}
    found = column.objects(values, 3)
    np.testing.assert_array_equal(found.boxes, CORNERS)
    assert found.classes.tolist() == [2, 0] and found.areas.tolist() == [7, 8]
    assert not found.crowd.any() and found.number == 3
    none = column.objects({"bbox": [], "category": [], "area": []}, 0)
    assert none.boxes.shape == (0, 4) and none.classes.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": [0, 3]}, "an object of it has class 3, and there are 3, 0 to 2"),
        ({"label": [0]}, "has 2 boxes, and 1 classes"),
        ({"label": ["cat", "dog"]}, "its classes are 'cat', …, and must be numbers"),
    ],
)
def test_wrong_classes_are_told(values: dict, message: str) -> None:
    column = describe_objects("o", {"bbox": 0, "label": 0}, "here", said={"label": NAMES})
    with pytest.raises(ValueError, match=message):
        column.objects({"bbox": SIDES} | values, 0)


@pytest.mark.parametrize(
    ("inner", "options", "message"),
    [
        (("box", "label"), {}, "Unknown field of 'o' of here 'bbox'"),
        (("bbox", "kind"), {}, "Unknown field of 'o' of here 'label'"),
        (("bbox", "category"), {}, r"does not say the names .* add \?classes=80 for how many"),
        (("bbox", "label"), {"boxes": "xyhw"}, "Unknown form of boxes 'xyhw'; did you mean"),
    ],
)
def test_wrong_columns_are_told(inner: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe_objects("o", dict.fromkeys(inner), "here", said={"label": NAMES}, **options)


def picture(i: int) -> bytes:
    return encoded(".png", noise(100, 50, i))


def found_objects(i: int) -> list[dict]:
    """What TFDS gets for COCO: image i has i objects; boxes are shares of the image."""
    return [
        {
            "bbox": tfds.features.BBox(ymin=0.1 * k, xmin=0.2, ymax=0.5 + 0.1 * k, xmax=0.8),
            "label": k % 3,
            "is_crowd": k == 2,
            "area": 100 + k,
        }
        for k in range(i)
    ]


INNER = {
    "bbox": FEATURES.BBoxFeature(),
    "label": FEATURES.ClassLabel(names=NAMES),
    "is_crowd": np.bool_,
    "area": np.int64,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    several = {"image": COLOUR, "objects": FEATURES.Sequence(INNER)}
    sets = {
        "coco": (several, lambda i: {"image": picture(i), "objects": found_objects(i)}),
        "both": (
            several | {"label": KIND},
            lambda i: {"image": picture(i), "objects": found_objects(i), "label": i % 2},
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds.disable_progress_bar()
        for name, (features, example) in sets.items():
            made = builder_of(name, features, None, example)
            made(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_tfds_has_objects(data_dir) -> None:
    source = open_source(f"tfds://{data_dir}/coco/1.0.0", "train")
    assert source.info.classes == tuple(NAMES) and source.info.fields == {"image", "objects"}
    counts = sorted(len(source[i]["objects"].boxes) for i in range(5))
    assert counts == [0, 1, 2, 3, 4]
    image = WholeImage((100, 50))
    kinds = {"image": image, "objects": WholeInstances(image, limit=5)}
    (batch,) = pipeline.eval_batches(source, kinds=kinds, batch_size=5, num_threads=0)
    (row,) = np.flatnonzero(batch["objects_valid"].sum(1) == 4)
    np.testing.assert_allclose(
        batch["objects_original"][row, :4],
        [[10, 10 * k, 40, 50 + 10 * k] for k in range(4)],
        rtol=1e-6,
    )
    assert batch["objects_classes"][row].tolist() == [0, 1, 2, 0, -1]
    assert batch["objects_crowd"][row].tolist() == [False, False, True, False, False]
    assert batch["objects_areas"][row].tolist() == [100, 101, 102, 103, 0]
    assert batch["objects_index"].tolist() == [0, 1, 2, 3, 4]
    assert "tensorflow" not in sys.modules


def test_tfds_labels_come_first(data_dir) -> None:
    uri = f"tfds://{data_dir}/both/1.0.0"
    assert open_source(uri, "train").info.fields == {"image", "label"}
    asked = open_source(f"{uri}?objects=objects", "train")
    assert asked.info.fields == {"image", "objects"} and asked.info.classes == tuple(NAMES)
    with pytest.raises(ValueError, match="did you mean 'objects'"):
        open_source(f"{uri}?objects=object", "train")
    with pytest.raises(ValueError, match="a source has one of them: leave label="):
        open_source(f"{uri}?objects=objects&label=label", "train")
    with pytest.raises(ValueError, match=r"relative=1 is of boxes, and .* without objects"):
        open_source(f"{uri}?relative=1", "train")


class ClassLabel:
    def __init__(self, names):
        self.names = names


class Image:
    """The library's feature of images, as far as a source asks for it."""

    def __init__(self, decode: bool = True):
        self.decode = decode


class Sequence:
    def __init__(self, feature):
        self.feature = feature


class Table(list):
    """A table of the Hugging Face library, as far as a source asks for it."""

    def __init__(self, rows, features):
        super().__init__(rows)
        self.features, self._fingerprint = features, "f" * 16

    def select_columns(self, names):
        return Table(self, {name: self.features[name] for name in names})

    def cast_column(self, name, feature):
        return Table(self, self.features | {name: feature})


@pytest.fixture
def library(monkeypatch):
    """Stand in for the library, which is large: tables by the name that is opened."""
    tables: dict[str, Table] = {}

    def load_dataset(name, config):
        return {"train": tables[name]}

    made = types.SimpleNamespace(Image=Image, load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", made)
    return tables


def rows_of(cells) -> list[dict]:
    images = ({"bytes": picture(i), "path": None} for i in range(len(cells)))
    return [{"image": image, "objects": cell} for image, cell in zip(images, cells)]


@pytest.mark.parametrize("lists", [True, False])
def test_hugging_face_has_objects(library, lists: bool) -> None:
    inner = {"id": None, "bbox": Sequence(None), "category": ClassLabel(NAMES)}
    cells = [{"id": [5, 6], "bbox": SIDES, "category": [2, 1]}, {k: [] for k in inner}]
    if not lists:  # a list of objects instead of one list for each field: versions differ
        pairs = zip(SIDES, [2, 1])
        cells = [[{"id": 5, "bbox": box, "category": label} for box, label in pairs], []]
    library["cppe"] = Table(rows_of(cells), {"image": Image(), "objects": Sequence(inner)})
    source = open_hf("cppe", "train")
    assert source.info.classes == tuple(NAMES) and source.info.fields == {"image", "objects"}
    found = source[0]["objects"]
    np.testing.assert_array_equal(found.boxes, CORNERS)
    assert found.classes.tolist() == [2, 1] and len(source[1]["objects"].boxes) == 0
    corners = open_hf("cppe", "train", boxes="xyxy")
    np.testing.assert_array_equal(corners[0]["objects"].boxes, SIDES)
    assert corners.info.fingerprint != source.info.fingerprint
    renamed = open_hf("cppe", "train", classes="7")
    assert renamed.info.classes == tuple("0123456")
    with pytest.raises(ValueError, match="a source has one of them: leave label="):
        open_hf("cppe", "train", objects="objects", reduce_zero=1)


def test_hugging_face_labels_come_first(library) -> None:
    inner = {"bbox": None, "category": None}
    features = {"image": Image(), "objects": inner, "kind": ClassLabel(["a"])}
    cells = [{"bbox": SIDES, "category": [2, 1]}]
    library["both"] = Table([row | {"kind": 0} for row in rows_of(cells)], features)
    assert open_hf("both", "train").info.fields == {"image", "label"}
    with pytest.raises(ValueError, match=r"both does not say the names .* of 'objects': add \?cl"):
        open_hf("both", "train", objects="objects")
    assert open_hf("both", "train", objects="objects", classes="3")[0]["objects"].classes[0] == 2
    with pytest.raises(ValueError, match="relative=1 is of boxes"):
        open_hf("both", "train", relative=1)


def test_the_column_of_objects_is_found() -> None:
    columns = {"objects": ("bbox", "label"), "faces": ("boxes",), "meta": ("id",)}
    assert object_columns.choose_objects(columns, "faces", "here") == "faces"
    with pytest.raises(ValueError, match=r"objects, faces may be it; say it with \?objects=NAME"):
        object_columns.choose_objects(columns, "", "here")
    assert object_columns.any_objects(columns) and not object_columns.any_objects({"a": ("id",)})
