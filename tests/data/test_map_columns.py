"""Label maps in features of TFDS and columns of Hugging Face data sets, and mixtures of them."""

import io
import sys
import warnings
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from vitjax.data import open_source
from vitjax.data.kinds import Image, SemanticMap
from vitjax.data.pipeline import eval_batches, train_batches
from vitjax.data.sources.map_columns import choose_image, choose_map, class_names
from vitjax.data.sources.mixture import Mixture

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tfds = pytest.importorskip("tensorflow_datasets")

SIZE = (7, 11)
KINDS = {"image": Image(SIZE), "map": SemanticMap(SIZE)}
PALETTE = [7, 8, 9, 100, 0, 0, 0, 100, 0, 0, 0, 100]


def picture(i: int) -> np.ndarray:
    """Draw an image whose red channel tells the number of each pixel's map, in 64ths."""
    return np.random.default_rng(i).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def numbers(i: int) -> np.ndarray:
    """Give what the map of image i stores: 0 to 3."""
    return picture(i)[..., 0] // 64


def png(array: np.ndarray, palette: list[int] | None = None) -> bytes:
    file = Pillow.fromarray(array, "P" if palette else None)
    if palette:
        file.putpalette(palette)
    buffer = io.BytesIO()
    file.save(buffer, "png")
    return buffer.getvalue()


def maps_of(source) -> tuple[np.ndarray, np.ndarray]:
    """Read a whole source: the maps, and what the images say that is stored in them."""
    (batch,) = eval_batches(source, kinds=KINDS, batch_size=len(source), num_threads=0)
    return batch["map"], batch["image"][..., 0] // 64


FEATURES = tfds.features
GREY = FEATURES.Image(shape=(None, None, 1), encoding_format="png")
COLOUR = FEATURES.Image(shape=(None, None, 3), encoding_format="png")
KIND = FEATURES.ClassLabel(names=["cat", "dog"])
NAMED = FEATURES.LabeledImage(labels=["void", "wall", "sky", "tree"], encoding_format="png")


def builder_of(title: str, features: dict, keys: tuple[str, str] | None, example, count: int = 5):
    """Give the class of a data set whose `example(i)` are fields of sample i."""

    with tfds.core.registered.skip_registration():

        class Made(tfds.core.GeneratorBasedBuilder):
            name = title
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self, features=FEATURES.FeaturesDict(features), supervised_keys=keys
                )

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i in range(count):
                    yield (
                        i,
                        {
                            k: io.BytesIO(v) if type(v) is bytes else v
                            for k, v in example(i).items()
                        },
                    )

    return Made


def stereo(i: int) -> dict:
    """Give a sample with Cityscapes' numbers: 7 is road, 26 car, the others none."""
    ids = np.array([0, 7, 26, 3], np.uint8)[numbers(i)]
    return {"image_left": png(picture(i)), "segmentation_label": png(ids)}


SETS = {
    "oxford_iiit_pet": (
        {"image": COLOUR, "label": KIND, "segmentation_mask": GREY}, ("image", "label"),
        lambda i: {
            "image": png(picture(i)), "label": i % 2,
            "segmentation_mask": png(np.minimum(numbers(i) + 1, 3).astype(np.uint8)),
        },
    ),
    "cityscapes": ({"image_left": COLOUR, "segmentation_label": GREY}, None, stereo),
    "scene_parse150": (
        {"image": COLOUR, "annotation": COLOUR}, ("image", "annotation"),
        lambda i: {
            "image": png(picture(i)),
            "annotation": png(cv2.merge([numbers(i), numbers(i) * 0 + 200, numbers(i) * 0])),
        },
    ),
    "named": (
        {"image": COLOUR, "mask": NAMED}, None,
        lambda i: {"image": png(picture(i)), "mask": png(numbers(i), PALETTE)},
    ),
    "nameless": (
        {"image": COLOUR, "mask": GREY, "old_mask": GREY}, None,
        lambda i: {"image": png(picture(i)), "mask": png(numbers(i)), "old_mask": png(numbers(i))},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds.disable_progress_bar()
        for name, parts in SETS.items():
            made = builder_of(name, *parts)(data_dir=folder, file_format="array_record")
            made.download_and_prepare()
    return folder


def opened(folder, name: str, options: str = "", split: str = "train"):
    query = f"?{options.lstrip('&')}" if options else ""
    return open_source(f"tfds://{folder}/{name}/1.0.0{query}", split)


def test_names_of_the_features_and_palettes(data_dir):
    source = opened(data_dir, "named")
    assert source.info.classes == ("void", "wall", "sky", "tree")
    assert source.info.fields == {"image", "map"} and len(source) == 5
    found, stored = maps_of(source)
    np.testing.assert_array_equal(found, stored)
    assert len(opened(data_dir, "named", split="train[:40%]")) == 2
    assert "tensorflow" not in sys.modules


def test_bytes_are_those_that_tfds_stores(data_dir):
    source = opened(data_dir, "named")
    raw = {key: tfds.decode.SkipDecoding() for key in ("image", "mask")}
    expected = tfds.builder_from_directory(data_dir / "named" / "1.0.0").as_data_source(
        split="train", decoders=raw
    )
    for i in range(5):
        sample = source[i]
        assert sample["image"] == expected[i]["image"]
        assert sample["map"].data == expected[i]["mask"]


def test_cityscapes_stores_other_numbers_than_are_trained(data_dir):
    source = opened(data_dir, "cityscapes")
    assert len(source.info.classes) == 19
    assert (source.info.classes[0], source.info.classes[13]) == ("road", "car")
    found, stored = maps_of(source)
    np.testing.assert_array_equal(found, np.array([255, 0, 13, 255])[stored])
    plain, _ = maps_of(opened(data_dir, "cityscapes", "classes=34"))
    np.testing.assert_array_equal(plain, np.array([0, 7, 26, 3])[stored])
    with pytest.raises(ValueError, match="reduce_zero=1 would shift them; leave it out"):
        opened(data_dir, "cityscapes", "reduce_zero=1")


def test_a_label_or_a_label_map(data_dir):
    labels = opened(data_dir, "oxford_iiit_pet")
    assert labels.info.classes == ("cat", "dog") and labels.info.fields == {"image", "label"}
    assert sorted(labels[i]["label"] for i in range(5)) == [0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"reads map, .* only image, label.*"):
        next(train_batches(labels, kinds=KINDS, batch_size=5, num_threads=0))
    known = opened(data_dir, "oxford_iiit_pet", "map=segmentation_mask")
    assert known.info.classes == ("pet", "background", "border")
    asked = opened(data_dir, "oxford_iiit_pet", "reduce_zero=1&classes=3")
    assert asked.info.classes == ("0", "1", "2") and asked.info.fields == {"image", "map"}
    for source in (known, asked):
        found, stored = maps_of(source)
        np.testing.assert_array_equal(found, np.minimum(stored, 2))
    fingerprints = {source.info.fingerprint for source in (labels, known, asked)}
    assert len(fingerprints) == 3


def test_numbers_in_the_red_channel(data_dir):
    source = opened(data_dir, "scene_parse150")
    assert len(source.info.classes) == 100
    found, stored = maps_of(source)
    np.testing.assert_array_equal(found, np.where(stored == 0, 255, stored.astype(int) - 1))
    green, _ = maps_of(opened(data_dir, "scene_parse150", "channel=green&classes=201"))
    assert (green == 200).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nameless", "map=mask", r"does not say which classes its label map 'mask' has: .*=150"),
        (
            "nameless",
            "classes=4",
            r"By their names mask, old_mask may be it\. Say which with \?map",
        ),
        ("nameless", "map=msk", "did you mean 'mask'"),
        ("nameless", "map=mask&image=mask&classes=4", "Unknown feature of images of nameless"),
        ("nameless", "map=mask&classes=/nowhere", "'/nowhere' does not exist: say how many"),
        ("nameless", "map=image&classes=4", r"'image' cannot be read.*RGB.*\?channel=red"),
        ("named", "channel=rot", "Unknown channel 'rot'.*red, green, blue"),
        ("named", "reduce_zero=x", "is not a number"),
        ("oxford_iiit_pet", "label=label&classes=3", "has the classes of one of them: leave label"),
    ],
)
def test_mistakes_are_named(data_dir, name, options, message):
    with pytest.raises(ValueError, match=message):
        opened(data_dir, name, options)


def test_a_number_beyond_the_classes_is_named_when_it_is_read(data_dir):
    source = opened(data_dir, "nameless", "map=mask&classes=3")
    with pytest.raises(ValueError, match="has the number 3, and there are 3 classes, stored as 0"):
        maps_of(source)


def test_which_column_is_which():
    assert choose_map(["image_left", "segmentation_label", "instance_id"], "", "x") == (
        "segmentation_label"
    )
    assert choose_map(["pixel_values", "label"], "", "x") == "label"
    assert choose_map(["a", "disparity_map"], "disparity_map", "x") == "disparity_map"
    assert choose_image(["annotation", "instances", "photo", "colour_mask"], "annotation") == (
        "instances"
    )
    assert choose_image(["mask"], "mask") == ""
    for images in (["image", "depth"], ["image", "color_mask"], []):
        with pytest.raises(ValueError, match="By their names none is"):
            choose_map(images, "", "x")


def test_class_names_are_counted_or_read(tmp_path):
    assert class_names("3", "") == ("0", "1", "2")
    (tmp_path / "names").write_text("wall\n\n sky \n")
    assert class_names(str(tmp_path / "names"), "") == ("wall", "sky")


def write_folder(root, names: tuple[str, ...], count: int = 3) -> str:
    for i in range(count):
        for half, array in (("images", picture(i)), ("labels", numbers(i))):
            path = root / half / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(array))
    (root / "classes.txt").write_text("\n".join(names))
    return f"maps://{root}"


def test_maps_of_a_mixture_have_its_classes(data_dir, tmp_path):
    others = write_folder(tmp_path, ("tree", "lamp", "void", "sky"))
    tfds_uri = f"tfds://{data_dir}/named/1.0.0"
    mixture = open_source(f"0.5*{tfds_uri} + 0.5*{others}", "train")
    assert mixture.info.classes == ("void", "wall", "sky", "tree", "lamp")
    assert mixture.info.fields == {"image", "map"} and len(mixture) == 10
    found, stored = maps_of(mixture)
    np.testing.assert_array_equal(found[:5], stored[:5])
    np.testing.assert_array_equal(found[5:], np.array([3, 4, 0, 2])[stored[5:]])
    zero = Mixture([opened(data_dir, "oxford_iiit_pet", "map=segmentation_mask"),
                    opened(data_dir, "scene_parse150")], (1, 1))  # fmt: skip
    found, stored = maps_of(zero)  # what says no class says none in the mixture too
    expected = np.where(stored[5:] == 0, 255, stored[5:].astype(int) + 2)
    np.testing.assert_array_equal(found[5:], expected)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    features = {
        "pixel_values": datasets.Image(),
        "annotation": datasets.Image(),
        "colour": datasets.Image(),
        "text": datasets.Value("string"),
    }
    rows = {
        "pixel_values": [{"bytes": png(picture(i)), "path": None} for i in range(5)],
        "annotation": [{"bytes": png(numbers(i), PALETTE), "path": None} for i in range(5)],
        "colour": [{"bytes": png(picture(i)), "path": None} for i in range(5)],
        "text": ["x"] * 5,
    }
    folder = tmp_path_factory.mktemp("hf")

    def save(name, features, rows):
        data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        datasets.DatasetDict({"train": data}).save_to_disk(folder / name)

    save("plain", features, rows)
    scene = {"scene": datasets.ClassLabel(names=["attic", "beach"])}
    save("both", features | scene, rows | {"scene": [i % 2 for i in range(5)]})
    missing = rows | {"annotation": [*rows["annotation"][:4], None]}
    save("missing", features, missing)
    return folder


def test_hugging_face_maps(saved):
    source = open_source(f"hf://{saved}/plain?classes=4", "train")
    assert source.info.classes == ("0", "1", "2", "3")
    assert source.info.fields == {"image", "map"} and source[2]["image"] == png(picture(2))
    found, stored = maps_of(source)
    np.testing.assert_array_equal(found, stored)
    np.testing.assert_array_equal(found[3], numbers(3))
    reduced = open_source(f"hf://{saved}/plain?classes=3&reduce_zero=1&map=annotation", "train")
    np.testing.assert_array_equal(maps_of(reduced)[0], np.array([255, 0, 1, 2])[stored])
    part = open_source(f"hf://{saved}/plain?classes=4", "train[:60%]")
    assert len(part) == 3 and part.info.classes == source.info.classes


def test_hugging_face_label_or_map(saved):
    labels = open_source(f"hf://{saved}/both", "train")
    assert labels.info.classes == ("attic", "beach") and labels[1]["label"] == 1
    maps = open_source(f"hf://{saved}/both?map=annotation&classes=4", "train")
    assert maps.info.fields == {"image", "map"}
    np.testing.assert_array_equal(maps_of(maps)[0][1], numbers(1))


def test_a_row_without_its_map_is_a_bad_image(saved):
    source = open_source(f"hf://{saved}/missing?classes=4", "train")
    options: dict[str, Any] = dict(kinds=KINDS, batch_size=5, num_threads=0)
    (batch,) = eval_batches(source, on_bad_image="skip", **options)
    assert batch["mask"].tolist() == [1, 1, 1, 1, 0] and (batch["map"][4] == 255).all()
    with pytest.raises(ValueError, match="row 4': the row has no label map"):
        list(eval_batches(source, **options))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("plain", "does not say which classes its label map 'annotation' has: add"),
        ("both?label=scene&map=annotation", "has the classes of one of them"),
        ("plain?map=anotation", "did you mean 'annotation'"),
        ("plain?map=text&classes=4", "Unknown label map .* Choose from: pixel_values, annotation"),
    ],
)
def test_hugging_face_mistakes(saved, where, message):
    with pytest.raises(ValueError, match=message):
        open_source(f"hf://{saved}/{where}", "train")
