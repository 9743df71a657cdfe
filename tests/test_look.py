"""`vitjax look`: the page, the pictures and the check of a run, and what is refused."""

import json
import pathlib
import re

import cv2
import numpy as np
import pytest

import train
from vitjax.analysis.check import RANDOM, Interval, Worth
from vitjax.cli import main
from vitjax.tools import look as looking
from vitjax.tools import look_command, look_pictures
from vitjax.tools.look import check_report
from vitjax.tools.look_command import parse_query

FLAGS = [
    *("--config=digits", "--config.model.name=vit_ti4", "--config.model.width=16"),
    *("--config.model.depth=2", "--config.model.num_heads=2", "--config.steps=2"),
    *("--config.schedule.warmup_steps=0", "--config.data.batch_size=5"),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run")
    assert train.main([*FLAGS, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("a/1", "b/1", "b/2"):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (9, 11, 3), np.uint8))
    (folder / "bad.txt").write_text("no image")
    return folder


def look(*arguments: object) -> int:
    return main(["look", *map(str, arguments)])


@pytest.mark.slow
def test_a_page_of_a_run(
    workdir: pathlib.Path, photos: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos / "look.html"
    assert look(photos / "a", photos / "b", "--workdir", workdir, "--out", out, "--json") == 0
    told = capsys.readouterr()
    result = json.loads(told.out)
    # Files of one name are told apart by their folders.
    assert result["images"] == [str(photos / "a/1.png"), str(photos / "b/1.png"), "2.png"]
    assert result["bytes"] == out.stat().st_size
    assert "A run of vit_ti4, step 2." in told.err
    said = out.read_text().partition('id="said">')[2].partition("</script>")[0]
    view = json.loads(said)["views"][0]
    assert [layer["name"] for layer in view["layers"]] == ["block_0", "block_1"]
    assert len(view["classes"]) == 5 and view["size"] == [8, 8]


@pytest.mark.slow
def test_pictures_of_a_run(workdir: pathlib.Path, photos: pathlib.Path) -> None:
    image = photos / "a" / "1.png"
    for arguments in (
        (image, "--picture", "heads", "--query", "0", "--layer", "block_0"),
        (photos / "b", "--picture", "distances"),
        ("--picture", "positions"),
        (image, "--picture", "lens"),
        (image, "--picture", "gradcam", "--layer", "block_0", "--class", "3"),
    ):
        out = photos / "out.png"
        assert look(*arguments, "--workdir", workdir, "--out", out) == 0
        assert cv2.imread(str(out)).std() > 10
        out.unlink()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["a/1.png"], "Which model?"),
        (["a/1.png", "--model=swin_tinyy"], "did you mean 'swin_tiny'"),
        (["a/1.png", "--model=runs/none"], "is no run's folder"),
        (["--model=vit_b16"], "Which image?"),
        (["a/1.png", "--model=vit_b16", "--picture=rolout"], "did you mean 'rollout'"),
        (["a/1.png", "--model=vit_b16", "--picture=rollout", "--check"], "are two commands"),
        (["a/1.png", "--model=vit_b16", "--model=vit_b16"], "is given twice"),
        (["a/1.png", "--model=a", "--model=b", "--picture=rollout"], "2 models"),
        (["a/1.png", "--model=vit_b16", "--layer=block_1"], "--layer is for --picture"),
        (["a/1.png", "--model=vit_b16", "--megabytes=0"], "--megabytes=0.0 must be more than 0"),
        (["none.png", "--workdir=RUN"], "none.png"),
        (["bad.txt", "--workdir=RUN"], "bad.txt"),
        (["a/1.png", "--workdir=RUN", "--image-size=16"], "looks at images of the size"),
        (["a/1.png", "--workdir=RUN", "--check"], "1 image: an interval over images needs"),
        (["a/1.png", "--workdir=RUN", "--picture=points"], "No layer of"),
        (["a/1.png", "--workdir=RUN", "--picture=heads", "--layer=block_7"], "Unknown layer"),
        (["a/1.png", "--workdir=RUN", "--picture=heads", "--query=8,0"], "outside of the image"),
        (["a/1.png", "--workdir=RUN", "--picture=heads", "--query=x"], "Query 'x' must be"),
        (["a/1.png", "--workdir=RUN", "--picture=filters"], "An image does not go with"),
        (["a/1.png", "--workdir=RUN", "--picture=gradcam", "--class=ten"], "Unknown class 'ten'"),
        (["a/1.png", "--workdir=RUN", "--picture=field", "--class=3"], "--class does not go with"),
        (["a/1.png", "--workdir=RUN", "--class=3"], "--class is for --picture"),
        (["--workdir=RUN", "--picture=heads"], "needs an image"),
        (["b", "--workdir=RUN", "--picture=heads"], "of one image, and 2 are given"),
        (["a/1.png", "--workdir=RUN", "--picture=depth", "--head=0"], "--head does not go with"),
    ],
)
def test_what_is_refused_costs_one_sentence(
    arguments: list[str],
    error: str,
    workdir: pathlib.Path,
    photos: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos)
    assert look(*(text.replace("RUN", str(workdir)) for text in arguments)) == 2
    *_, told = capsys.readouterr().err.splitlines()
    assert told.startswith("error: ") and error in told


@pytest.mark.slow
def test_a_name_alone_has_random_weights_and_needs_attention(
    photos: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look(photos / "a", "--model=mixer_s32", "--image-size=32") == 2
    first, error = capsys.readouterr().err.splitlines()
    assert first == "mixer_s32: Random weights: nothing was learnt."
    assert error.startswith("error: No layer of this") and "choose a model with attention" in error


def test_the_command_knows_the_names_of_all_pictures() -> None:
    assert tuple(look_pictures.PICTURES) == look_command.PICTURES


def test_the_document_names_all_pictures_and_its_program_runs() -> None:
    text = (pathlib.Path(__file__).parents[1] / "docs" / "look.md").read_text()
    table = text.partition("## The papers' pictures")[2].partition("## ")[0]
    rows = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([a-z-]+)`", rows)) == set(look_pictures.PICTURES)
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert program
    names: dict = {}
    exec(compile(program[1], "docs/look.md", "exec"), names)
    assert len(str(names["page"])) > 20_000


def test_queries_are_pixels_or_tokens() -> None:
    assert parse_query("") is None and parse_query("0") == 0
    assert parse_query("112,80") == parse_query("(112, 80)") == (112, 80)
    for wrong in ("1,2,3", "-1", "a", "1.5,2"):
        with pytest.raises(ValueError, match="must be a pixel's row and column"):
            parse_query(wrong)


def test_the_report_marks_what_is_no_better_than_random() -> None:
    some, curve = Interval(0.5, 0.4, 0.6), np.zeros(3)
    found = [
        Worth(name, some, some, curve, curve, None if name == RANDOM else some, beats)
        for name, beats in (("good", True), ("bad", False), (RANDOM, False))
    ]
    numbers, text = check_report(found)
    marked = [line.split()[0] for line in text.splitlines() if "NO BETTER THAN RANDOM" in line]
    assert marked == ["bad"] and "not an explanation" in text
    assert json.loads(json.dumps(numbers))[1]["beats_random"] is False


def test_a_check_of_a_run(
    workdir: pathlib.Path,
    photos: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*given: object) -> np.ndarray:
        raise ValueError("Not of this model.")

    monkeypatch.setattr(looking, "METHODS", {"rollout": looking.METHODS["rollout"], "x": broken})
    out = photos / "check.png"
    arguments = (photos / "a", photos / "b", "--workdir", workdir, "--check", "--out", out)
    assert look(*arguments, "--json") == 0
    told = capsys.readouterr()
    names = [row["method"] for row in json.loads(told.out)]
    assert names == ["rollout", RANDOM, "edge detector"]
    assert "x is left out: Not of this model." in told.err
    assert cv2.imread(str(out)).std() > 10
