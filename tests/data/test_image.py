import numpy as np
import pytest

from tests.data.pictures import encoded, noise, palette_png, with_orientation
from vitjax.data.codecs.image import read_image
from vitjax.data.source import BadImage


def read(tmp_path, data: bytes):
    path = tmp_path / "picture.bin"
    path.write_bytes(data)
    return read_image(str(path), "cat/picture")


def test_channels_are_red_green_blue(tmp_path):
    bgr = noise(5, 7)
    np.testing.assert_array_equal(read(tmp_path, encoded(".png", bgr)), bgr[..., ::-1])


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm"])
def test_formats(tmp_path, extension):
    smooth = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    image = read(tmp_path, encoded(extension, smooth))
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - (50, 100, 200)).max() <= 6  # lossy formats


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = noise(5, 7)[..., 0]
    image = read(tmp_path, encoded(".png", gray))
    np.testing.assert_array_equal(image, np.repeat(gray[..., None], 3, -1))


def test_alpha_is_dropped(tmp_path):
    bgr = noise(5, 7)
    rgba = np.concatenate([bgr, np.full((5, 7, 1), 128, np.uint8)], -1)
    np.testing.assert_array_equal(read(tmp_path, encoded(".png", rgba)), bgr[..., ::-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(tmp_path, channels):
    deep = np.random.default_rng(0).integers(0, 2**16, (5, 7, channels), dtype=np.uint16)
    image = read(tmp_path, encoded(".png", deep))
    assert image.dtype == np.uint8
    expected = np.broadcast_to(deep[..., ::-1], (5, 7, 3)) / 257
    assert np.abs(image - expected).max() <= 1


def test_palette(tmp_path):
    palette = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]])
    indices = np.random.default_rng(0).integers(0, 3, (5, 7))
    image = read(tmp_path, palette_png(palette, indices))
    np.testing.assert_array_equal(image, palette[indices])


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_turns_upright(tmp_path, orientation, turns):
    bgr = np.zeros((16, 32, 3), np.uint8)
    bgr[:, :16, 2] = 255  # the left half is red
    image = read(tmp_path, with_orientation(encoded(".jpg", bgr), orientation))
    upright = np.rot90(bgr[..., ::-1], turns)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() <= 3  # JPEG blurs the edge


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [4, 30, 0.5, 0.99, -1])
def test_truncated_files_are_refused_by_name(tmp_path, extension, kept):
    data = encoded(extension, noise(40, 30))
    end = int(kept * len(data)) if isinstance(kept, float) else kept
    with pytest.raises(BadImage, match="'cat/picture': it is truncated, damaged or") as error:
        read(tmp_path, data[:end])
    assert error.value.name == "cat/picture"


@pytest.mark.parametrize("data", [b"x", b"no image at all " * 50, b"\xff\xd8\xff", b"\x89PNG\r\n"])
def test_garbage_is_refused(tmp_path, data):
    with pytest.raises(BadImage, match="'cat/picture': it is truncated, damaged or"):
        read(tmp_path, data)


def test_empty_file_is_refused(tmp_path):
    with pytest.raises(BadImage, match="'cat/picture': the file is empty"):
        read(tmp_path, b"")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(BadImage, match=r"nothing\.png': No such file"):
        read_image(str(tmp_path / "nothing.png"))


def test_bad_image_keeps_its_parts_and_says_them():
    error = BadImage("cat/1.jpg", "the file is empty")
    assert (error.name, error.reason) == ("cat/1.jpg", "the file is empty")
    assert str(error) == "Cannot read image 'cat/1.jpg': the file is empty."
    assert isinstance(error, ValueError)
