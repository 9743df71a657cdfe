"""The task video: views averaged, each video once, a run from training to prediction."""

import pathlib
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from vitjax.abstract import abstract_init
from vitjax.cli import main
from vitjax.data import open_source
from vitjax.data.source import DataInfo
from vitjax.tasks import read_config, task_from_config
from vitjax.tasks import video as video_task
from vitjax.train.config import count_steps
from vitjax.training import load_config

ROOT = pathlib.Path(__file__).parents[2]
INFO = DataInfo(tuple("abcde"), "", frozenset(("clip", "label")))
SMALL: dict[str, Any] = dict(
    name="swin3d_tiny", dtype="float32", dims=(8,), depths=(1,), num_heads=(2,), mixer="full"
)


def build(**sections: Any) -> Any:
    model = {"dtype": "float32", **sections.pop("model", SMALL)}
    said = dict(task="video", model=model, data=dict(image_size=8), clip=dict(frames=4))
    return task_from_config(read_config({**said, **sections}), INFO)


class Mean(nn.Module):
    """Logits of the five classes: a clip's mean pixel, times their numbers."""

    num_classes: int = 5
    num_frames: int = 4

    def __call__(self, x: Any, train: bool = False) -> Any:
        return x.mean(axis=(1, 2, 3, 4))[:, None] * jnp.arange(5.0)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_probabilities_of_views_are_averaged(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_task, "model_from_config", lambda *args: Mean())
    task = build(loss=dict(name=loss), clip=dict(frames=4, eval_clips=2, eval_crops=3))
    assert task.eval_kinds["clip"].spec()[""].shape == (6, 4, 8, 8, 3)
    clips = np.random.default_rng(0).integers(0, 256, (3, 6, 4, 8, 8, 3), np.uint8)
    clips[0, 1] = 255
    labels, mask = jnp.array([4, 0, 2]), jnp.array([1.0, 1.0, 0.0])
    batch = {"clip": jnp.asarray(clips), "label": labels, "mask": mask}
    logits = jax.jit(task.predict)({}, batch)
    means = (clips / 127.5 - 1).mean(axis=(2, 3, 4, 5))[..., None] * np.arange(5.0)
    squash = jax.nn.softmax if loss == "softmax" else jax.nn.sigmoid
    np.testing.assert_allclose(squash(logits), squash(means).mean(axis=1), atol=1e-5)
    assert float(task.measure(logits, batch)["images"]) == 2  # videos, not views
    one = build(loss=dict(name=loss))
    first = {**batch, "clip": batch["clip"][:, 1:2]}
    np.testing.assert_allclose(one.predict({}, first), means[:, 1], atol=1e-5)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match=r"'vit_ti16' sees images, .* sees clips: swin3d_tiny"):
        build(model=dict(name="vit_ti16"))
    with pytest.raises(ValueError, match=r"eval_crops=2: each is 1 or more, and eval_crops 1 or 3"):
        build(clip=dict(eval_crops=2))
    with pytest.raises(ValueError, match="the task video needs a label for each clip"):
        task_from_config(read_config(dict(task="video", model=SMALL)), INFO._replace(classes=()))
    said = dict(task="classification", model=SMALL)
    with pytest.raises(ValueError, match="sees clips, and classification has images"):
        task_from_config(read_config(said), INFO)


def test_clips_are_as_long_as_the_config_says() -> None:
    task = build(model=dict(name="vivit_b16x2", width=8, depth=1, num_heads=1, patch_size=4))
    shapes = abstract_init(task.init, jax.random.key(0))
    assert shapes["params"]["pos_embed"].shape == (1, 1 + 2 * 2 * 2, 8)


@pytest.mark.parametrize("name", ["swin3d_tiny", "swin3d_base", "vivit_b16x2"])
def test_recipes_are_configs_of_the_task(name: str) -> None:
    config: Any = load_config(f"{ROOT}/configs/video.py:{name}", {})
    assert config.clip.frames * config.clip.stride == 64
    steps = count_steps(config, 240_436)
    assert steps == round(30 * 240_436 / 64) and config.schedule.warmup_steps < steps / 10
    assert config.data.mean == ((0.5,) * 3 if name == "vivit_b16x2" else (0.485, 0.456, 0.406))
    trained = sum(rate for _, rate in config.optimizer.learning_rate_rules)
    assert trained == (1.0 if name == "vivit_b16x2" else 1.1)


FLAGS = [
    *("--config=video", "--config.steps=3", "--config.schedule.warmup_steps=0"),
    *("--config.model.dims=8,", "--config.model.depths=1,", "--config.model.num_heads=2,"),
    *("--config.model.mixer=full", "--config.mixing.cutmix=1.0", "--config.mixing.erase=0.25"),
    *("--config.clip.frames=4", "--config.clip.eval_clips=2", "--config.data.image_size=16"),
    *("--config.data.train=moving://?size=16&count=60", "--config.data.batch_size=8"),
    *("--config.data.test=moving://?size=16&count=60", "--config.data.eval_batch_size=8"),
]


@pytest.mark.slow
def test_a_run_trains_and_tells_the_class_of_a_file(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, films = tmp_path / "run", tmp_path / "films"
    assert train.main([*FLAGS, f"--workdir={run}"]) == 0
    told = capsys.readouterr().out
    assert "8 classes" in told and f"vitjax predict --workdir={run} video.mp4" in told
    films.mkdir()
    writer = cv2.VideoWriter(str(films / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (16, 16))
    for frame in open_source("moving://?size=16", "test")[0]["clip"]:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    (films / "b.mp4").write_bytes(b"no video")
    assert main(["predict", f"--workdir={run}", str(films)]) == 2  # one file of two
    said = capsys.readouterr()
    assert "right" in said.out and "%" in said.out
    assert "b.mp4" in said.out + said.err
    assert "no video that OpenCV can decode" in said.out + said.err
