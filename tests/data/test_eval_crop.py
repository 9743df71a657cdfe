"""What evaluation sees of an image, against torchvision, and for neighbouring sizes."""

import pathlib

import cv2
import numpy as np
import pytest

from tests.data.pictures import coordinates, encoded, eval_batches, scene
from vitjax.data.codecs.image import decode
from vitjax.data.kinds import Image
from vitjax.data.sources.arrays import Arrays
from vitjax.data.transforms.augment import evaluation, parse_augmentation
from vitjax.data.transforms.crops import INTERPOLATIONS, centre_window, view
from vitjax.train.config import load_config

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "eval_crop.npz"
CASES = {
    "375x500 to 384 at 0.875": (375, 500, 384, 0.875),
    "375x500 to 384 at 1": (375, 500, 384, 1.0),
    "300x451 to 224 at 0.875": (300, 451, 224, 0.875),
    "211x97 to 53 at 0.9": (211, 97, 53, 0.9),
    "31x37 to 67 at 0.96": (31, 37, 67, 0.96),
    "300x400 to 149 at 1.15": (300, 400, 149, 1.15),
    "131x313 to 97 squeezed": (131, 313, 97, 0.0),
}
KERNELS = {"bicubic": "BICUBIC", "antialias": "BILINEAR"}  # ours → torchvision's InterpolationMode


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", CASES)
def test_evaluation_is_torchvisions(case, kernel):
    """torchvision 0.28 with Pillow 12.3: Resize(int(size / crop), mode), CenterCrop(size).

    Squeezed: Resize((size, size), mode). The file has every third row and column of the results.
    """
    height, width, size, crop = CASES[case]
    with np.load(GOLDEN) as golden:
        expected = golden[f"{case}, {kernel}"].astype(int)
    image = scene(height, width)
    difference = np.abs(view(image, size, crop, kernel)[::3, ::3] - expected)
    assert difference.mean() < 0.05
    assert difference.max() <= 2
    if crop:  # the numbers see a window that is half a pixel off
        top, left, rows, columns = centre_window(height, width, size, crop)
        box = (left + 0.5, top + 0.5, left + columns + 0.5, top + rows + 0.5)
        assert np.abs(shifted(image, box, size)[::3, ::3] - expected).mean() > 1


def shifted(image, box, size):
    left, top, right, bottom = box
    scale = (right - left) / size, (bottom - top) / size
    matrix = np.array([[scale[0], 0, left + scale[0] / 2 - 0.5], [0, scale[1], top]])
    matrix[1, 2] += scale[1] / 2 - 0.5
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (size, size), flags=flags).astype(int)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kernel", ["area", "bilinear"])
def test_area_and_bilinear_are_opencvs_on_the_whole_image(case, kernel):
    """The image is resized whole by OpenCV, and `size` pixels of each axis are kept."""
    height, width, size, crop = CASES[case]
    if not crop:
        pytest.skip("the whole image is given to OpenCV")
    image, short = scene(height, width), int(size / crop)
    new = [int(short * old / min(height, width)) for old in (height, width)]
    shrinks = kernel == "area" and short < min(height, width)
    flag = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    whole = cv2.resize(image, (new[1], new[0]), interpolation=flag)
    beside = [max(size - n, 0) for n in new]
    whole = np.pad(whole, [(b // 2, b - b // 2) for b in beside] + [(0, 0)])
    top, left = (round((n - size) / 2) for n in whole.shape[:2])
    expected = whole[top : top + size, left : left + size].astype(int)
    assert np.abs(view(image, size, crop, kernel) - expected).max() <= 1


@pytest.mark.parametrize("crop", [0.875, 1.0, 1.15])
@pytest.mark.parametrize("long", [213, 389])
@pytest.mark.parametrize("kernel", ["area", "bicubic"])
def test_neighbouring_sizes_have_one_field_of_view(crop, long, kernel):
    """Short sides of one pixel less and more than the square's 211 show what 211 shows."""
    spans = []
    for short in (210, 211, 212):
        window = centre_window(short, long, 211, crop)
        assert window.height / short == pytest.approx(211 / int(211 / crop), abs=1e-12)
        image = view(coordinates(short, long), 211, crop, kernel).astype(float)
        seen = image[image[..., 1] > 3, 0]  # not the black beside the image
        spans.append((seen.min(), seen.max()))
    middle = 250 * min(211 / int(211 / crop), 1)
    for low, high in spans:
        assert low == pytest.approx((250 - middle) / 2, abs=2.5)
        assert high == pytest.approx((250 + middle) / 2, abs=2.5)


@pytest.mark.parametrize("kernel", INTERPOLATIONS)
@pytest.mark.parametrize("crop", [0.0, 0.875, 1.0, 1.15])
def test_a_jpeg_file_is_shown_exactly(kernel, crop):
    """No more is decoded than the kernel reaches, and that at full size."""
    jpeg = encoded(".jpg", scene(397, 211))
    expected = view(decode(jpeg), 47, crop, kernel)
    np.testing.assert_array_equal(view(jpeg, 47, crop, kernel), expected)
    if crop in (0.875, 1.0):
        centre = parse_augmentation(f"centre(fraction={crop}, interpolation={kernel!r})")
        found = centre({"image": jpeg}, {"image": Image(47)}, np.random.default_rng(0))["image"]
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def configured(tmp_path):
    (tmp_path / "run.py").write_text("def get_config():\n    return {}\n")

    def load(crop: str | None):
        overrides = {} if crop is None else {"data.eval_crop": crop}
        return load_config(str(tmp_path / "run.py"), overrides, lambda name: {}).data

    return load


def evaluated(image, data):
    batches = eval_batches(
        Arrays([image], [0]),
        batch_size=1,
        image_size=12,
        crop=data.eval_crop,
        interpolation=data.interpolation,
        num_threads=0,
    )
    return next(iter(batches))["image"][0]


def test_a_config_squeezes_crops_or_pads(configured):
    """Nine stripes of 8×24 pixels, side by side: how many of them are seen, and how wide."""
    image = np.repeat(np.arange(9, dtype=np.uint8) * 25 + 25, 8)
    image = np.broadcast_to(image[None, :, None], (24, 72, 3)).copy()
    squeezed = evaluated(image, configured("0"))
    assert set(np.unique(squeezed)) >= {25, 225}  # the first stripe and the last
    np.testing.assert_array_equal(squeezed[0, 0::4, 0], [25, 100, 175])  # 8 × 72 / 12 in each
    whole = evaluated(image, configured("1"))
    np.testing.assert_array_equal(whole[:, :, 0], np.tile(np.repeat([100, 125, 150], 4), (12, 1)))
    np.testing.assert_array_equal(evaluated(image, configured(None)), whole)  # the default
    part = evaluated(image, configured("0.5"))
    np.testing.assert_array_equal(part[:, 4:8, 0], np.full((12, 4), 125))
    padded = evaluated(image, configured("2"))
    assert not padded[:3].any() and not padded[-3:].any() and padded[3:-3].all()
    assert isinstance(configured("0").eval_crop, float)


@pytest.mark.parametrize("crop", ["-0.875", "-1", "2.001", "7"])
def test_other_crops_are_refused(configured, crop):
    data = configured(crop)
    message = rf"cannot crop {float(crop):g} .*data\.eval_crop.*above 0 and at most 2.*or 0 to squ"
    with pytest.raises(ValueError, match=message):
        evaluated(np.zeros((24, 72, 3), np.uint8), data)
    with pytest.raises(ValueError, match=message):
        evaluation(data.eval_crop, data.interpolation)
    with pytest.raises(ValueError, match="Unknown interpolation 'cubic'; did you mean 'bicubic'"):
        evaluation(1.0, "cubic")
