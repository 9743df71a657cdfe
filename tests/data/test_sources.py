"""In-memory arrays, synthetic images, mixtures, tar files, Hugging Face data sets."""

import collections
import itertools
import sys

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
from vitjax.data import BadImage, DataInfo, Source, open_source
from vitjax.data.codecs.image import decode
from vitjax.data.sources import tars
from vitjax.data.sources.arrays import Arrays
from vitjax.data.sources.mixture import Mixture


def first_batch(source, **options):
    options = {"batch_size": len(source), "image_size": 8, "num_threads": 0} | options
    return next(train_batches(source, **options))


def test_arrays():
    images = np.stack([noise(8, 8, i) for i in range(5)])
    source = Arrays(images, [0, 1, 2, 1, 0])
    assert isinstance(source, Source)
    assert source.info.classes == ("0", "1", "2")
    assert source.info.fingerprint != Arrays(images, [0, 1, 2, 1, 1]).info.fingerprint
    (batch,) = eval_batches(source, batch_size=5, image_size=8, num_threads=0)
    np.testing.assert_array_equal(batch["image"], images)
    assert batch["label"].tolist() == [0, 1, 2, 1, 0]


def test_arrays_of_files_without_labels_and_with_several():
    files = [encoded(".png", noise(9, 7, i)) for i in range(4)]
    unlabelled = Arrays(files)
    assert unlabelled.info.classes == ()
    with pytest.raises(ValueError, match="The task reads label, and the data has only image"):
        first_batch(unlabelled)
    with pytest.raises(
        ValueError, match="Image 'array 2': it has no label, and every image needs a class"
    ):
        first_batch(Arrays(files, [0, 1, -1, 1]))
    weights = np.array([[0.5, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0.25]])
    source = Arrays(files, weights)
    assert source.info.multi_label
    batch = first_batch(source)
    assert batch["label"].dtype == np.float32
    assert sorted(batch["label"].tolist()) == sorted(weights.tolist())


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match="2 images have 3 labels"):
        Arrays([noise(2, 2)] * 2, [0, 1, 2])
    with pytest.raises(ValueError, match="Label 5 is out of range: there are 2 classes, 0 to 1"):
        Arrays([noise(2, 2)] * 2, [0, 5], ["a", "b"])


def test_a_label_out_of_range_is_named():
    source = Arrays([noise(4, 4)] * 4, [0, 1, 2, 3])
    source.info = source.info._replace(classes=("0", "1", "2"))
    with pytest.raises(ValueError, match="'array 3': its label is 3; classes are 0 to 2"):
        first_batch(source)


def test_synthetic():
    source = open_source("synthetic://?size=100&classes=7&height=20&width=30&jpeg=1", "train")
    assert (len(source), len(source.info.classes)) == (100, 7)
    assert decode(source[99]["image"]).shape == (20, 30, 3)
    assert len(open_source("synthetic://?size=100", "test")) == 10
    assert len(open_source("synthetic://?size=100", "train[:25%]")) == 25
    with pytest.raises(ValueError, match=r"size='x' .* is not a number"):
        open_source("synthetic://?size=x", "train")


class Named(Numbered):
    """Images of which number i is of class i % 2."""

    def __init__(self, size, names):
        super().__init__(size)
        self._size, self.info = size, DataInfo(names, names[0] * 16)

    def __len__(self):
        return self._size

    def __getitem__(self, i):
        return {"image": noise(4, 4, i), "label": i % 2}

    def example_name(self, i):
        return f"{self.info.classes[0]} {i}"


@pytest.mark.parametrize("weights", [(1, 1), (0.75, 0.25), (0.9, 0.1), (1, 3)])
def test_a_mixture_has_its_proportions_and_everything_of_each(weights):
    mixture = Mixture([Named(40, ("a", "b")), Named(11, ("c", "d"))], weights)
    names = [mixture.example_name(i) for i in range(len(mixture))]
    share = np.mean([name.startswith("a") for name in names])
    assert abs(share - weights[0] / sum(weights)) <= 1 / len(mixture)
    counts = collections.Counter(names)
    assert len(counts) == 51
    for letter in "ac":
        own = [n for name, n in counts.items() if name.startswith(letter)]
        assert max(own) - min(own) <= 1
    assert mixture.info.classes == ("a", "b", "c", "d")
    labels = [mixture[i]["label"] for i in range(len(mixture))]
    assert all((label >= 2) == name.startswith("c") for label, name in zip(labels, names))


def test_a_mixture_goes_on_in_the_middle(tmp_path):
    root = write_folders(tmp_path / "p", {"cat": 10, "dog": 5})
    uri = f"0.75*folder://{root} + .25*synthetic://?size=8&classes=2"
    source = open_source(uri, "train")
    assert source.info.classes == ("cat", "dog", "0", "1")
    options = {"batch_size": 4, "image_size": 8, "augment": "crop_flip", "num_threads": 0}
    whole = list(itertools.islice(train_batches(source, **options), 6))
    late = next(train_batches(source, start_step=4, **options))
    np.testing.assert_array_equal(late["image"], whole[4]["image"])
    with pytest.raises(ValueError, match="'folder:///b'; write a positive weight for each"):
        open_source("0.5*folder:///a + folder:///b", "train")


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for shard in range(2):
        samples = []
        for i in range(5):
            samples.append((f"{shard}/{i:03d}.jpg", encoded(".jpg", noise(9, 9, i))))
            label = b"%d" % i if shard else b'{"label": %d}' % i
            samples.append((f"{shard}/{i:03d}.{'cls' if shard else 'json'}", label))
        write_tar(tmp_path / f"train-{shard:03d}.tar", samples)
    return tmp_path


def test_tars(shards):
    source = open_source(f"tar://{shards}/{{split}}-{{000..001}}.tar", "train")
    assert (len(source), len(source.info.classes)) == (10, 5)
    for i in range(10):
        assert source[i] == {"image": encoded(".jpg", noise(9, 9, i % 5)), "label": i % 5}
    for other in (f"tar://{shards}", f"tar://{shards}/train-*.tar"):
        assert open_source(other, "train").info.fingerprint == source.info.fingerprint
    assert len(list((shards / "cache" / "vitjax").glob("tar-*.npy"))) == 2
    assert len(open_source(f"tar://{shards}", "train[:20%]")) == 2


def test_tars_of_a_remote_store(shards):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards.glob("*.tar"):
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    source = open_source("tar://memory://bucket/train-*.tar?classes=6", "train")
    assert (len(source), len(source.info.classes)) == (10, 6)
    assert source[7] == {"image": encoded(".jpg", noise(9, 9, 2)), "label": 2}


def test_a_folder_of_a_remote_store(tmp_path):
    import fsspec

    root = write_folders(tmp_path, {"train/a": 3, "train/b": 2, "test/a": 1, "test/b": 1})
    memory = fsspec.filesystem("memory")
    memory.put(root, "/photos", recursive=True)
    for split in ("train", "test[:50%]"):
        here, there = (open_source(f"folder://{at}", split) for at in (root, "memory://photos/"))
        assert there.info.fingerprint == here.info.fingerprint
        assert [there[i] for i in range(len(there))] == [here[i] for i in range(len(here))]
    memory.rm("/photos/train/b/001.jpg")
    source = open_source("folder://memory://photos", "train")
    memory.rm("/photos/train/b/000.png")
    with pytest.raises(BadImage, match=r"'train/b/000\.png'"):
        source[3]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("folder://memory://nothing", "'memory://nothing' does not exist, or may not be read"),
        ("folder://nope://x", "fsspec reads no nope://"),
        ("tfds://x?data_dir=memory://b", "from disks and gs://, not from 'memory://b': copy it"),
        ("gs://bucket/photos", "folder://gs://bucket/photos, or tar://gs://bucket/photos/train-"),
    ],
)
def test_wrong_remote_paths(uri, message):
    with pytest.raises(ValueError, match=message):
        open_source(uri, "train")


def test_a_store_whose_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"through fsspec.*: pip install fsspec gcsfs"):
        open_source("tar://gs://bucket/train-*.tar", "train")


def test_wrong_tars(shards):
    with pytest.raises(ValueError, match=r"test-000\.tar' is missing"):
        open_source(f"tar://{shards}/{{split}}-{{000..001}}.tar", "test")
    with pytest.raises(ValueError, match="There is no tar file"):
        open_source(f"tar://{shards}/nothing-*.tar", "train")
    with pytest.raises(ValueError, match="has label 3, and there are 3 classes, 0 to 2"):
        open_source(f"tar://{shards}?classes=3", "train")
    empty = write_tar(shards / "empty.tar", [("readme.txt", b"hello")])
    with pytest.raises(ValueError, match="hold no samples; each needs an image"):
        open_source(f"tar://{empty}", "train")
    (shards / "bad.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ValueError, match=r"bad\.tar' is damaged"):
        open_source(f"tar://{shards}/bad.tar", "train")


def tar_of(folder, *files):
    write_tar(folder / "odd.tar", [(name, data) for name, data in files])
    return f"tar://{folder}/odd.tar"


@pytest.mark.parametrize("reverse", [False, True])
def test_the_image_of_a_tar_sample_is_the_one_with_a_plain_extension(shards, reverse):
    picture, mask = encoded(".png", noise(9, 9)), encoded(".png", noise(9, 9, 1))
    files = [
        ("a/0001.png", picture), ("a/0001.mask.png", mask), ("a/0001.depth.TIFF", mask),
        ("a/0001.cls", b"1"), ("a/0001.txt.json", b'{"label": 7}'), ("b/0001.PNG", mask),
        ("b/0001.cls", b"0\n"), ("b/0001.json", b'{"label": 0}'), ("c/0009.json", b'{"label": 3}'),
    ]  # fmt: skip
    source = open_source(tar_of(shards, *(files[::-1] if reverse else files)), "train")
    samples = sorted((source[i] for i in range(len(source))), key=lambda s: -s["label"])
    assert samples == [{"image": picture, "label": 1}, {"image": mask, "label": 0}]
    assert source.info.classes == ("0", "1")


IMAGE = encoded(".png", noise(5, 5))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("1.png", IMAGE), ("1.JPG", IMAGE)], r"two images for one sample, '1.png' and '1.JPG'"),
        ([("1.png", IMAGE), ("1.png", IMAGE)], r"two images .*'1.png' and '1.png'; keep one"),
        ([("1.png", IMAGE), ("1.cls", b"1"), ("1.json", b'{"label": 2}')], "two labels for one"),
        ([("1.png", IMAGE), ("1.cls", b"1"), ("1.cls", b"2")], "two labels .*'1.cls' and '1.cls'"),
        ([("1.png", IMAGE), ("1.cls", b"cat")], "'1.cls' in .* has label 'cat'; a label is the nu"),
        ([("1.png", IMAGE), ("1.json", b'{"label": 2.5}')], "'1.json' in .* has label 2.5"),
        ([("1.png", IMAGE), ("1.json", b'{"label": true}')], "'1.json' in .* has label True"),
        ([("1.png", IMAGE), ("1.cls", b"-3")], "'1.cls' in .* has label '-3'"),
        ([("1.png", IMAGE), ("1.json", b"{")], "'1.json' in .* is no JSON"),
        ([("n01.0026.jpg", IMAGE), ("n01.cls", b"1")], "'n01.0026.jpg' is its field '0026.jpg'"),
        ([("1.mask.png", IMAGE)], "no image for its sample '1': '1.mask.png' is its field 'mask"),
    ],
)
def test_tar_samples_that_are_not_clear_are_refused(shards, files, message):
    with pytest.raises(ValueError, match=message):
        open_source(tar_of(shards, *files), "train")


@pytest.mark.parametrize(
    "other",
    [
        [("1.json", b'{"caption": "a cat", "status": "success"}'), ("1.txt", b"a cat")],
        [("1.json", b'{"label": null}')],
        [("1.json", b"[1, 2]")],
        [("1.cls", b"-1")],
        [],
    ],
)
def test_tars_without_labels_are_refused_unless_none_is_asked_for(shards, other):
    labelled = [("0.png", IMAGE), ("0.cls", b"3")]
    for files, count in ((other, "1 of the 1"), (other + labelled, "1 of the 2")):
        uri = tar_of(shards, ("1.png", IMAGE), *files)
        message = f"{count} samples have no label, the first is .*odd.tar at byte 512.*classes=0"
        for options in ("", "?classes=5"):
            with pytest.raises(ValueError, match=message):
                open_source(uri + options, "train")
        source = open_source(f"{uri}?classes=0", "train")
        assert source.info.fields == {"image"} and source.info.classes == ()
        assert source[0] == {"image": IMAGE}
        with pytest.raises(ValueError, match="The task reads label, and the data has only image"):
            next(train_batches(source, batch_size=1, image_size=8))


@pytest.mark.parametrize("label", [b'{"label": 2}', b'{"label": "2"}', b'{"label": 2.0}'])
def test_labels_in_json_may_be_written_in_several_ways(shards, label):
    source = open_source(tar_of(shards, ("1.png", IMAGE), ("1.json", label)), "train")
    assert source[0]["label"] == 2


def test_an_index_of_older_rules_is_not_read(shards, monkeypatch):
    uri = tar_of(shards, ("1.png", IMAGE), ("1.cls", b"1"))
    monkeypatch.setattr(tars, "_RULES", tars._RULES - 1)
    monkeypatch.setattr(tars, "_scan", lambda *_: np.array([[0, 1, 1]]))
    assert open_source(uri, "train")[0]["image"] != IMAGE
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(shards / "cache"))
    assert open_source(uri, "train")[0]["image"] == IMAGE


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["a", "b", "c"])),
            "text": datasets.Value("string"),
        }
    )
    rows = {
        "picture": [{"bytes": encoded(".png", noise(6, 5, i)), "path": None} for i in range(7)],
        "kind": [i % 2 for i in range(7)],
        "tags": [list(range(i % 3)) for i in range(7)],
        "text": ["x"] * 7,
    }
    data = datasets.Dataset.from_dict(rows, features=features)
    folder = tmp_path_factory.mktemp("hf") / "saved"
    datasets.DatasetDict({"train": data, "validation": data.select(range(3))}).save_to_disk(folder)
    return str(folder)


def test_hugging_face_from_disk(saved):
    source = open_source(f"hf://{saved}", "train")
    assert isinstance(source, Source)
    assert (len(source), source.info.classes) == (7, ("cat", "dog"))
    assert source[3] == {"image": encoded(".png", noise(6, 5, 3)), "label": 1}
    assert len(open_source(f"hf://{saved}?split=validation", "train")) == 3
    assert open_source(f"hf://{saved}", "train").info.fingerprint == source.info.fingerprint
    several = open_source(f"hf://{saved}?label=tags", "train")
    assert several.info.multi_label
    assert first_batch(several)["label"].sum(0).tolist() == [4, 2, 0]


@pytest.mark.parametrize(
    ("options", "split", "message"),
    [
        ("", "validatoin", "did you mean 'validation'"),
        ("?label=knd", "train", "did you mean 'kind'"),
        ("?label=text", "train", "no class or list of classes"),
        ("x", "train", "does not exist; check the path"),
    ],
)
def test_hugging_face_mistakes(saved, options, split, message):
    with pytest.raises(ValueError, match=message):
        open_source(f"hf://{saved}{options}", split)
