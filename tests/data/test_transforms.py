import numpy as np
import pytest

from tests.data.pictures import applied, augmented, coordinates, encoded, noise
from vitjax.data.kinds import Image, TokenScores
from vitjax.data.transforms.augment import AUGMENTATIONS, parse_augmentation
from vitjax.data.transforms.crops import resize, view
from vitjax.data.transforms.moves import random_affine

SIZES = [(1, 1), (1, 300), (300, 1), (8, 8), (5, 9), (400, 300), (31, 37), (2, 2000)]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", SIZES)
def test_every_augmentation_takes_every_size(name, shape):
    image = noise(*shape)
    before = image.copy()
    first, again = (augmented(name, image, rng(1), 24) for _ in range(2))
    assert first.shape == (24, 24, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", ["digits", "crop_flip"])
def test_random_augmentations_differ(name):
    results = {augmented(name, noise(40, 40), rng(i), 16).tobytes() for i in range(20)}
    assert len(results) == 20


@pytest.mark.parametrize("kernel", ["area", "bicubic"])
def test_centre_is_the_evaluation_transform(kernel):
    jpeg = encoded(".jpg", noise(53, 71))
    for options, crop in (("", 1.0), ("fraction=1, ", 1.0), ("fraction=0.8, ", 0.8)):
        augmentation = parse_augmentation(f"centre({options}interpolation={kernel!r})")
        kinds = {"image": Image(31), "map": TokenScores((1, 1, 1))}
        found = augmentation({"image": jpeg, "map": (None, None)}, kinds, rng())
        shown, placed = found["image"], found["map"]
        np.testing.assert_array_equal(shown, view(jpeg, 31, crop, kernel))
        # The middle of the image, as shares of it: the short side's 31 of int(31 / crop) pixels.
        side = 31 / int(31 / crop)
        np.testing.assert_allclose(placed.box[2], side)
        np.testing.assert_allclose(placed.box[3], side * 53 / 71, rtol=0.03)
        middle = np.array(placed.box[:2]) + np.array(placed.box[2:]) / 2
        np.testing.assert_allclose(middle, 0.5, atol=0.02)
    for name in ("none", "centre"):
        np.testing.assert_array_equal(augmented(name, jpeg, rng(), 31), view(jpeg, 31))


def test_digits_keep_their_border():
    image = noise(8, 8)
    np.testing.assert_array_equal(view(image, 16), resize(image, 16))
    np.testing.assert_array_equal(view(image, 8), image)
    crop = parse_augmentation("digits").crop
    assert crop(8, 8, rng(), 32) == (0, 0, 8, 8)


def test_shrinking_averages():
    image = noise(8, 8)
    means = image.reshape(2, 4, 2, 4, 3).mean((1, 3))
    assert np.abs(resize(image, 2) - means).max() <= 0.51


def test_enlarging_a_constant_or_a_ramp():
    assert (resize(np.full((3, 5, 3), 7, np.uint8), 9) == 7).all()
    ramp = resize(coordinates(10, 10), 40)
    assert (np.diff(ramp[..., 1].astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize(
    ("shape", "size", "crop", "side"),
    [
        ((300, 400), 224, 0.875, 262.5),
        ((400, 300), 64, 0.875, 263),
        ((30, 40), 32, 0.875, 26.7),
        ((30, 40), 32, 1.0, 30),
    ],
)
def test_evaluation_sees_the_central_square(shape, size, crop, side):
    image = view(coordinates(*shape), size, crop).astype(float)
    for axis, length in enumerate(shape):
        low, high = (length - side) / 2 / length * 250, (length + side) / 2 / length * 250
        assert abs(image[..., axis].min() - low) <= 250 / size + 2
        assert abs(image[..., axis].max() - high) <= 250 / size + 2


@pytest.mark.parametrize(("shape", "wide"), [((300, 400), True), ((300, 300), False)])
def test_a_square_larger_than_the_image_is_black_beside_it(shape, wide):
    # VOLO-D4's 1.15 of 224: the short side becomes 194 or 195 pixels, 15 black ones on either side.
    image = view(np.full((*shape, 3), 250, np.uint8), 224, 1.15, "bicubic")
    rows, columns = (image > 125).all(-1).any(1), (image > 125).all(-1).any(0)
    assert abs(rows.sum() - 224 / 1.15) <= 1
    assert not rows[:14].any()
    assert not rows[-14:].any()
    assert columns.sum() == (224 if wide else rows.sum())
    assert (image[20:-20, 20:-20] == 250).all()
    assert (image[:12] == 0).all()


def crop_box(image):
    """Height and width of the crop as shares of the image, from its coordinates."""
    spread = image.max((0, 1)).astype(float) - image.min((0, 1))
    return (spread[:2] + 250 / 200) / 250


def test_a_random_crop_keeps_to_its_ranges():
    image = coordinates(200, 250)
    boxes = np.array([crop_box(augmented("crop", image, rng(i), 64)) for i in range(300)])
    areas = boxes.prod(1)
    ratios = boxes[:, 1] * 250 / (boxes[:, 0] * 200)
    assert 0.06 < areas.min() < 0.12
    assert 0.85 < areas.max() < 1.03
    assert 0.68 < ratios.min() < 0.8
    assert 1.27 < ratios.max() < 1.45


def test_a_random_crop_of_the_whole_area_is_the_image():
    image = noise(32, 32)
    whole = augmented("crop(area=(1.0, 1.0), ratio=(1.0, 1.0))", image, rng(), 32)
    np.testing.assert_array_equal(whole, image)


def test_a_random_crop_of_a_strip_is_its_centre():
    image = coordinates(10, 1000)
    crop = augmented("crop(area=(0.9, 1.0))", image, rng(), 10)
    assert abs(float(crop[..., 1].mean()) - 125) < 2


def test_crop_flip_mirrors_half_of_the_images():
    image = coordinates(64, 64)
    crops = [augmented("crop_flip", image, rng(i), 32).astype(int) for i in range(200)]
    mirrored = [crop[0, 0, 1] > crop[0, -1, 1] for crop in crops]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_affine_without_motion_changes_nothing():
    image = noise(16, 16)
    same = applied(random_affine, image, rng(), degrees=0.0, scale=(1.0, 1.0), shift=0.0)
    np.testing.assert_array_equal(same, image)


def moments(image):
    """Mass, centre (y, x) and the angle of the long axis in degrees."""
    weights = image[..., 0].astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    mass = weights.sum()
    cy, cx = (weights * y).sum() / mass, (weights * x).sum() / mass
    yy, xx, xy = (
        (weights * a * b).sum() for a, b in [(y - cy, y - cy), (x - cx, x - cx), (x - cx, y - cy)]
    )
    return mass, np.array([cy, cx]), np.degrees(0.5 * np.arctan2(2 * xy, xx - yy))


def test_affine_keeps_to_its_ranges():
    bar = np.zeros((64, 64, 3), np.uint8)
    bar[28:36, 16:48] = 255
    results = [moments(applied(random_affine, bar, rng(i))) for i in range(300)]
    scale = np.sqrt(np.array([mass for mass, _, _ in results]) / moments(bar)[0])
    shift = np.array([centre for _, centre, _ in results]) - 31.5
    angle = np.array([angle for _, _, angle in results])
    for values, low, high, slack in [
        (scale, 0.85, 1.15, 0.02),
        (shift[:, 0], -6.4, 6.4, 0.3),
        (shift[:, 1], -6.4, 6.4, 0.3),
        (angle, -15, 15, 0.7),
    ]:
        assert low - slack / 10 <= values.min() <= low + 3 * slack
        assert high - 3 * slack <= values.max() <= high + slack / 10
