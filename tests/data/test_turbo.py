"""Parts of JPEG files by libturbojpeg are those that OpenCV decodes, to the last bit."""

import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from tests.data.pictures import encoded, noise
from vitjax.data.codecs import turbo
from vitjax.data.codecs.image import Box, Picture
from vitjax.data.source import BadImage

needs_library = pytest.mark.skipif(
    turbo.library() is None, reason="needs libturbojpeg 3; VITJAX_TURBOJPEG may name its file"
)
SAMPLING = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
}


def jpeg(height: int, width: int, sampling: str = "420", progressive: bool = False) -> bytes:
    pixels = cv2.GaussianBlur(noise(height, width), (0, 0), 1.5)
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLING[sampling]]
    options += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def boxes(height: int, width: int, count: int = 40) -> list[Box]:
    rng = np.random.default_rng(0)
    found = [Box(0, 0, height, width), Box(height - 1, width - 1, 1, 1), Box(0, 0, 1, 1)]
    for _ in range(count):
        h, w = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        found.append(Box(top, left, h, w))
    return found


def part_without(data: bytes, box: Box, reduce: int, monkeypatch) -> np.ndarray:
    with monkeypatch.context() as without:
        without.setattr(turbo, "decode_part", lambda *_: None)
        return Picture(data).part(box, reduce)


@needs_library
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_every_part_is_opencvs(sampling, progressive, reduce, monkeypatch):
    height, width = 131, 167
    data = jpeg(height, width, sampling, progressive)
    for box in boxes(height, width):
        expected = part_without(data, box, reduce, monkeypatch)
        monkeypatch.setattr("vitjax.data.codecs.image._opencv", None)  # it is not asked
        np.testing.assert_array_equal(Picture(data).part(box, reduce), expected, err_msg=str(box))
        monkeypatch.undo()


@needs_library
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (17, 16)])
def test_small_and_gray(size, monkeypatch):
    gray = encoded(".jpg", noise(*size)[..., 0])
    for data in (jpeg(*size), gray):
        for box in boxes(*size, count=7):
            expected = part_without(data, box, 1, monkeypatch)
            np.testing.assert_array_equal(Picture(data).part(box), expected)


@needs_library
def test_threads_have_decoders_of_their_own():
    data = jpeg(131, 167)
    whole, wrong = Picture(data).part(Box(0, 0, 131, 167)), []

    def work() -> None:
        for top, left, height, width in boxes(131, 167, 200):
            part = Picture(data).part(Box(top, left, height, width))
            if (part != whole[top : top + height, left : left + width]).any():
                wrong.append((top, left, height, width))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_library
def test_what_it_objects_to_is_left_to_opencv():
    data = jpeg(64, 64)
    size, rectangle = (64, 64), (3, 5, 60, 30)
    assert turbo.decode_part(data, size, rectangle) is not None
    for damaged in (data[: len(data) // 2], data[:4], b"no image", b""):
        assert turbo.decode_part(damaged, size, rectangle) is None
    assert turbo.decode_part(data, (640, 64), (300, 5, 20, 30)) is None  # beyond the image


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused_wherever_the_part_lies(kept):
    data = jpeg(64, 64)
    with pytest.raises(BadImage, match="truncated"):
        Picture(data[: int(kept * len(data))]).part(Box(3, 5, 10, 30))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("0", "None"),
        ("/no/such/file.so", "VITJAX_TURBOJPEG='/no/such/file.so' is not"),
        (cv2.__file__, "is not libturbojpeg of version 3 or later"),
    ],
)
def test_the_variable_is_obeyed_or_refused(chosen, message):
    code = "from vitjax.data.codecs import turbo\ntry: print(turbo.library())\n"
    code += "except ValueError as error: print(error)"
    environment = {**os.environ, "VITJAX_TURBOJPEG": chosen}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert message in done.stdout


def test_without_the_library_parts_are_decoded_all_the_same(monkeypatch):
    monkeypatch.setattr(turbo, "library", lambda: None)
    data = jpeg(64, 48)
    whole = Picture(data).part(Box(0, 0, 64, 48))
    np.testing.assert_array_equal(Picture(data).part(Box(5, 7, 30, 20)), whole[5:35, 7:27])
