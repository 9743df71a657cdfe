"""Clips: which frames are read, what moves them, sources of videos, and what bad input costs."""

import itertools
import logging
import pathlib
from typing import Any

import cv2
import numpy as np
import pytest

from vitjax.data import BadImage, open_source
from vitjax.data.clips import Clip, Views, frame_places, three_windows
from vitjax.data.codecs.video import FrameFiles, VideoFile
from vitjax.data.kinds import Image, Label
from vitjax.data.pipeline import eval_batches, train_batches
from vitjax.data.sources.moving import DIRECTIONS, SPEEDS, move
from vitjax.data.transforms.augment import evaluation, parse_augmentation
from vitjax.data.transforms.crops import Window


def film(path: pathlib.Path, frames: int, size: tuple[int, int] = (16, 24)) -> pathlib.Path:
    """Write a video whose frame i is gray of 8 · i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), kind, 25, (size[1], size[0]))
    for i in range(frames):
        writer.write(np.full((*size, 3), 8 * i, np.uint8))
    writer.release()
    return path


def shown(frames: Any) -> list[int]:
    """Numbers of the frames of a film."""
    return np.rint(np.asarray(frames, float).mean(axis=(-3, -2, -1)) / 8).astype(int).tolist()


def ramp(frames: int, size: tuple[int, int] = (4, 6)) -> np.ndarray:
    """A video in memory whose frame i is gray of 8 · i."""
    levels = 8 * np.arange(frames, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, *size, 3)).copy()


def test_frames_of_a_file_are_those_that_are_asked_for(tmp_path: pathlib.Path) -> None:
    video = VideoFile(str(film(tmp_path / "a.avi", 23)))
    assert len(video) == 23
    for places in ([0, 1, 2], [7, 9, 11, 13], [22], [3, 3, 21, 22, 22]):
        assert shown(video.read(places)) == places
    assert shown(video.read([21, 22, 40])) == [21, 22, 22]  # a file that claims too many


def test_frames_that_are_files() -> None:
    files = [cv2.imencode(".png", frame)[1].tobytes() for frame in ramp(5)]
    assert shown(FrameFiles(files, "x").read([0, 2, 2, 4])) == [0, 2, 2, 4]


def test_a_clip_is_a_function_of_seed_and_place() -> None:
    kind = Clip(4, frames=3, stride=4)
    starts = {shown(kind.draw(ramp(20), np.random.default_rng(i)))[0] for i in range(99)}
    assert starts == set(range(12))  # 9 frames of 20, anywhere
    assert shown(kind.draw(ramp(20), None)) == [6, 10, 14]

    class Ramps:
        info = open_source("moving://?size=8&frames=2", "test").info

        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> Any:
            return {"clip": ramp(20), "label": i}

        def example_name(self, i: int) -> str:
            return str(i)

    def batches(seed: int, start: int = 0) -> Any:
        kinds = {"clip": kind, "label": Label(8)}
        found = train_batches(Ramps(), kinds=kinds, batch_size=3, seed=seed, start_step=start)
        return [
            [(*shown(clip), label) for clip, label in zip(b["clip"], b["label"], strict=True)]
            for b in itertools.islice(found, 4 - start)
        ]

    first = batches(seed=1)
    assert batches(seed=1) == first and batches(seed=1, start=2) == first[2:]
    assert batches(seed=2) != first
    of_epochs = [sorted(first[i] + first[i + 1]) for i in (0, 2)]
    assert of_epochs[0] != of_epochs[1]  # another part of the same videos


def test_views_are_spread_over_the_video_and_its_longer_side() -> None:
    kind = Views(4, frames=3, stride=2, clips=4, crops=3)
    video = ramp(24, (4, 8))
    video[..., 0] += np.arange(8, dtype=np.uint8)  # columns differ in red
    fields = evaluation(1.0)({"clip": video}, {"clip": kind}, None)
    array = kind.encode(fields["clip"])[""]
    assert array.shape == kind.spec()[""].shape == (12, 3, 4, 4, 3)
    assert [int(a[0, 0, 0, 1]) // 8 for a in array[::3]] == [2, 7, 12, 17]  # of 20 places
    lefts = array[:3, 0, 0, 0, 0].astype(int) - array[:3, 0, 0, 0, 1]
    assert lefts.tolist() == [0, 2, 4]
    wide, tall = (
        three_windows(Window(0, 4, 8, 8), (8, 16)),
        three_windows(Window(4, 0, 8, 8), (16, 8)),
    )
    assert [w.left for w in wide] == [w.top for w in tall] == [0, 4, 8]


def test_all_frames_are_cropped_flipped_and_coloured_alike() -> None:
    line = "crop(area=(0.2, 0.5)) | flip | jitter"
    still = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    augment, rng = parse_augmentation(line), [np.random.default_rng(3) for _ in range(2)]
    found = augment({"clip": np.stack([still] * 7)}, {"clip": Clip(5, frames=3)}, rng[0])["clip"]
    rng[1].integers(5)  # where a clip of three frames begins
    single = augment({"image": still}, {"image": Image(5)}, rng[1])["image"]
    np.testing.assert_array_equal(found, np.stack([single] * 3))


def test_a_short_video_repeats_its_last_frame_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kind = Clip(4, frames=5, stride=3)
    assert frame_places(7, 0, 5, 3) == [0, 3, 6, 6, 6]
    for _ in range(2):
        assert shown(kind.draw(ramp(7), np.random.default_rng(0))) == [0, 3, 6, 6, 6]
    said = [r.message for r in caplog.records if "fewer frames than a clip of 5" in r.message]
    assert len(said) == 1


def test_what_is_no_video_is_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(BadImage, match="it is no video that OpenCV can decode"):
        len(VideoFile(str(tmp_path / "notes.mp4")))
    with pytest.raises(BadImage, match=r"'b\.mp4': there is no such file"):
        len(VideoFile(str(tmp_path / "b.mp4"), "b.mp4"))


def test_a_folder_of_videos_by_class(tmp_path: pathlib.Path, caplog: Any) -> None:
    for name in ("run/1.avi", "run/2.avi", "walk/1.avi", "walk/2.avi"):
        film(tmp_path / name, 6)
    uri = f"folder://{tmp_path}?files=videos"
    source = open_source(uri, "all")
    assert source.info.classes == ("run", "walk")
    assert source.info.fields == {"clip", "label"}
    assert source.example_name(2) == "walk/1.avi" and source[2]["label"] == 1
    (tmp_path / "run" / "1.avi").write_bytes(b"damaged")
    kinds = {"clip": Views(8, frames=3), "label": Label(2)}
    caplog.set_level(logging.WARNING)
    (batch,) = eval_batches(source, kinds=kinds, batch_size=4, on_bad_image="skip")
    assert batch["mask"].tolist() == [0, 1, 1, 1]
    assert "run/1.avi" in caplog.text
    assert shown(batch["clip"][1, 0]) == [2, 3, 4]
    (tmp_path / "walk" / "1.avi").unlink()
    (tmp_path / "walk" / "2.avi").unlink()
    with pytest.raises(ValueError, match=r"'walk' of .* has no videos"):
        open_source(uri, "all")
    with pytest.raises(ValueError, match="Videos are decoded from disks, not from 'gs://b'"):
        open_source("folder://gs://b?files=videos", "all")


def test_tables_of_kinetics(tmp_path: pathlib.Path) -> None:
    film(tmp_path / "v" / "a.avi", 5)
    train, val = tmp_path / "train.csv", tmp_path / "val.csv"
    train.write_text("label,youtube_id,path\nwalk,x,v/a.avi\nrun,y,v/b.avi\n")
    val.write_text("v/a.avi,run\n")
    source = open_source(f"kinetics://{tmp_path}", "train")
    assert source.info.classes == ("run", "walk") and len(source) == 2
    assert source[0]["label"] == 1 and len(source[0]["clip"]) == 5
    assert open_source(f"kinetics://{tmp_path}", "test")[0]["label"] == 0
    val.write_text("v/a.avi,jump\n")
    with pytest.raises(ValueError, match=r"label 'jump', which no line of train\.csv has"):
        open_source(f"kinetics://{tmp_path}", "test")
    val.write_text("path,label\n")
    with pytest.raises(ValueError, match=r"val\.csv' is empty: give it a line"):
        open_source(f"kinetics://{tmp_path}", "test")
    val.write_text("v/a.avi run\n")
    with pytest.raises(ValueError, match="has 1 columns"):
        open_source(f"kinetics://{tmp_path}", "test")
    train.unlink()
    with pytest.raises(ValueError, match=r"has no train\.csv"):
        open_source(f"kinetics://{tmp_path}", "train")


def test_moving_digits_are_functions_of_seed_and_index() -> None:
    one, again = (open_source("moving://?count=40&seed=5", "train") for _ in range(2))
    for i in (0, 17):
        np.testing.assert_array_equal(one[i]["clip"], again[i]["clip"])
    assert one[17]["label"] == 1 and one.info.classes[1] == "down right"
    other = open_source("moving://?count=40&seed=6", "train")
    assert other.info.fingerprint != one.info.fingerprint
    assert np.any(other[0]["clip"] != one[0]["clip"])
    assert len(open_source("moving://?count=40", "test")) == 4
    with pytest.raises(ValueError, match=r"size of 8 or more, .* size=4"):
        open_source("moving://?size=4", "train")


def test_the_digit_moves_as_its_class_says() -> None:
    source = open_source("moving://?size=16&frames=5", "test")
    for i in range(16):
        clip, label = source[i]["clip"].astype(int), source[i]["label"]
        step = np.array(list(DIRECTIONS.values())[label])
        shifts = [tuple(s * step) for s in SPEEDS]
        fits = [
            all((np.roll(a, s, axis=(0, 1)) == b).all() for a, b in itertools.pairwise(clip))
            for s in shifts
        ]
        assert sum(fits) == 1


def test_single_frames_tell_nothing() -> None:
    """Over all beginnings, frame t of each direction and speed shows the same frames."""
    rng = np.random.default_rng(0)
    scan, white = rng.integers(0, 256, (8, 8), np.uint8), np.full(3, 255)
    seen = set()
    for step, speed in itertools.product(DIRECTIONS.values(), SPEEDS):
        starts = itertools.product(range(8), repeat=2)
        frames = [move(scan, 8, 4, np.array(at), speed * np.array(step), white)[3] for at in starts]
        seen.add(tuple(sorted(frame.tobytes() for frame in frames)))
    assert len(seen) == 1 and len(set(next(iter(seen)))) == 64
