"""`vitjax predict`: what is named, in which order, what is written, and what one bad file costs."""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

import train
from vitjax.cli import main
from vitjax.console import Countdown
from vitjax.data import open_source
from vitjax.tasks.classification import _shares
from vitjax.tools import predict as predicting
from vitjax.tools.ahead import one_behind, read_ahead
from vitjax.tools.image_files import find_images
from vitjax.tools.rows import split_outputs

ROOT = pathlib.Path(__file__).parent.parent
FLAGS = [
    *("--config=digits", "--config.model.name=vit_ti4", "--config.model.width=16"),
    *("--config.model.depth=1", "--config.model.num_heads=2", "--config.steps=2"),
    *("--config.schedule.warmup_steps=0", "--config.data.batch_size=5"),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run")
    assert train.main([*FLAGS, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Seven digits, the fourth of which is no image, in two folders."""
    folder, source = tmp_path_factory.mktemp("photos"), open_source("digits://", "test")
    for i, place in enumerate(("b/1", "b/2", "b/3", "b/4", "a/1", "a/2", "a/3")):
        path = folder / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), source[i]["image"][..., ::-1])
    (folder / "b" / "4.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("none either")
    return folder


def names(paths: list[pathlib.Path], folder: pathlib.Path) -> list[str]:
    return [str(path.relative_to(folder).with_suffix("")) for path in paths]


def test_files_come_in_the_order_in_which_they_are_named(
    photos: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = ["a/1", "a/2", "a/3", "b/1", "b/2", "b/3", "b/4"]
    p = str(photos)
    assert names(find_images([p]), photos) == every
    assert names(find_images([f"{p}/**"]), photos) == every
    assert names(find_images([f"{p}/*/[23].png", f"{p}/b/1.png"]), photos) == [
        *("a/2", "a/3", "b/2", "b/3", "b/1")
    ]
    lines = f"{p}/b/2.png\n\n{p}/a\r\n{p}/[x].png\n".encode() + os.fsencode(p) + b"/\xff.png"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    found = find_images([f"{p}/b/3.png", "-"])
    assert names(found, photos) == ["b/3", "b/2", "a/1", "a/2", "a/3", "[x]", "\udcff"]


def test_a_name_with_brackets_is_a_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "[1].png").touch()
    (tmp_path / "1.png").touch()
    assert names(find_images([str(tmp_path / "[1].png")]), tmp_path) == ["[1]"]


def test_nothing_found_is_a_sentence(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match="no image file in the folder"):
        find_images([str(tmp_path)])
    with pytest.raises(ValueError, match=r"No image file matches .*\*\.txt"):
        find_images([str(tmp_path / "*.txt")])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(ValueError, match="the standard input has no lines"):
        find_images(["-"])


def test_outputs_are_told_apart(tmp_path: pathlib.Path) -> None:
    a, b, folder = tmp_path / "a.csv", tmp_path / "b.JSONL", tmp_path / "pictures"
    assert split_outputs([a, folder, b]) == ([a, b], folder)
    assert split_outputs([]) == ([], None)
    for wrong in ([tmp_path / "a.parquet"], [folder, tmp_path / "more"]):
        with pytest.raises(ValueError, match=r"takes tables .* and one folder for pictures; got"):
            split_outputs(wrong)


def test_reading_runs_ahead_in_order() -> None:
    seen: list[int] = []

    def read(i: int) -> int:
        time.sleep(0.002 * (i % 3))
        seen.append(i)
        return i * i

    results = read_ahead(read, range(23), 5, 7)
    assert next(results) == 0
    time.sleep(0.1)
    assert sorted(seen) == list(range(8))
    assert list(results) == [i * i for i in range(1, 23)]

    asked: list[int] = []
    for result in one_behind(asked.append(i) or i for i in range(3)):
        assert asked == list(range(min(result + 2, 3)))


@pytest.mark.slow
def test_tables_have_a_row_for_each_file(
    workdir: pathlib.Path, photos: pathlib.Path, tmp_path: pathlib.Path, capsys
) -> None:
    outs = [f"--out={tmp_path / 'x' / 'rows.csv'}", f"--out={tmp_path / 'rows.jsonl'}"]
    pattern, bad = str(photos / "**" / "*.png"), str(photos / "b" / "4.png")
    ask = ["predict", f"--workdir={workdir}", pattern, "--batch-size=3", "--threads=2"]
    capsys.readouterr()
    assert main([*ask, *outs, "--json"]) == 2
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert (summary["images"], summary["unreadable"], summary["step"]) == (7, 1, 2)
    assert told.err.count("\n") == 1 and bad in told.err
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    with (tmp_path / "x" / "rows.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    order = ["a/1", "a/2", "a/3", "b/1", "b/2", "b/3", "b/4"]
    for row, cell, name in zip(rows, cells, order, strict=True):
        assert row["image"] == cell["image"] == str(photos / f"{name}.png")
        assert ("error" in row) == bool(cell["error"]) == (row["image"] == bad)
        if "top" in row:
            pairs = [(cell[f"class{k}"], float(cell[f"probability{k}"])) for k in ("", "_2", "_5")]
            assert pairs == [tuple(row["top"][k]) for k in (0, 1, 4)]
    assert cells[-1]["class"] == ""

    # What stands beside an image in a batch changes nothing of it.
    assert main([*ask[:3], "--batch-size=1", "--json"]) == 2
    alone = json.loads(capsys.readouterr().out)
    for one, other in zip(alone[:-1], rows[:-1], strict=True):
        assert [c for c, _ in one["top"]] == [c for c, _ in other["top"]]
        np.testing.assert_allclose(
            [p for _, p in one["top"]], [p for _, p in other["top"]], atol=1e-6
        )
    assert main([*ask, "--batch-size=-1"]) == 2
    assert "batch_size=-1 and num_threads=2 must be at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_one_program_is_compiled(
    workdir: pathlib.Path, photos: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, traces = [], []
    place = predicting.sharding.to_devices

    def placing(batches, *rest):
        return place((shapes.append(b["image"].shape) or b for b in batches), *rest)

    made = predicting.task_from_config

    def task(*args, **options):
        task = made(*args, **options)
        return task._replace(predict=lambda v, b: traces.append(1) or task.predict(v, b))

    monkeypatch.setattr(predicting.sharding, "to_devices", placing)
    monkeypatch.setattr(predicting, "task_from_config", task)
    found = predicting.predict(workdir, [str(photos)], batch_size=4)
    assert found.total == 7 and len(list(found.every)) == 7
    assert shapes == [(4, 8, 8, 3)] * 2
    assert len(traces) == 1


@pytest.mark.slow
def test_an_interruption_keeps_the_rows(
    workdir: pathlib.Path, photos: pathlib.Path, tmp_path: pathlib.Path, monkeypatch, capsys
) -> None:
    read, table = predicting.read_file, tmp_path / "rows.csv"

    def slow(path: str) -> bytes:
        if path.endswith("b/1.png"):  # the rows before it are on the disk by now or later
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(predicting, "read_file", slow)
    ask = ["predict", f"--workdir={workdir}", str(photos), f"--out={table}", "--batch-size=1"]
    assert main(ask) == 130
    rows = table.read_text().splitlines()
    assert f"Stopped after {len(rows) - 1} of 7 images." in capsys.readouterr().err
    assert 1 <= len(rows) <= 4 and rows[0].startswith("image,step,class,probability,class_2")


@pytest.mark.slow
def test_a_killed_process_has_written_its_rows(
    workdir: pathlib.Path, photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The fourth file is a pipe that nobody writes to: all before it is on the disk."""
    table, pipe = tmp_path / "rows.jsonl", tmp_path / "4.png"
    os.mkfifo(pipe)
    files = [str(photos / "a" / f"{i}.png") for i in (1, 2, 3)]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitjax.cli", "predict", f"--workdir={workdir}", *files, str(pipe),
         f"--out={table}", "--batch-size=1", "--threads=1"],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (table.exists() and table.read_text().count("\n")):
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert json.loads(table.read_text().splitlines()[0])["image"] == files[0]


def test_pictures_of_one_name_are_kept_apart(tmp_path: pathlib.Path) -> None:
    drawn = np.zeros((2, 3, 3), np.uint8)
    show = predicting._Shows(
        lambda p, sample: predicting.Presentation([], {}, drawn), tmp_path / "out"
    )
    files = [tmp_path / folder / "a.png" for folder in ("x", "y", "z")]
    written = [show(predicting._Read(file, {}, {}), None).picture for file in files]
    assert [path.name for path in written if path] == ["a.png", "a-2.png", "a-3.png"]
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_task_may_refuse_one_image(tmp_path: pathlib.Path) -> None:
    def present(prediction, sample):
        raise ValueError("the reference has another size")

    shown = predicting._Shows(present, tmp_path)(predicting._Read(tmp_path / "a", {}, {}), None)
    assert shown.presented is None and shown.error.endswith("a': the reference has another size")


def test_probabilities_are_those_of_jax() -> None:
    import jax

    logits = np.array([-800.0, 0.3, 2.0, 800.0]) / np.array([[1.0], [200.0]])
    for row in logits:
        for loss, reference in (("softmax", jax.nn.softmax), ("sigmoid", jax.nn.sigmoid)):
            np.testing.assert_allclose(
                _shares(row, loss), reference(row.astype(np.float32)), atol=1e-6
            )


def test_progress_has_an_eta(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    count = Countdown(100, "images")
    for done in range(1, 101):
        clock[0] = 5.0 + 2 * (done - 1)  # the first after 5 s, the others 2 s each
        count(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "4 of 100 images  0.5 images/s  ETA 3:12"
    assert 15 < len(lines) < 20
    short = Countdown(100, "images")
    for done in range(1, 101):
        clock[0] += 0.02
        short(done)
    assert capsys.readouterr().err == ""
