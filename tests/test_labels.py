"""Label maps, made by a small teacher, kept, resumed, and learnt from."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.cli import main
from vitjax.data import open_source
from vitjax.data.codecs.image import Box
from vitjax.data.label_maps import read_label_maps
from vitjax.data.transforms.crops import crop_and_resize
from vitjax.models import create_model
from vitjax.runs import Trained
from vitjax.tools import token_labels as labels

MEAN = (0.5, 0.5, 0.5)
DATA = "digits://"


def with_random_heads(model, size):
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    keys = iter(jax.random.split(jax.random.key(1), 100))

    def draw(path, leaf):
        head = "head" in jax.tree_util.keystr(path)
        return jax.random.normal(next(keys), leaf.shape) if head else leaf

    return jax.tree_util.tree_map_with_path(draw, variables)


@pytest.fixture(scope="module")
def teacher():
    model = create_model(
        "vit_ti4", num_classes=10, image_size=8, width=8, depth=1, num_heads=1, pool="gap"
    )
    return Trained(model, with_random_heads(model, 8), MEAN, MEAN, 8, interpolation="area")


@pytest.fixture
def named(teacher, monkeypatch):
    teachers = {"good": teacher}
    monkeypatch.setattr(labels, "open_teacher", lambda text, names: teachers[text])
    return teachers


def make(folder, capsys, *flags, name="good"):
    code = main(["token-labels", name, f"--data={DATA}", "--split=test[:50]", f"--to={folder}",
                 "--batch-size=16", "--json", *flags])  # fmt: skip
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code == 0 else captured.err


@pytest.mark.slow
def test_the_maps_are_the_teachers_best_classes(tmp_path, capsys, named, teacher):
    code, said = make(tmp_path, capsys, "--k=3")
    assert (code, said["images"], said["found"], said["shape"]) == (0, 50, 0, "3 × 2 × 2")
    source = open_source(DATA, "test[:50]")
    maps = read_label_maps(str(tmp_path))
    assert maps.shape == (3, 2, 2) and len(maps) == 50
    for i in (0, 17, 49):
        square = crop_and_resize(source[i]["image"], Box(0, 0, 8, 8), 8)
        x = jnp.asarray(square[None] / 127.5 - 1, jnp.float32)
        (cells,) = teacher.model.apply(teacher.variables, x, method="features")
        head = teacher.variables["params"]["head"]
        shares = np.asarray(jax.nn.softmax(cells[0] @ head["kernel"] + head["bias"]))
        order = np.argsort(-shares, axis=-1)[..., :3]
        np.testing.assert_array_equal(maps.classes[i], order.transpose(2, 0, 1))
        best = np.take_along_axis(shares, order, axis=-1).transpose(2, 0, 1)
        np.testing.assert_allclose(maps.scores[i], best, atol=2e-3)


@pytest.mark.slow
def test_an_interrupted_annotation_goes_on(tmp_path, capsys, named, teacher, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    make(whole, capsys)
    written = []

    def fsync(descriptor):
        written.append(descriptor)
        if len(written) == 5:  # the third batch is half there
            raise OSError("killed")

    monkeypatch.setattr(labels.os, "fsync", fsync)
    assert make(broken, capsys)[0] == 2
    with pytest.raises(ValueError, match="are incomplete"):
        read_label_maps(str(broken))
    named["other"] = teacher._replace(variables=jax.tree.map(lambda v: v + 1, teacher.variables))
    code, error = make(broken, capsys, name="other")
    assert code == 2 and "holds other label maps: teacher_sha256 (there" in error
    code, said = make(broken, capsys)
    assert said["found"] == 32
    for name in ("classes.npy", "scores.npy", "labels.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert make(broken, capsys)[1]["found"] == 50
    assert read_label_maps(str(broken)).fingerprint


def test_a_full_disk_is_told_before(tmp_path, capsys, named, monkeypatch):
    usage = labels.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(labels.shutil, "disk_usage", lambda path: usage)
    code, error = make(tmp_path / "maps", capsys)
    assert code == 2 and "100 bytes free, and 4,000 are needed" in error
    assert not (tmp_path / "maps" / "labels.json").exists()


def test_a_head_that_reads_a_class_token_is_refused(tmp_path, capsys, named):
    model = create_model("vit_ti4", num_classes=10, image_size=8, width=8, depth=1, num_heads=1)
    named["token"] = Trained(model, with_random_heads(model, 8), MEAN, MEAN, 8)
    code, error = make(tmp_path, capsys, name="token")
    assert code == 2 and "'token' does not read the mean of its last map" in error


VOLO = {
    "model.name": "volo_d1", "model.dims": (8, 16), "model.num_heads": (1, 2),
    "model.depths": (1, 1), "model.downsample": (True, False), "model.mixer": "outlook ; full",
    "model.post_layers": ("ca",), "model.stem_width": 8, "model.mlp_ratio": 1.0,
    "data.image_size": 64, "data.batch_size": 8, "data.eval_batch_size": 20,
    "data.train_split": "test[:50]", "data.test_split": "test[50:70]",
    "data.augment": "crop(area=(0.5, 1.0)) | flip", "mixing.mixtoken": 1.0,
    "token_labels.weight": 0.5, "epochs": 0, "steps": 2, "eval_every": 2, "log_every": 1,
    "checkpoint_every": 2, "schedule.warmup_steps": 1,
}  # fmt: skip


@pytest.mark.slow
def test_volo_learns_from_maps(tmp_path, capsys, named):
    import train

    make(tmp_path / "maps", capsys)
    make(tmp_path / "others", capsys, "--k=2")
    make(tmp_path / "train", capsys, "--split=train")

    def run(folder, maps, **more):
        flags = VOLO | {"token_labels.maps": str(tmp_path / maps)} | more
        arguments = [f"--config.{name}={value}" for name, value in flags.items()]
        code = train.main(
            ["--config=configs/digits.py", f"--workdir={tmp_path / folder}", *arguments]
        )
        return code, capsys.readouterr().err

    assert run("run", "maps") == (0, "")
    rows = [json.loads(r) for r in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert len(losses) == 2 and all(np.isfinite(losses))
    code, error = run("other", "train")
    assert code == 2 and "are of other images: they were made for digits://, split 'train'" in error
    code, error = run("other", "maps", **{"token_labels.weight": 0})
    assert code == 2 and "has no effect with config.token_labels.weight=0" in error
    folder = tmp_path / "maps"
    shutil.rmtree(folder)
    (tmp_path / "others").rename(folder)
    code, error = run("run", "maps")
    assert code == 2 and "The training data of the run" in error
