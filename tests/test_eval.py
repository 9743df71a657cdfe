"""`vitjax eval` against cases computed by hand, scikit-learn, training's metrics and `predict`."""

import csv
import functools
import io
import json
import pathlib
import types
import warnings
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

import train
from tests.data.test_detection_folders import content, write
from tests.golden import load_golden
from tests.golden.compare import FOLDER
from vitjax.abstract import abstract_init
from vitjax.cli import main
from vitjax.data import open_source
from vitjax.data.benchmarks import (
    ALEXNET_ERRORS,
    IMAGENET_A,
    IMAGENET_R,
    corruption_errors,
    find_benchmark,
    imagenet_classes,
)
from vitjax.data.kinds import image_and_label
from vitjax.data.pipeline import eval_batches
from vitjax.data.source import DataInfo
from vitjax.models import create_model, model_options
from vitjax.runs import Trained, forward, open_trained
from vitjax.tasks import read_config, task_config, task_from_config
from vitjax.tasks.classification import classification
from vitjax.tasks.inspection import class_findings
from vitjax.tools import evaluate as tool
from vitjax.tools.calibration import calibration
from vitjax.train import config as configs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tfds = pytest.importorskip("tensorflow_datasets")


def run(capsys: pytest.CaptureFixture, *arguments: str) -> Any:
    capsys.readouterr()
    assert main(["eval", *arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)["evaluations"]


def table(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_calibration_by_hand() -> None:
    trust = np.array([0.0, 0.05, 0.25, 0.75, 0.75, 1.0])
    right = np.array([False, False, True, True, False, True])
    error, bins = calibration(trust, right, 4)  # (0, ¼] has three, (½, ¾] two, (¾, 1] one
    assert bins["images"].tolist() == [3, 0, 2, 1]
    np.testing.assert_allclose(bins["confidence"], [0.1, np.nan, 0.75, 1])
    np.testing.assert_allclose(bins["accuracy"], [1 / 3, np.nan, 0.5, 1])
    assert error == pytest.approx(3 / 6 * (1 / 3 - 0.1) + 2 / 6 * 0.25)
    with pytest.raises(ValueError, match="got 0 and 6"):
        calibration(trust, right, 0)


def rows_of(label: Any, first: list[int]) -> dict[str, np.ndarray]:
    top = np.stack([first, (np.array(first) + 1) % 4], axis=1)
    return {"label": np.array(label), "top": top, "share": np.full(top.shape, 0.25)}


def test_classes_by_hand() -> None:
    found = class_findings(rows_of([0, 0, 1, 2, 2], [0, 1, 1, 0, 2]), ("a", "b", "c", "d"))
    assert found.confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(found.classes["accuracy"], [0.5, 1, 0.5, np.nan])
    np.testing.assert_array_equal(found.classes["precision"], [0.5, 0.5, 1, np.nan])
    assert found.samples["correct"].tolist() == [True, False, True, False, True]
    assert found.samples["class_2"] == ["b", "c", "c", "b", "d"]


def test_an_image_of_several_classes_is_right_if_one_is_found() -> None:
    labels = [[True, True, False, False], [False, False, True, False], [False, True, False, True]]
    found = class_findings(rows_of(labels, [1, 0, 3]), ("a", "b", "c", "d"))
    assert found.samples["correct"].tolist() == [True, False, True]
    assert found.samples["label"] == ["a|b", "c", "b|d"]
    assert found.classes["images"].tolist() == [1, 2, 1, 1]
    assert found.classes["accuracy"].tolist() == [1, 1, 0, 1]
    assert found.confusion is None


def test_confusion_of_pixels_is_the_official_one() -> None:
    from tests.tasks.test_segmentation import Colours, segmentation

    data, _, _ = load_golden.load(FOLDER / "miou.npz")
    truth, names = data["in::gt"], tuple(map(str, range(len(data["ref::iou"]))))
    task = segmentation(Colours(), class_names=names, image_size=truth.shape[1:])
    extent = jnp.array([truth.shape[1:]] * 3)
    batch = {"map": jnp.asarray(truth, jnp.uint8), "map_extent": extent, "mask": jnp.ones(3)}
    logits = 9.0 * jax.nn.one_hot(jnp.asarray(data["in::pred"]), len(names))
    assert task.inspect
    sums, _ = jax.device_get(task.inspect({"logits": logits, "extent": extent}, batch))
    found = task.findings(sums, None)
    np.testing.assert_array_equal(found.confusion, data["ref::confusion"])
    iou = np.nan_to_num(found.classes["iou"], nan=-1)  # of a class that does not occur
    np.testing.assert_allclose(iou, data["ref::iou"], rtol=1e-12)
    again = task.measure({"logits": logits, "extent": extent}, batch)
    assert all(np.array_equal(sums[name], value) for name, value in again.items())


FLAGS = [
    "--config=digits", "--config.epochs=0", "--config.steps=3", "--config.eval_every=3",
    "--config.checkpoint_every=3", "--config.log_every=3", "--config.schedule.warmup_steps=0",
    "--config.model.width=16", "--config.model.depth=1", "--config.model.num_heads=1",
    "--config.evals.part=digits://?split=test[:97]",
]  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert train.main([*FLAGS, f"--workdir={folder}"]) == 0
    return folder


@pytest.mark.slow
def test_a_runs_own_evaluations(workdir: pathlib.Path, tmp_path: pathlib.Path, capsys) -> None:
    found = run(capsys, str(workdir), f"--out={tmp_path}", "--batch-size=61")
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for name in ("test", "part"):
        (row,) = (row for row in rows if row["split"] == name)
        for metric in ("top1", "top5", "loss", "images"):
            assert found[name][metric] == pytest.approx(row[metric], rel=1e-5)
        images = table(tmp_path / name / "images.csv")
        assert len({row["image"] for row in images}) == len(images) == row["images"]
        numbers = [[int(row[k]) for k in ("label", "class_1")] for row in images]
        expected = confusion_matrix(*zip(*numbers), labels=range(10))
        matrix = table(tmp_path / name / "confusion.csv")
        assert [[int(row[str(k)]) for k in range(10)] for row in matrix] == expected.tolist()
        right = [row["correct"] == "True" for row in images]
        assert np.mean(right) == pytest.approx(found[name]["top1"])
        error, _ = calibration(np.array([float(r["confidence"]) for r in images]), np.array(right))
        assert found[name]["ece"] == pytest.approx(error) and found[name]["bins"] == 15
        classes = table(tmp_path / name / "classes.csv")
        assert [float(row["accuracy"]) for row in classes] == pytest.approx(
            np.diag(expected) / expected.sum(axis=1)
        )
        for picture in ("confusion.png", "calibration.png"):
            assert cv2.imread(str(tmp_path / name / picture)) is not None
    assert main(["eval", str(workdir), "--data", "digits://?split=test[:97]"]) == 0
    out = capsys.readouterr().out
    assert f"{found['part']['top1']:.2%}" in out and "precision" in out


def photos(folder: pathlib.Path, classes: dict[str, list[int]]) -> pathlib.Path:
    source = open_source("digits://", "test")
    for name, numbers in classes.items():
        (folder / name).mkdir(parents=True)
        for i in numbers:
            cv2.imwrite(str(folder / name / f"{i}.png"), source[i]["image"][..., ::-1])
    return folder


@pytest.mark.slow
def test_images_are_those_of_predict(workdir: pathlib.Path, tmp_path: pathlib.Path, capsys) -> None:
    folder = photos(tmp_path / "photos", {"3": [0, 1, 2, 3], "7": [4, 5, 6]})
    (folder / "7" / "bad.png").write_bytes(b"no image")
    data = f"folder://{folder}?split=all"
    flags = [str(workdir), "--data", data, f"--out={tmp_path / 'out'}", "--on-bad-image=skip"]
    found = run(capsys, *flags, "--format=parquet", "--batch-size=3")["data"]
    assert (found["images"], found["skipped"]) == (7, 1)
    from pyarrow import parquet

    images = parquet.read_table(tmp_path / "out" / "data" / "images.parquet").to_pylist()
    assert [row["image"] for row in images] == [f"3/{i}.png" for i in range(4)] + [
        f"7/{i}.png" for i in range(4, 7)
    ]
    files = [str(folder / row["image"]) for row in images]
    assert main(["predict", f"--workdir={workdir}", "--json", *files]) == 0
    for row, shown in zip(images, json.loads(capsys.readouterr().out), strict=True):
        names, shares = zip(*shown["top"])
        assert [row[f"class_{k}"] for k in range(1, 6)] == list(names)
        assert [row[f"share_{k}"] for k in range(1, 6)] == pytest.approx(shares, rel=1e-5)
        assert row["confidence"] == row["share_1"] and row["label"] in ("3", "7")
    own = run(capsys, *flags, "--own-classes")["data"]  # of two classes one is always right
    assert [row["class"] for row in own["classes"]] == ["3", "7"] and "top5" not in own
    two = table(tmp_path / "out" / "data" / "images.csv")
    for row, both in zip(images, two, strict=True):
        assert float(both["share_1"]) + float(both["share_2"]) == pytest.approx(1)
        if row["class_1"] in ("3", "7"):
            assert both["class_1"] == row["class_1"]


@pytest.mark.slow
def test_published_weights(tmp_path: pathlib.Path, capsys) -> None:
    from safetensors.numpy import save_file

    from vitjax import weights

    image, rng = jnp.zeros((1, 224, 224, 3)), np.random.default_rng(0)
    shapes = abstract_init(create_model("vit_ti32").init, jax.random.key(0), image)
    variables = jax.tree.map(
        lambda x: 0.1 * rng.standard_normal(x.shape).astype(np.float32), dict(shapes)
    )
    save_file(weights.to_torch("vit_ti32", variables), tmp_path / "w.safetensors")
    text = f"vit_ti32={tmp_path / 'w.safetensors'}"
    data = "synthetic://?size=5&classes=1000&height=40&width=50&split=train"
    assert main(["eval", text, "--data", data, f"--out={tmp_path}", "--batch-size=5"]) == 0
    assert "are taken by number: names do not match" in capsys.readouterr().err
    trained, source = open_trained(text), open_source(data, "train")
    (batch,) = eval_batches(
        source, kinds=image_and_label(source.info, 224), batch_size=5, crop=trained.crop,
        interpolation=trained.interpolation, num_threads=0,
    )  # fmt: skip
    logits = jax.jit(functools.partial(forward, trained))(trained.variables, batch["image"])
    shares = jax.nn.softmax(logits)
    images = table(tmp_path / "data" / "images.csv")
    assert [int(row["class_1"]) for row in images] == shares.argmax(axis=1).tolist()
    confidence = [float(row["confidence"]) for row in images]
    assert len(set(confidence)) == 5
    np.testing.assert_allclose(confidence, shares.max(axis=1), rtol=1e-4)


def code(i: int) -> np.ndarray:
    """Build an image that `Reader` classifies as class i."""
    return np.full((4, 4, 3), (i // 256, i % 256, 0), np.uint8)


class Reader(nn.Module):
    """Classifier that reads the class number from an image's colour; neighbours rank next."""

    num_classes: int

    @nn.compact
    def __call__(self, images: Any, train: bool = False) -> Any:
        scale = self.param("scale", nn.initializers.ones, ())
        red, green = (jnp.round(127.5 * images[:, 0, 0, k] + 127.5) for k in (0, 1))
        return -scale * abs(jnp.arange(self.num_classes) - (256 * red + green)[:, None] - 0.25)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """`vitjax eval reader=weights`: a `Reader` of 1000 classes without names."""

    def task(config: Any, info: DataInfo, abstract: bool) -> Any:
        return classification(
            Reader(len(info.classes)), num_classes=len(info.classes), image_size=4,
            class_names=info.classes, multi_label=info.multi_label,
        )  # fmt: skip

    half = (0.5, 0.5, 0.5)
    trained = Trained(Reader(1000), {"params": {"scale": jnp.ones(())}}, half, half, 4, 0.9, "area")
    monkeypatch.setattr(tool, "open_trained", lambda text: trained)
    monkeypatch.setattr(tool, "model_options", lambda name: {})
    monkeypatch.setattr(tool, "task_from_config", task)


CLASSES = imagenet_classes() or ()
"""In TFDS's order."""


def build(name: str, label: Any, labels: list[Any], folder: pathlib.Path, split: str) -> None:
    """Prepare a data set of this name whose i-th image has the colour of its first number."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("9.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(encoding_format="png"), "label": label}
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples()}

        def _generate_examples(self):
            for i, (colour, value) in enumerate(labels):
                png = cv2.imencode(".png", code(colour)[..., ::-1])[1].tobytes()
                yield i, {"image": io.BytesIO(png), "label": value}

    Builder.name = name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds.disable_progress_bar()
        Builder(data_dir=folder, file_format="array_record").download_and_prepare()


def test_the_lists_of_classes() -> None:
    assert len(CLASSES) == 1000 and list(CLASSES) == sorted(CLASSES)
    for own in (IMAGENET_R, IMAGENET_A):
        assert len(set(own)) == 200 and set(own) <= set(CLASSES) and list(own) == sorted(own)
    assert CLASSES.index(IMAGENET_R[0]) == 1 and CLASSES.index(IMAGENET_A[0]) == 6
    assert "n02391049" in IMAGENET_R and "n02391049" not in IMAGENET_A  # a zebra


@pytest.mark.parametrize(("count", "dog"), [(91, 18), (90, 17), (80, 16)])
def test_published_detectors_know_cocos_categories(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, count: int, dog: int
) -> None:
    """A dog has the id 18, a cat 17, whatever their numbers in the data."""
    subject = tool.Subject("x=weights", read_config({"task": "detection"}), {}, None, count)
    evaluator = tool.Evaluator(subject, tool.Options("train"))
    given: list[Any] = []
    measured = tool.Measured({}, tool.Findings(), None)
    monkeypatch.setattr(evaluator, "measure", lambda *args: given.extend(args) or measured)
    evaluator.measure_uri("coco", write(tmp_path, content()), None)
    _, source, classes, *_ = given
    assert source[1]["objects"].classes.tolist() == [dog, dog - 1] and len(classes) == count


@pytest.mark.usefixtures("reader")
def test_imagenet_r_is_scored_over_its_classes(tmp_path: pathlib.Path, capsys) -> None:
    feature = tfds.features.ClassLabel(names=list(CLASSES))
    # Number 1 is a class of ImageNet-R, 2 too, 3 not; what is seen as 3 is nearest to 2, then 4.
    numbers = [CLASSES.index(name) for name in IMAGENET_R[:5]]
    assert numbers == [1, 2, 4, 6, 8]
    labels = [(1, 1), (3, 4), (3, 2), (5, 6), (7, 4), (999, 8)]
    build("imagenet_r", feature, labels, tmp_path, "test")
    uri = f"tfds:///{str(tmp_path).lstrip('/')}/imagenet_r/9.0.0"
    found = run(capsys, "reader=weights", "--data", uri, f"--out={tmp_path / 'out'}")["imagenet_r"]
    images = table(tmp_path / "out" / "imagenet_r" / "images.csv")
    seen = {row["image"][-1]: row for row in images}  # TFDS shuffles
    assert len(found["classes"]) == 200 and found["images"] == 6
    assert sorted(CLASSES.index(row["class_1"]) for row in images) == [1, 4, 4, 6, 8, 988]
    assert found["top1"] == pytest.approx(sum(r["correct"] == "True" for r in seen.values()) / 6)
    assert found["top1"] == pytest.approx(3 / 6)


@pytest.mark.usefixtures("reader")
def test_real_labels_leave_images_without_any_out(tmp_path: pathlib.Path, capsys) -> None:
    feature = tfds.features.Sequence(tfds.features.ClassLabel(names=list(CLASSES)))
    labels = [(5, [5, 900]), (900, [5, 900]), (7, [8, 9]), (7, []), (8, []), (3, [3])]
    build("imagenet2012_real", feature, labels, tmp_path, "validation")
    uri = f"tfds://{tmp_path}/imagenet2012_real/9.0.0"
    found = run(capsys, "reader=weights", "--data", uri)["imagenet2012_real"]
    assert (found["images"], found["unlabelled"], found["top1"]) == (4, 2, 0.75)
    assert "loss" not in found


class Coded:
    """Images by their colours, with labels by number."""

    def __init__(self, pairs: list[tuple[int, Any]], classes: tuple[str, ...] = CLASSES):
        self.info, self._pairs = DataInfo(classes, "coded"), pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> dict[str, Any]:
        colour, label = self._pairs[i]
        return {"image": code(colour), "label": label}

    def example_name(self, i: int) -> str:
        return f"{i}"


@pytest.mark.slow
@pytest.mark.usefixtures("reader")
def test_imagenet_c_gives_mce(tmp_path: pathlib.Path, capsys, monkeypatch) -> None:
    opened = []

    def open_part(uri: str, split: str) -> Coded:
        opened.append((uri, split))
        wrong = int(uri.partition("?")[0][-1]) - 1  # none at severity 1, 4 of 5 at severity 5
        return Coded([(10 + (i < wrong), 10) for i in range(5)])

    crops, read = set(), tool.pipeline.eval_batches

    def eval_batches(source: Any, **options: Any) -> Any:
        crops.add(options["crop"])
        return read(source, **options)

    monkeypatch.setattr(tool, "open_source", open_part)
    monkeypatch.setattr(tool.pipeline, "eval_batches", eval_batches)
    flags = ["reader=weights", f"--out={tmp_path}", "--data"]
    found = run(capsys, *flags, "imagenet2012_corrupted?data_dir=x")["imagenet2012_corrupted"]
    assert len(opened) == 75 and {split for _, split in opened} == {"validation"}
    assert opened[0][0] == "tfds://imagenet2012_corrupted/gaussian_noise_1?data_dir=x"
    expected = {name: 0.4 / error for name, error in ALEXNET_ERRORS.items()}  # mean of 0, …, 0.8
    assert found["ce"] == pytest.approx(expected)
    assert found["mce"] == pytest.approx(sum(expected.values()) / 15)
    assert len(table(tmp_path / "imagenet2012_corrupted" / "parts.csv")) == 75
    found = run(capsys, *flags, "imagenet2012_corrupted/fog")["imagenet2012_corrupted"]
    assert crops == {1.0}  # these images are crops already
    assert found["mce"] is None and found["ce"] == {"fog": pytest.approx(expected["fog"])}
    spatter = [*flags, "imagenet2012_corrupted/spatter_3", "--config.data.eval_crop=0.7"]
    found = run(capsys, *spatter)["imagenet2012_corrupted"]
    assert found["top1"] == pytest.approx(0.6) and crops == {1.0, 0.7}


def test_corruption_errors_of_alexnet_are_one() -> None:
    errors = {f"{name}_{s}": e for name, e in ALEXNET_ERRORS.items() for s in range(1, 6)}
    each, mean = corruption_errors(errors)
    assert each == pytest.approx(dict.fromkeys(ALEXNET_ERRORS, 1.0)) and mean == pytest.approx(1.0)
    del errors["snow_4"]
    each, mean = corruption_errors(errors)
    assert len(each) == 14 and mean is None


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("imagenet_v2", "tfds://imagenet_v2/matched-frequency"),
        ("imagenet_v2/topimages?data_dir=d", "tfds://imagenet_v2/topimages?data_dir=d"),
        ("tfds://imagenet_a:0.1.0", "tfds://imagenet_a:0.1.0"),
        ("tfds:///d/imagenet_v2/topimages/3.0.0", "tfds:///d/imagenet_v2/topimages/3.0.0"),
        ("imagenet2012_corrupted/fog_3", "tfds://imagenet2012_corrupted/fog_3"),
        ("folder:///imagenet_r", None),
        ("/somewhere/imagenet_r", None),
        ("digits://", None),
    ],
)
def test_names_of_test_sets(uri: str, part: str | None) -> None:
    named = find_benchmark(uri)
    assert (list(named.parts.values()) if named else None) == ([part] if part else None)


def test_a_name_that_is_also_a_folder(tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet_r").mkdir()
    with pytest.raises(ValueError, match="say folder://imagenet_r or tfds://imagenet_r"):
        find_benchmark("imagenet_r")
    with pytest.raises(ValueError, match="did you mean 'imagenet_v2'"):
        find_benchmark("imagnet_v2")
    with pytest.raises(ValueError, match="corruption of ImageNet-C 'fogg'; did you mean 'fog'"):
        find_benchmark("imagenet2012_corrupted/fogg_3")


class Pixels(nn.Module):
    """A model of a dense task that looks at each pixel alone."""

    output: str
    num_classes: int

    @nn.compact
    def __call__(self, images: Any, train: bool = False) -> Any:
        return nn.Dense(self.num_classes)(images)


def opened_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, name: str, flags: list[str], model: Any
) -> None:
    """`vitjax eval run`, of a config whose model is another, with first weights."""
    given = dict(flag.removeprefix("--config.").split("=", 1) for flag in flags[1:])
    config = configs.load_config(name, given, model_options, task_config)
    monkeypatch.setattr(f"vitjax.tasks.{config.task}.model_from_config", lambda *given: model)
    info = open_source(config.data.train, "train").info
    variables = jax.jit(task_from_config(config, info).init)(jax.random.key(0))
    opened = types.SimpleNamespace(
        said=config.to_dict(), info=info, variables=lambda step: (7, variables)
    )
    monkeypatch.setattr(tool, "open_run", lambda text: opened)
    folder = tmp_path / "work" / "run"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model": {}, "data": {}}')
    monkeypatch.chdir(folder.parent)


@pytest.mark.slow
def test_segmentation(tmp_path: pathlib.Path, capsys, monkeypatch) -> None:
    from tests.tasks.test_segmentation import FLAGS

    opened_run(monkeypatch, tmp_path, "scenes", FLAGS, Pixels("map", 11))
    found = run(capsys, "run", f"--out={tmp_path}", "--batch-size=3")["test"]
    matrix = [list(map(int, list(r.values())[1:])) for r in table(tmp_path / "test/confusion.csv")]
    counts = np.array(matrix)
    both, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    assert found["miou"] == pytest.approx((both[union > 0] / union[union > 0]).mean())
    assert found["acc"] == pytest.approx(both.sum() / counts.sum())
    ious = [row["iou"] for row in found["classes"] if row["iou"] is not None]
    assert ious == pytest.approx(both[union > 0] / union[union > 0])
    assert found["images"] == 4 and counts.sum() == sum(r["pixels"] for r in found["classes"])
    whole = run(capsys, "run", "--config.segmentation.eval_mode=whole")["test"]
    assert whole["miou"] == pytest.approx(found["miou"])  # of pixels alone windows change nothing
    assert main(["eval", "run", "--bins=3"]) == 2
    assert "--bins=3 is of the confidence of classifiers" in capsys.readouterr().err


@pytest.mark.slow
def test_restoration(tmp_path: pathlib.Path, capsys, monkeypatch) -> None:
    from tests.tasks.test_restoration import FLAGS, Offset

    flags = [flag for flag in FLAGS if "config.model" not in flag]
    monkeypatch.setattr(Offset, "output", "image", raising=False)
    opened_run(monkeypatch, tmp_path, "denoise", flags, Offset())
    found = run(capsys, "run", f"--out={tmp_path}", "--batch-size=3")["test"]
    images = table(tmp_path / "test" / "images.csv")
    assert len(images) == found["images"] == 4
    for name in ("psnr_rgb", "ssim_y", "input_psnr_rgb"):
        values = [float(row[name]) for row in images]
        assert found[name] == pytest.approx(np.mean(values), rel=1e-5) and len(set(values)) == 4
    assert found["psnr_rgb"] == pytest.approx(found["input_psnr_rgb"])  # nothing is changed
    assert main(["eval", "run", "--data", "scenes://?size=40", "--own-classes"]) == 2
    assert "--own-classes is for classification" in capsys.readouterr().err


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["reader=weights"], "no evaluations of their own; give --data=URI"),
        (["reader=weights", "--step=3"], "--step=3 is of a run's checkpoint"),
        (["reader=weights", "--format=csv"], "give --out=FOLDER"),
        (["reader=weights", "--split=x"], "--split and --own-classes are of --data"),
        (["reader=weights", "--data", "digits://"], "has 1000 classes (classes without names), and "
         "'digits://' has 10 (0, 1, 2 …)"),
        (["reader=weights", "--data", "digits://?split=test", "--split=test"], "both say a split"),
        (["reader=weights", "--config.data.eval_crp=1"], "did you mean 'data.eval_crop'"),
        (["reader=weights", "--config.data.eval_crop=wide"], "takes a number"),
        (["reader=weights", "--bins=0"], "--bins=0 is of the confidence"),
        (["/nowhere"], "'/nowhere' is no run's folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(capsys, flags: list[str], message: str) -> None:
    assert main(["eval", *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out
