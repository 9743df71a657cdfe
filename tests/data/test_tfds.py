import hashlib
import io
import json
import pathlib
import re
import shutil
import sys
import warnings

import cv2
import numpy as np
import pytest

from tests.data.pictures import encoded, noise, train_batches, write_tar
from vitjax.data import BadImage, Source, open_source
from vitjax.data.clips import Views
from vitjax.data.codecs.image import decode
from vitjax.data.kinds import Label
from vitjax.data.pipeline import eval_batches
from vitjax.data.prepare.tfrecord import prepare
from vitjax.data.sources.records import parse_example, read_tfrecords

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tfds = pytest.importorskip("tensorflow_datasets")
crc32c = pytest.importorskip("google_crc32c")


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Pictures of three kinds, some big, some old."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features
        return tfds.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "image": features.Image(shape=(None, None, 3)),
                    "label": features.ClassLabel(names=["cat", "dog", "owl"]),
                    "tags": features.Sequence(features.ClassLabel(names=["big", "old"])),
                    "file_name": features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(40), "validation": self._generate_examples(9)}

    def _generate_examples(self, count):
        for i in range(count):
            jpeg = cv2.imencode(".jpg", noise(20 + i, 30, i))[1].tobytes()
            yield (
                i,
                {
                    "image": io.BytesIO(jpeg),
                    "label": i % 3,
                    "tags": list(range(i % 3)),
                    "file_name": f"{i}.jpg",
                },
            )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder = Tiny(data_dir=folder, file_format="array_record")
        tfds.disable_progress_bar()
        builder.download_and_prepare()
    return folder


@pytest.fixture
def copy(data_dir, tmp_path):
    shutil.copytree(data_dir / "tiny", tmp_path / "tiny")
    return tmp_path


def uri(folder, options=""):
    return f"tfds://tiny?data_dir={folder}{options}"


def test_gives_what_tfds_gives_undecoded(data_dir):
    source = open_source(uri(data_dir), "train[:60%]")
    expected = tfds.data_source(
        "tiny", split="train[:60%]", data_dir=data_dir,
        decoders={"image": tfds.decode.SkipDecoding()},
    )  # fmt: skip
    assert isinstance(source, Source)
    assert len(source) == len(expected) == 24
    assert source.info.classes == ("cat", "dog", "owl")
    for i in range(24):
        example = source[i]
        assert example["image"] == expected[i]["image"]
        assert example["label"] == expected[i]["label"]
    assert "tensorflow" not in sys.modules


def test_by_folder_version_and_split_option(data_dir):
    by_name = open_source(uri(data_dir), "validation")
    for other in (
        open_source(f"tfds://{data_dir}/tiny/1.0.0", "validation"),
        open_source(f"tfds://tiny:1.0.0?data_dir={data_dir}&split=validation", "train"),
    ):
        assert other.info.fingerprint == by_name.info.fingerprint
        assert len(other) == 9
    assert open_source(uri(data_dir), "validation[:5]").info.fingerprint != by_name.info.fingerprint


def test_several_labels_an_image(data_dir):
    source = open_source(uri(data_dir, "&label=tags"), "train")
    assert source.info.multi_label and source.info.classes == ("big", "old")
    (batch,) = (next(train_batches(source, batch_size=40, image_size=8, num_threads=0)),)
    assert batch["label"].shape == (40, 2)
    assert batch["label"].sum(0).tolist() == [26, 13]


def test_records_are_parsed_like_tfds_does():
    features = tfds.features.FeaturesDict(
        {
            "a": tfds.features.Tensor(shape=(3,), dtype=np.int64),
            "b": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "c": tfds.features.Text(),
        }
    )
    value = {"a": [-1, 300, 2**40], "b": [0.5, -2.0], "c": "grün"}
    data = features.serialize_example(features.encode_example(value))
    parsed = parse_example(data, ("a", "b", "c", "nothing"))
    assert parsed.keys() == {"a", "b", "c"}
    np.testing.assert_array_equal(parsed["a"], value["a"])
    np.testing.assert_array_equal(parsed["b"], value["b"])
    assert parsed["c"] == ["grün".encode()]
    for end in range(1, len(data)):
        try:
            parse_example(data[:end], ("a", "b", "c"))
        except ValueError:
            continue
        pytest.fail(f"{end} of {len(data)} bytes passed")


@pytest.mark.parametrize(
    ("where", "split", "message"),
    [
        ("tfds://tyni?data_dir={}", "train", "did you mean 'tiny'.*file_format=array_record"),
        ("tfds://tiny?data_dir={}", "trian", "did you mean 'train'"),
        ("tfds://tiny?data_dir={}", "test", "Choose from: train, validation"),
        ("tfds://tiny?data_dir={}", "train[:x]", "does not parse"),
        ("tfds://tiny?data_dir={}", "train[:0%]", "is empty"),
        ("tfds://tiny?data_dir={}&label=lable", "train", "did you mean .label"),
        ("tfds://tiny?data_dir={}&label=file_name", "train", "no class or list of classes"),
        ("tfds://tiny?dta_dir={}", "train", "did you mean 'data_dir'"),
        ("tfds://{}", "train", "has no dataset_info.json"),
    ],
)
def test_mistakes_are_named(data_dir, where, split, message):
    with pytest.raises(ValueError, match=message):
        open_source(where.format(data_dir), split)


def shards(folder):
    """List the shards: that of "train", then that of "validation"."""
    return sorted((folder / "tiny" / "1.0.0").glob("tiny-*"))


def test_shards_are_checked_before_anything_is_read(copy):
    first, second = shards(copy)
    data = first.read_bytes()
    first.unlink()
    with pytest.raises(ValueError, match=f"{first.name}.* is missing"):
        open_source(uri(copy), "train")
    first.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{first.name}.* is truncated or damaged"):
        open_source(uri(copy), "train")
    first.write_bytes(data)
    info = copy / "tiny" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"9"', '"7"'))
    with pytest.raises(ValueError, match=f"{second.name}.* holds 9 records, .* says 7"):
        open_source(uri(copy), "validation")


def test_a_damaged_record_is_a_bad_image(copy):
    path = shards(copy)[1]
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xd8\xff") + 300
    data[at] ^= 1
    path.write_bytes(data)
    source = open_source(uri(copy), "validation")
    bad = []
    for i in range(9):
        try:
            decode(source[i]["image"])
        except BadImage as error:
            bad.append(str(error))
    assert len(bad) == 1
    assert "tiny/1.0.0 validation record" in bad[0]


def framed(data: bytes) -> bytes:
    """A record of a TFRecord file."""

    def masked(part):
        crc = crc32c.value(part)
        return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")

    size = len(data).to_bytes(8, "little")
    return size + masked(size) + data + masked(data)


@pytest.fixture
def tfrecords(copy):
    """The same data set as TFDS writes it by default."""
    from array_record.python.array_record_module import ArrayRecordReader

    folder = copy / "tiny" / "1.0.0"
    for path in folder.glob("*.array_record-*"):
        reader = ArrayRecordReader(str(path))
        records = reader.read(0, reader.num_records())
        reader.close()
        target = path.with_name(path.name.replace("array_record", "tfrecord"))
        target.write_bytes(b"".join(framed(bytes(r)) for r in records))
        path.unlink()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    return copy


def test_tfrecords_are_converted_once(tfrecords, data_dir, tmp_path):
    with pytest.raises(ValueError, match="vitjax data prepare"):
        open_source(uri(tfrecords), "train")
    to, lines = tmp_path / "new", []
    result = prepare("tiny", str(to), str(tfrecords), lines.append)
    assert (result["records"], result["shards"], result["found"], len(lines)) == (49, 2, 0, 2)
    here, there = (open_source(uri(folder), "train") for folder in (to, data_dir))
    assert here.info.fingerprint == there.info.fingerprint
    assert all(here[i] == there[i] for i in range(40))
    assert prepare("tiny", str(to), str(tfrecords), lines.append)["found"] == 2
    assert len(lines) == 2
    with pytest.raises(ValueError, match="read as it is"):
        prepare("tiny", str(tmp_path / "again"), str(to))


def test_conversion_goes_on_and_repairs(tfrecords, tmp_path):
    to, lines = tmp_path / "new", []
    source = shards(tfrecords)[1]
    whole = source.read_bytes()
    source.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"{source.name}.* is truncated: its record at byte"):
        prepare("tiny", str(to), str(tfrecords))
    damaged = bytearray(whole)
    damaged[50] ^= 1
    source.write_bytes(damaged)
    with pytest.raises(ValueError, match="has another checksum"):
        prepare("tiny", str(to), str(tfrecords))
    assert not list(to.rglob("*.tmp")) and not list(to.rglob("dataset_info.json"))
    source.write_bytes(whole)
    result = prepare("tiny", str(to), str(tfrecords), lines.append)
    assert (result["found"], len(lines)) == (1, 1)
    done = shards(to)[0]
    flipped = bytearray(done.read_bytes())
    flipped[40] ^= 1
    done.write_bytes(flipped)
    assert prepare("tiny", str(to), str(tfrecords))["found"] == 1
    assert len(open_source(uri(to), "train")) == 40


def test_a_full_disk_is_named_before_it_is_full(tfrecords, tmp_path, monkeypatch):
    monkeypatch.setattr("vitjax.data.prepare.tfrecord._free", lambda folder: 1000)
    with pytest.raises(ValueError, match=r"has 1,000 bytes free, and about [\d,]+ are needed"):
        prepare("tiny", str(tmp_path / "new"), str(tfrecords))


def test_a_disk_that_fills_up_keeps_finished_shards(tfrecords, tmp_path, monkeypatch):
    import vitjax.data.prepare.tfrecord as module

    reframe, calls = module._reframe, []

    def fails_once(shard, target):
        calls.append(shard)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return reframe(shard, target)

    monkeypatch.setattr(module, "_reframe", fails_once)
    with pytest.raises(ValueError, match=r"No space left .* same command again"):
        prepare("tiny", str(tmp_path / "new"), str(tfrecords))
    assert prepare("tiny", str(tmp_path / "new"), str(tfrecords))["found"] == 1


def test_tfrecord_framing(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(framed(b"one") + framed(b"") + framed(b"three"))
    with open(path, "rb") as file:
        assert list(read_tfrecords(file, "x")) == [b"one", b"", b"three"]
    path.write_bytes(b"rubbish" * 10)
    with open(path, "rb") as file, pytest.raises(ValueError, match="no record begins there"):
        list(read_tfrecords(file, "x"))


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """ImageNet in small: five images of each of three synsets, and fifteen to validate."""
    from vitjax.data.prepare import imagenet

    folder = tmp_path / "archives"
    folder.mkdir()
    synsets = ("n01443537", "n01440764", "n15075141")
    parts = [
        (f"{s}.tar", write_tar(tmp_path / "part.tar", [
            (f"{s}_{i}.JPEG", encoded(".jpg", noise(20, 30, 10 * n + i))) for i in range(5)
        ]).read_bytes())
        for n, s in enumerate(synsets)
    ]  # fmt: skip
    numbers = range(1, 16)
    images = [
        (f"ILSVRC2012_val_{i:08d}.JPEG", encoded(".jpg", noise(20, 30, 100 + i))) for i in numbers
    ]
    small = {}
    for split, files, shards in (("train", parts, 4), ("validation", images, 2)):
        archive = imagenet.ARCHIVES[split]
        data = write_tar(folder / archive.file, files).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        small[split] = archive._replace(size=len(data), sha256=digest, images=15, shards=shards)
    monkeypatch.setattr(imagenet, "ARCHIVES", small)
    return folder


def test_imagenet_from_its_archives(archives, tmp_path, capsys):
    from vitjax.cli import main

    to = tmp_path / "new"
    arguments = ["data", "prepare", "imagenet2012", "--archives", str(archives), "--to", str(to)]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["records"], result["shards"], result["found"]) == (30, 6, 0)
    raw = tfds.decode.SkipDecoding()
    for split in ("train", "validation"):
        ours = open_source(f"tfds://imagenet2012?data_dir={to}", split)
        theirs = tfds.data_source("imagenet2012", split=split, data_dir=to, decoders={"image": raw})
        assert len(ours) == len(theirs) == 15
        assert (len(ours.info.classes), ours.info.classes[:2]) == (1000, ("n01440764", "n01443537"))
        for i in range(15):
            assert ours[i] == {"image": theirs[i]["image"], "label": theirs[i]["label"]}
            name = theirs[i]["file_name"].decode()
            at = int(name.removesuffix(".JPEG").rpartition("_")[2])
            if split == "train":
                n = ("n01443537", "n01440764", "n15075141").index(name.partition("_")[0])
                assert (ours[i]["label"], at) == ((1, 0, 999)[n], at)
                at = 10 * n + at - 100
            elif at == 1:
                assert ours.info.classes[ours[i]["label"]] == "n01751748"
            assert ours[i]["image"] == encoded(".jpg", noise(20, 30, 100 + at))
    assert "tensorflow" not in sys.modules

    # A shard that is gone or was changed is written again, the others are not.
    shards = sorted((to / "imagenet2012").rglob("*.array_record-*"))
    shards[0].unlink()
    shards[5].write_bytes(shards[5].read_bytes()[:-1])
    assert main(arguments) == 0
    assert re.search(r"found +4", capsys.readouterr().out)


def test_wrong_archives_of_imagenet(archives, tmp_path):
    from vitjax.data.prepare import imagenet
    from vitjax.data.prepare.imagenet import prepare_imagenet

    def fails(message):
        with pytest.raises(ValueError, match=message):
            prepare_imagenet(str(archives), str(tmp_path / "new"))

    archive = archives / "ILSVRC2012_img_val.tar"
    data = archive.read_bytes()
    archive.write_bytes(data[:-1] + b"x")
    fails(r"img_val\.tar' is damaged: its SHA-256 is")
    archive.write_bytes(data[:-1])
    fails(r"img_val\.tar' has [\d,]+ bytes and not")
    archive.unlink()
    fails(r"has no ILSVRC2012_img_val\.tar\. Both archives of ILSVRC 2012 are needed")
    archive.write_bytes(data)
    imagenet.ARCHIVES["train"] = imagenet.ARCHIVES["train"]._replace(images=16)
    fails("img_train.tar holds 15 images and not 16")
    assert not list((tmp_path / "new").rglob("*.array_record-*"))


def test_the_command(tfrecords, tmp_path, capsys):
    from vitjax.cli import main

    arguments = ["data", "prepare", "tiny", "--to", str(tmp_path / "new"), "--data-dir"]
    assert main([*arguments, str(tfrecords), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert pathlib.Path(result["folder"], "dataset_info.json").exists()


class Films(tfds.core.GeneratorBasedBuilder):
    """Videos of two kinds, of which film i has i + 2 frames, the f-th gray of 9 · f."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features
        return tfds.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict({
                "video": features.Sequence(features.Image(shape=(6, 8, 3))),
                "label": features.ClassLabel(names=["still", "fast"]),
            }),
            supervised_keys=("video", "label"),
        )  # fmt: skip

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            grays = (np.full((6, 8, 3), 9 * f, np.uint8) for f in range(i + 2))
            frames = [io.BytesIO(cv2.imencode(".png", gray)[1].tobytes()) for gray in grays]
            yield i, {"video": frames, "label": i % 2}


def test_videos_are_clips(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Films(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = open_source(f"tfds://films?data_dir={tmp_path}", "train")
    assert source.info.fields == {"clip", "label"} and source.info.classes == ("still", "fast")
    lengths = sorted((len(source[i]["clip"]), source[i]["label"]) for i in range(3))
    assert lengths == [(2, 0), (3, 1), (4, 0)]
    kinds = {"clip": Views((6, 8), frames=2), "label": Label(2)}
    (batch,) = eval_batches(source, kinds=kinds, batch_size=3, crop=0.0)
    seen = {len(source[i]["clip"]): batch["clip"][i, 0, :, 0, 0, 0].tolist() for i in range(3)}
    assert seen == {2: [0, 9], 3: [9, 18], 4: [9, 18]}
