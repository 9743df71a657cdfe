"""Sizes of data sets by their names, and a plan that needs no other word of them."""

import json
import pathlib

import pytest

from vitjax import cli
from vitjax.data.known import known_size
from vitjax.plan import plan
from vitjax.training import load_config

ROOT = pathlib.Path(__file__).parent.parent.parent
SCENES = str(ROOT / "configs" / "scenes.py")
DENOISE = str(ROOT / "configs" / "denoise.py")
ADE20K = {"data.train": "maps:///data/ade20k", "steps": "0", "epochs": "10"}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("maps:///data/ADE20K", (20_210, 150)),
        ("maps:///data/ade-20k/2016?reduce_zero=1", (20_210, 150)),
        ("maps://data/ADEChallengeData2016?classes=150&reduce_zero=1", (20_210, 150)),
        ("tfds://cityscapes?data_dir=/data", (2_975, 19)),
        ("coco:///data/coco2017", (118_287, 80)),
        ("pairs:///data/GoPro", (2_103, 0)),
        ("pairs:///data/SIDD_Medium_Srgb", (320, 0)),
        ("tfds://cifar100", (50_000, 100)),
        ("tfds://cifar10:3.0.2", (50_000, 10)),
        ("boxes://?size=96&digits=5", (100_000, 10)),
        ("moving://?size=16&count=20000", (20_000, 8)),
        ("folder:///data/moving", (0, 0)),
        ("folder:///home/siddharth/photos", (0, 0)),
        ("folder:///data/cityscapesque", (0, 0)),
    ],
)
def test_sizes_by_name(name: str, size: tuple[int, int]) -> None:
    assert known_size(name) == size


def test_the_task_says_whether_classes_are_asked_for() -> None:
    assert plan.known_data(load_config(SCENES, ADE20K), 0, 0) == (20_210, 150)
    pairs = {"data.train": "pairs:///data/sidd", "steps": "0", "epochs": "10"}
    assert plan.known_data(load_config(DENOISE, pairs), 0, 0) == (320, 0)
    with pytest.raises(ValueError, match=r"Known by name: .*ade20k, .*cityscapes, gopro, sidd"):
        plan.known_data(load_config(SCENES, ADE20K | pairs), 0, 0)


@pytest.mark.slow
def test_a_plan_of_segmentation_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fields = ADE20K | {
        "data.image_size": "32",
        "data.batch_size": "2",
        "model.backbone": "mit_b0(dims=(8, 16), depths=(1, 1), num_heads=(1, 2))",
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    command = ["plan", f"--config={SCENES}", "--topology=cpu", "--quick", "--json"]
    assert cli.main([*command, *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 10 * 20_210 // 2
    assert found["memory"]["total"] > found["memory"]["parameters"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "flags"),
    [
        ("detection", {
            "model.backbone": "resnet18(depths=(1,), width=8)", "model.width": "8",
            "model.depth": "1", "model.group_norm": "False", "model.finest": "4",
        }),
        ("video", {
            "model.dims": "(8,)", "model.depths": "(1,)", "model.num_heads": "(1,)",
            "model.mixer": "full", "clip.frames": "2",
        }),
    ],
)  # fmt: skip
def test_plans_of_objects_and_of_clips(
    config: str,
    flags: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    flags = {"data.batch_size": "2", "data.image_size": "32", "optimizer.ema": "0"} | flags
    command = ["plan", f"--config={config}", "--topology=cpu", "--quick", "--json"]
    assert cli.main([*command, *(f"--config.{k}={v}" for k, v in flags.items())]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.01)
    assert memory["total"] > memory["arguments"] > 3 * memory["parameters"] * 0.99
