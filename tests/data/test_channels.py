"""Images of 1 to 16 channels: what is decoded, how they move, and what is refused."""

import io
import pathlib

import cv2
import numpy as np
import pytest

from vitjax.data import open_source, pipeline
from vitjax.data.canvas import WholeImage
from vitjax.data.codecs.image import Box, Picture
from vitjax.data.kinds import Image, image_and_label
from vitjax.data.source import BadImage
from vitjax.data.sources.arrays import Arrays
from vitjax.data.transforms.augment import check_channels, evaluation, parse_augmentation
from vitjax.data.transforms.degrade import degrade


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth(height: int, width: int, channels: int) -> np.ndarray:
    coarse = noise(7, 5, channels)
    planes = [cv2.resize(coarse[..., i], (width, height)) for i in range(channels)]
    return np.stack(planes, axis=-1)


def file(image: np.ndarray, kind: str, **options: object) -> bytes:
    from PIL import Image as Pillow

    data = io.BytesIO()
    Pillow.fromarray(image).save(data, kind, **options)
    return data.getvalue()


def npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    data = io.BytesIO()
    tifffile.imwrite(data, array, **options)
    return data.getvalue()


def whole(data: bytes | np.ndarray, channels: int) -> np.ndarray:
    return Picture(data, "a", channels).whole()


def test_gray_files_have_one_channel_or_three_equal_ones() -> None:
    gray = noise(13, 11)
    deep = noise(13, 11, dtype=np.uint16)
    for data, expected in (
        (file(gray, "PNG"), gray),
        (cv2.imencode(".png", deep)[1].tobytes(), np.rint(deep / 257).astype(np.uint8)),
        (npy(gray), gray),
        (npy(deep), np.rint(deep / 257).astype(np.uint8)),
    ):
        np.testing.assert_array_equal(whole(data, 1), expected[..., None])
        np.testing.assert_array_equal(whole(data, 3), np.repeat(expected[..., None], 3, -1))
    jpeg = file(smooth(47, 31, 1)[..., 0], "JPEG", quality=90)
    np.testing.assert_array_equal(whole(jpeg, 1)[..., 0], whole(jpeg, 3)[..., 1])


def test_colours_become_their_luma() -> None:
    from PIL import Image as Pillow

    image = noise(13, 11, 3)
    expected = np.asarray(Pillow.fromarray(image).convert("L")).astype(int)
    for given in (image, file(image, "PNG"), file(image, "WEBP", lossless=True), npy(image)):
        found = whole(given, 1)
        assert found.shape == (13, 11, 1)
        assert np.abs(found[..., 0] - expected).max() <= 1
    jpeg = Picture(file(smooth(64, 96, 3), "JPEG", quality=95), "a", 1)
    colours = Picture(file(smooth(64, 96, 3), "JPEG", quality=95), "a")
    box = Box(16, 8, 32, 48)
    part = cv2.cvtColor(colours.part(box, 2), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(jpeg.part(box, 2)[..., 0], part)


def test_alpha_is_a_fourth_channel_where_it_is_asked_for() -> None:
    image = noise(13, 11, 4)
    for data in (file(image, "PNG"), file(image, "WEBP", lossless=True, exact=True)):
        np.testing.assert_array_equal(whole(data, 4), image)
        np.testing.assert_array_equal(whole(data, 3), image[..., :3])
    deep = noise(13, 11, 4, dtype=np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    expected = np.rint(deep[..., [2, 1, 0, 3]] / 257)
    np.testing.assert_array_equal(whole(data, 4), expected)
    pair = noise(13, 11, 2)
    np.testing.assert_array_equal(whole(file(pair, "PNG"), 2), pair)


@pytest.mark.parametrize("channels", [2, 4, 5, 13, 16])
def test_tiff_files_have_any_number_of_channels(channels: int) -> None:
    options = dict(photometric="minisblack")
    image, deep = noise(13, 11, channels), noise(13, 11, channels, dtype=np.uint16)
    found = whole(tiff(image, planarconfig="contig", compression="zlib", **options), channels)
    np.testing.assert_array_equal(found, image)
    planes = np.ascontiguousarray(np.moveaxis(deep, -1, 0))
    found = whole(tiff(planes, planarconfig="separate", byteorder=">", **options), channels)
    np.testing.assert_array_equal(found, np.rint(deep / 257).astype(np.uint8))


def test_arrays_have_any_number_of_channels_and_byte_order() -> None:
    deep = noise(13, 11, 7, dtype=np.uint16)
    expected = np.rint(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(whole(npy(deep.astype(">u2")), 7), expected)
    np.testing.assert_array_equal(whole(npy(np.asfortranarray(deep)), 7), expected)


def test_other_channels_are_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"'a': it has 3 channels, and data.channels=4; set"):
        whole(file(noise(5, 7, 3), "PNG"), 4)
    with pytest.raises(ValueError, match="'a': it has no 5 channels"):
        whole(file(noise(5, 7, 3), "JPEG"), 5)
    with pytest.raises(ValueError, match=r"it has 1 channel, and data.channels=2; set"):
        whole(noise(5, 7), 2)
    with pytest.raises(BadImage, match=r"5 channels of 8 bits; set data.channels=5"):
        whole(tiff(noise(5, 7, 5), photometric="minisblack", planarconfig="contig"), 3)
    with pytest.raises(BadImage, match=r"numbers are float32, and 8 or 16 bits"):
        whole(npy(np.zeros((5, 7), np.float32)), 1)
    with pytest.raises(BadImage, match=r"has shape \(5, 7, 17\)"):
        whole(npy(noise(5, 7, 17)), 3)
    with pytest.raises(BadImage, match="numbers are object"):
        whole(npy(np.array([[None]])), 1)
    with pytest.raises(BadImage, match="truncated or damaged"):
        whole(npy(noise(5, 7, 6))[:-1], 6)
    with pytest.raises(BadImage, match="at most 178,956,970 are decoded"):
        whole(npy(np.zeros((1, 1), np.uint8)).replace(b"(1, 1)", b"(20000, 20000)"), 1)


LINES = (
    "none",
    "crop | flip",
    "crop(interpolation='bicubic') | flip | affine",
    "simple_crop(interpolation='antialias', pad=3) | jitter(saturation=0, contrast=0)",
    "scaled_crop(scale=(0.3, 0.9))",
)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 16])
def test_every_channel_moves_as_if_it_were_alone(line: str, channels: int) -> None:
    image, transform = smooth(53, 71, channels), parse_augmentation(line)

    def seen(given: np.ndarray) -> np.ndarray:
        kinds = {"image": Image((19, 29), channels=given.shape[2])}
        rng = np.random.Generator(np.random.PCG64(5))
        return transform({"image": given}, kinds, rng)["image"]

    planes = [seen(np.ascontiguousarray(image[..., i : i + 1])) for i in range(channels)]
    found = seen(image)
    assert found.shape == (19, 29, channels)
    assert found.dtype == np.uint8
    expected = np.concatenate(planes, axis=-1)  # sums of a filter may round otherwise on some CPUs
    np.testing.assert_allclose(found, expected.astype(int), atol=1 if "antialias" in line else 0)
    assert (found != expected).mean() < 0.01


def test_geometry_of_policies_fills_with_one_gray() -> None:
    from vitjax.data.transforms.moves import FILL, affine

    away = affine((1, 0, 100, 0, 1, 0))
    for channels in (1, 5):
        kind = Image(8, channels=channels)
        moved = kind.move(np.zeros((8, 8, channels), np.uint8), away)
        assert (moved == 117).all()
    moved = Image(8).move(np.zeros((8, 8, 3), np.uint8), away)
    assert (moved == np.array(FILL)).all()


def test_contrast_of_gray_is_about_its_own_mean() -> None:
    from vitjax.data.transforms import pixels

    image = noise(9, 9, 1)
    expected = pixels.contrast(np.repeat(image, 3, axis=-1), 0.5)[..., :1]
    np.testing.assert_array_equal(pixels.contrast(image, 0.5), expected)


def test_changes_of_colours_of_rgb_are_refused_for_others() -> None:
    refused = ("crop | randaugment", "deit", "deit3", "crop | autoaugment", "crop | jitter",
               "crop | jitter(saturation=0, hue=0.1)", "crop | three_augment")  # fmt: skip
    for line in refused:
        check_channels(line, 3)
        with pytest.raises(ValueError, match=r"is defined for RGB, and data.channels=5\. Crops"):
            check_channels(line, 5)
    for line in LINES:
        check_channels(line, 5)
    source = Arrays(noise(4, 9, 9, 5), [0, 1, 0, 1])
    kinds = image_and_label(source.info, 8, 5)
    with pytest.raises(ValueError, match=r"randaugment in data.augment"):
        next(pipeline.train_batches(source, kinds=kinds, batch_size=2, augment="crop|randaugment"))


def test_degradations_treat_channels_alike_and_refuse_others() -> None:
    image = smooth(21, 23, 5)
    for line in ("blur(sigma=1.5)", "down_up(scale=2)"):
        planes = [degrade(line, np.ascontiguousarray(image[..., i : i + 1])) for i in range(5)]
        found = degrade(line, image)
        assert np.abs(found.astype(int) - np.concatenate(planes, axis=-1)).max() <= 1
    for line in ("noise", "motion", "rain"):
        assert degrade(line, image).shape == image.shape
        assert degrade(line, image[..., :1]).shape == (21, 23, 1)
    assert degrade("jpeg", image[..., :1]).shape == (21, 23, 1)
    with pytest.raises(ValueError, match="jpeg is defined for RGB and gray, and the image has 5"):
        degrade("jpeg", image)


def test_whole_images_have_their_channels() -> None:
    image = noise(5, 7, 6)
    kind = WholeImage((8, 9), channels=6)
    assert kind.spec()[""].shape == (8, 9, 6)
    view = evaluation(0.0)({"image": image}, {"image": kind}, None)
    array = kind.encode(view["image"])[""]
    np.testing.assert_array_equal(array[:5, :7], image)
    assert not array[5:].any()
    assert not array[:, 7:].any()


def test_a_folder_of_arrays_is_a_data_set(tmp_path: pathlib.Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            np.save(tmp_path / name / f"{i}.npy", noise(9, 11, 6, seed=i))
    with pytest.raises(
        ValueError, match=r"has \.npy files and no pictures; write 'folder://.*npy'"
    ):
        open_source(str(tmp_path), "train")
    source = open_source(f"{tmp_path}?files=npy", "all")
    batch = next(
        pipeline.eval_batches(
            source, kinds=image_and_label(source.info, (9, 11), 6), batch_size=6, crop=0.0
        )
    )
    np.testing.assert_array_equal(batch["image"][4], noise(9, 11, 6, seed=1))
    np.testing.assert_array_equal(batch["label"], [0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="'npz'; did you mean 'npy'"):
        open_source(f"{tmp_path}?files=npz", "all")
    with pytest.raises(ValueError, match=r"'cat/0.npy': it has 6 channels, and data.channels=3"):
        next(pipeline.eval_batches(source, kinds=image_and_label(source.info, 8), batch_size=6))


def test_made_up_images_have_the_channels_that_are_asked_for() -> None:
    source = open_source("synthetic://?size=20&channels=7&height=12&width=10", "train")
    assert source[0]["image"].shape == (12, 10, 7)
    for wrong in ("channels=17", "channels=0", "channels=5&jpeg=1"):
        with pytest.raises(ValueError, match="is out of range: images have 1"):
            open_source(f"synthetic://?{wrong}", "train")
    plain = open_source("synthetic://", "train").info.fingerprint
    assert plain == open_source("synthetic://?channels=3", "train").info.fingerprint
    assert plain != open_source("synthetic://?channels=1", "train").info.fingerprint
