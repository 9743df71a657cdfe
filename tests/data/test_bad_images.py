"""Pictures as they are found: decoded right, or refused by name."""

import io
import itertools
import struct

import cv2
import numpy as np
import pytest

from tests.data.pictures import (
    encoded,
    eval_batches,
    noise,
    palette_png,
    train_batches,
    with_orientation,
)
from vitjax.data import BadImage
from vitjax.data.codecs.headers import read_header
from vitjax.data.codecs.image import Box, Picture, decode
from vitjax.data.sources.arrays import Arrays

Image = pytest.importorskip("PIL.Image")


def smooth(height, width, seed=0):
    coarse = noise(5, 7, seed)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole(data):
    picture = Picture(data)
    return picture.part(Box(0, 0, picture.height, picture.width))


EXTENSIONS = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".jp2", ".avif", ".gif")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_headers_say_the_size(extension):
    header = read_header(encoded(extension, smooth(61, 83)))
    assert header is not None
    assert (header.height, header.width) == (61, 83)
    lossless = cv2.imencode(".webp", smooth(61, 83), [cv2.IMWRITE_WEBP_QUALITY, 101])[1]
    assert read_header(lossless.tobytes())[:2] == (61, 83)


def test_headers_of_damaged_files_say_nothing_or_something():
    for extension in EXTENSIONS:
        data = encoded(extension, smooth(61, 83))
        for end in range(0, min(len(data), 200), 7):
            read_header(data[:end])
    for seed in range(50):
        read_header(b"\xff\xd8" + noise(1, 40, seed).tobytes())
        read_header(b"II*\0" + noise(1, 40, seed).tobytes())


def test_cmyk():
    image = Image.fromarray(smooth(40, 60)[..., ::-1]).convert("CMYK")
    data = saved(image, "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(whole(data) - expected).max() <= 1


def test_gray_palette_sixteen_bits_and_alpha():
    gray = smooth(40, 60)[..., 0]
    assert np.abs(whole(encoded(".jpg", gray)).astype(int) - gray[..., None]).max() <= 12
    palette = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]])
    indices = np.random.default_rng(0).integers(0, 3, (5, 7))
    np.testing.assert_array_equal(whole(palette_png(palette, indices)), palette[indices])
    deep = smooth(9, 9).astype(np.uint16) * 257
    np.testing.assert_allclose(whole(encoded(".png", deep)), smooth(9, 9)[..., ::-1], atol=1)
    rgba = np.dstack([smooth(8, 8), noise(8, 8)[..., 0]])
    np.testing.assert_array_equal(whole(saved(Image.fromarray(rgba), "PNG")), smooth(8, 8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation):
    data = with_orientation(encoded(".jpg", smooth(24, 40)), orientation)
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    picture = Picture(data)
    assert (picture.height, picture.width) == expected.shape[:2]
    assert np.abs(whole(data).astype(int) - expected).max() <= 4


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_one_pixel(extension):
    source = Arrays([encoded(extension, np.full((1, 1, 3), 200, np.uint8))] * 2, [0, 1])
    for augment in ("crop_flip", "deit", "deit3", "none"):
        batch = next(train_batches(source, batch_size=2, image_size=8, augment=augment))
        assert batch["mask"].all()


def bomb(kind):
    """A file of a few bytes that claims 20,000×20,000 pixels."""
    size = struct.pack(">II", 20_000, 20_000)
    if kind == "png":
        body = b"IHDR" + size + bytes([8, 2, 0, 0, 0])
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + bytes(4)
    if kind == "jpg":
        data = encoded(".jpg", noise(8, 8))
        at = read_header(data).cut
        return data[:at] + struct.pack(">HH", 20_000, 20_000) + data[at + 4 :]
    data = encoded(".bmp", noise(8, 8))
    return data[:18] + struct.pack("<ii", 20_000, 20_000) + data[26:]


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(kind):
    source = Arrays([bomb(kind)], [0])
    with pytest.raises(BadImage, match="'array 0': its header says 20000×20000 pixels"):
        list(eval_batches(source, batch_size=1, image_size=8, num_threads=0))


def test_a_bomb_in_a_palette():
    data = palette_png(np.zeros((2, 3)), np.zeros((1, 1), int))
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 3, 0, 0, 0)
    with pytest.raises(BadImage, match="decompression bomb"):
        Picture(data.replace(data[16:29], head))


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_a_part_is_the_part_of_the_whole(progressive, reduce):
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", smooth(151, 203), options)[1].tobytes()
    full, rng = decode(data, "", reduce), np.random.default_rng(0)
    for _ in range(12):
        height, width = int(rng.integers(1, 152)), int(rng.integers(1, 204))
        box = Box(int(rng.integers(152 - height)), int(rng.integers(204 - width)), height, width)
        rows, columns = max(round(height / reduce), 1), max(round(width / reduce), 1)
        top, left = box.top // reduce, box.left // reduce
        expected = full[top : top + rows, left : left + columns]
        np.testing.assert_array_equal(Picture(data).part(box, reduce), expected)


@pytest.mark.parametrize("sampling", [0x111111, 0x211111, 0x221111, 0x411111])
def test_a_part_is_exact_for_every_chroma_sampling(sampling):
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    data = cv2.imencode(".jpg", noise(100, 64), options)[1].tobytes()
    full = decode(data)
    for end in (*range(1, 35), 63, 64, 65, 99, 100):
        part = Picture(data).part(Box(0, 0, end, 64))
        np.testing.assert_array_equal(part, full[:end])


def test_parts_say_nothing_on_standard_error(capfd):
    Picture(encoded(".jpg", noise(200, 50))).part(Box(0, 0, 20, 50))
    assert capfd.readouterr().err == ""


def test_a_truncated_file_is_refused_even_if_the_part_is_there():
    data = encoded(".jpg", noise(200, 50))
    with pytest.raises(BadImage, match="truncated"):
        Picture(data[: len(data) * 3 // 4]).part(Box(0, 0, 20, 50))


def test_skipping_has_a_limit():
    good, bad = encoded(".png", noise(9, 9)), b"rubbish"
    source = Arrays([good, bad, bad, good, bad, good], [0, 1, 0, 1, 0, 1])
    options = {"batch_size": 6, "image_size": 8, "num_threads": 0, "on_bad_image": "skip"}
    batches = train_batches(source, **options, max_bad_images=3)
    counts = [int((b["mask"] == 0).sum()) for b in itertools.islice(batches, 3)]
    assert counts == [3, 3, 3]  # the same three, each epoch
    with pytest.raises(BadImage, match=r"number 3 of the images .* \(others are array \d, array"):
        next(train_batches(source, **options, max_bad_images=2))
    with pytest.raises(BadImage, match="max_bad_images=0"):
        list(eval_batches(source, **options, max_bad_images=0))
