import math
import re

import numpy as np
import pytest
from scipy import stats

from tests.data.pictures import applied, augmented, encoded, moved, noise
from vitjax.data.codecs.image import Box
from vitjax.data.order import epoch_order
from vitjax.data.transforms import moves, pixels, policies
from vitjax.data.transforms.augment import AUGMENTATIONS, parse_augmentation
from vitjax.data.transforms.crops import crop_and_resize, random_box, shifted_box
from vitjax.data.transforms.resample import resize_like_pillow

Image = pytest.importorskip("PIL.Image")


def rng(seed=0):
    return np.random.default_rng(seed)


def close(ours, pillows, limit=1):
    assert np.abs(ours.astype(int) - np.asarray(pillows)).max() <= limit


@pytest.mark.parametrize("kernel", ["bicubic", "antialias"])
@pytest.mark.parametrize("shape", [(300, 400), (37, 91), (224, 224), (10, 1000), (1, 1), (2, 5)])
def test_resizing_is_pillows(kernel, shape):
    image = noise(*shape)
    method = {"bicubic": Image.Resampling.BICUBIC, "antialias": Image.Resampling.BILINEAR}[kernel]
    for size in (64, 224):
        expected = Image.fromarray(image).resize((size, size), method)
        close(resize_like_pillow(image, (size, size), kernel), expected)


@pytest.mark.parametrize("seed", range(3))
def test_pixels_are_pillows(seed):
    from PIL import ImageEnhance, ImageOps

    image = noise(32, 32, seed)
    image = image if seed == 0 else (image // 3 + 40).astype(np.uint8)
    pillow = Image.fromarray(image)
    for factor in (0.1, 0.6, 1.3, 1.9):
        close(pixels.color(image, factor), ImageEnhance.Color(pillow).enhance(factor))
        close(pixels.contrast(image, factor), ImageEnhance.Contrast(pillow).enhance(factor))
        close(pixels.brightness(image, factor), ImageEnhance.Brightness(pillow).enhance(factor))
        close(pixels.sharpness(image, factor), ImageEnhance.Sharpness(pillow).enhance(factor))
    close(pixels.auto_contrast(image), ImageOps.autocontrast(pillow))
    close(pixels.equalize(image), ImageOps.equalize(pillow), 0)
    close(pixels.invert(image), ImageOps.invert(pillow), 0)
    close(pixels.gray(image)[..., 0], pillow.convert("L"))
    for value in (1, 3, 8):
        close(pixels.posterize(image, value), ImageOps.posterize(pillow, value), 0)
        close(pixels.solarize(image, 30 * value), ImageOps.solarize(pillow, 30 * value), 0)


def test_geometry_is_pillows_inside():
    image = np.ascontiguousarray(np.dstack([np.add.outer(np.arange(64), np.arange(64))] * 3) * 2)
    image = image.astype(np.uint8)
    pillow = Image.fromarray(image)
    inner = (slice(20, 44), slice(20, 44))
    bilinear = Image.Resampling.BILINEAR
    close(
        moved(moves.rotate(20.0, (64, 64)), image)[inner],
        np.asarray(pillow.rotate(20.0, bilinear))[inner],
        2,
    )
    for matrix in ((1, 0.3, 0, 0, 1, 0), (1, 0, 7.3, 0, 1, 0), (1, 0, 0, -0.2, 1, 4)):
        expected = pillow.transform((64, 64), Image.Transform.AFFINE, matrix, bilinear)
        close(moved(moves.affine(matrix), image)[inner], np.asarray(expected)[inner], 2)
    outside = moved(moves.affine((1, 0, 64, 0, 1, 0)), image)
    assert (outside == moves.FILL).all()


def test_magnitudes_of_rand_augment():
    """What timm's `rand-m9-inc1` does at magnitude 9, worked out by hand."""
    image = noise(16, 16)

    def at(name, level):
        return moved(policies.RAND_AUGMENT[name](level, rng(3), (16, 16)), image)

    np.testing.assert_array_equal(at("posterize", 9.0), pixels.posterize(image, 1))
    np.testing.assert_array_equal(at("posterize", 0.0), pixels.posterize(image, 4))
    np.testing.assert_array_equal(at("solarize", 9.0), pixels.solarize(image, 26))
    np.testing.assert_array_equal(at("solarize", 0.0), image)
    np.testing.assert_array_equal(at("solarize_add", 9.0), pixels.solarize_add(image, 99))
    np.testing.assert_array_equal(at("posterize", 15.0), np.zeros_like(image))
    np.testing.assert_array_equal(at("solarize", 15.0), 255 - image)
    for name, function in (("color", pixels.color), ("contrast", pixels.contrast)):
        wanted = {function(image, factor).tobytes() for factor in (1.81, 0.19)}
        draws = (policies.RAND_AUGMENT[name](9.0, rng(i), (16, 16)) for i in range(20))
        found = {moved(draw, image).tobytes() for draw in draws}
        assert found == wanted
    assert len(policies.RAND_AUGMENT) == 15
    assert len(policies.IMAGENET_POLICY) == 25
    assert {name for pair in policies.IMAGENET_POLICY for name, *_ in pair} <= {
        *policies.AUTO_AUGMENT
    }


def test_magnitudes_are_cut_where_timm_cuts_them(monkeypatch):
    seen = []
    spy = {"spy": lambda level, rng, size: seen.append(level)}
    monkeypatch.setattr(policies, "RAND_AUGMENT", spy)
    for mmax in (10.0, 30.0):
        list(policies.rand_augment(rng(0), (8, 8), n=1, m=15, mstd=0.0, mmax=mmax, p=1.0))
    assert seen == [10, 15]


MOVING = {
    "rotate": lambda cubic: moves.rotate(27.0, (17, 17), cubic),
    "shear_x": lambda cubic: moves.affine((1, 0.27, 0, 0, 1, 0), cubic),
    "shear_y": lambda cubic: moves.affine((1, 0, 0, 0.27, 1, 0), cubic),
    "translate_x": lambda cubic: moves.affine((1, 0, 6.885, 0, 1, 0), cubic),
    "translate_y": lambda cubic: moves.affine((1, 0, 0, 0, 1, 6.885), cubic),
}
"""What magnitude 9 does to a square of 17 pixels, where the sign is positive."""


class Fixed(np.random.Generator):
    """A generator that picks operation `choice`, applies it and draws a positive sign."""

    def __init__(self, choice: int, draw: float):
        super().__init__(np.random.PCG64(0))
        self.choice, self.draw, self.draws = choice, draw, 0

    def integers(self, high, size=None):
        return [self.choice]

    def standard_normal(self):
        return 0.0

    def random(self):
        self.draws += 1
        return 0.9 if self.draws < 3 else self.draw  # applied; the sign; the interpolation


@pytest.mark.parametrize("name", MOVING)
def test_interpolation_of_rand_augment(name):
    image, choice = noise(17, 17), list(policies.RAND_AUGMENT).index(name)
    bilinear, bicubic = (moved(MOVING[name](cubic), image) for cubic in (False, True))
    assert (bilinear != bicubic).any()
    for interpolation, draw, expected, draws in (
        ("bilinear", 0.1, bilinear, 2),
        ("bicubic", 0.9, bicubic, 2),
        ("random", 0.9, bilinear, 3),
        ("random", 0.1, bicubic, 3),
    ):
        fixed = Fixed(choice, draw)
        options = dict(n=1, p=1.0, interpolation=interpolation)
        found = applied(policies.rand_augment, image, fixed, **options)
        np.testing.assert_array_equal(found, expected)
        assert fixed.draws == draws


def test_deit_is_bicubic_throughout():
    """DeiT hands `train_interpolation`, bicubic, to timm, and timm to crop and RandAugment."""
    deit = parse_augmentation("deit")
    (op,) = [op for op in deit.ops if getattr(op, "func", None) is policies.rand_augment]
    assert deit.interpolation == op.keywords["interpolation"] == "bicubic"
    image = noise(17, 17)
    for i in range(40):
        expected = applied(policies.rand_augment, image, rng(i), interpolation="bicubic")
        np.testing.assert_array_equal(applied(op, image, rng(i)), expected)


@pytest.mark.parametrize(
    ("policy", "following"),
    [(policies.rand_augment, 0.5568203924988797), (policies.auto_augment, 0.4697603051476124)],
)
def test_random_interpolation_draws_what_it_drew_before_it_was_an_option(policy, following):
    """What sixty generators draw next shows how many numbers each policy has drawn."""
    generators = [rng(i) for i in range(60)]
    for generator in generators:
        list(policy(generator, (17, 17)))
    assert np.mean([g.random() for g in generators]) == pytest.approx(following, abs=1e-12)
    with pytest.raises(ValueError, match="Unknown interpolation 'cubic'; did you mean 'bicubic'"):
        list(policy(rng(), (17, 17), interpolation="cubic"))


def test_rand_augment_applies_half_of_its_operations():
    image = noise(16, 16)
    ours = [applied(policies.rand_augment, image, rng(i), n=1) for i in range(200)]
    same = [np.array_equal(a, image) for a in ours]
    assert 0.4 < np.mean(same) < 0.6
    options = dict(n=1, p=1.0, mstd=0)
    always = [applied(policies.rand_augment, image, rng(i), **options) for i in range(100)]
    assert np.mean([np.array_equal(a, image) for a in always]) < 0.1


def test_jitter_and_three_augment_keep_to_their_ranges():
    image = np.full((8, 8, 3), 100, np.uint8)
    options = dict(contrast=0, saturation=0)
    means = [applied(policies.jitter, image, rng(i), **options).mean() for i in range(300)]
    assert 59 <= min(means) < 65 and 135 < max(means) <= 140
    picture = noise(16, 16)
    results = {applied(policies.three_augment, picture, rng(i)).tobytes() for i in range(30)}
    assert {pixels.gray(picture).tobytes(), pixels.solarize(picture, 128).tobytes()} <= results


def reference_box(height, width, generator):
    """Szegedy's crop as it is usually written, with a loop and one number at a time."""
    for _ in range(10):
        area = height * width * generator.uniform(0.08, 1.0)
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return generator.integers(height - h + 1), generator.integers(width - w + 1), h, w
    raise AssertionError("rare")


def test_crops_have_the_usual_distribution():
    ours = np.array([random_box(375, 500, rng(i)) for i in range(1000)])
    other = rng(10**6)
    usual = np.array([reference_box(375, 500, other) for _ in range(1000)])
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], usual[:, column]).pvalue > 0.01
    areas = [np.log(boxes[:, 2] * boxes[:, 3]) for boxes in (ours, usual)]
    assert stats.ks_2samp(*areas).pvalue > 0.01


def test_the_simple_crop_mirrors_at_the_border():
    boxes = np.array([shifted_box(64, 96, rng(i), 32) for i in range(300)])
    assert boxes[:, 0].min() == -8 and boxes[:, 0].max() == 8
    assert boxes[:, 1].min() == -8 and boxes[:, 1].max() == 40
    image = noise(64, 96)
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(
        crop_and_resize(image, Box(-8, -3, 64, 64), 64), padded[:64, 5:69]
    )


def test_reduced_decoding_changes_little():
    y, x = np.mgrid[:600, :800]
    image = np.dstack([np.sin(y / 40) * 100 + 120, np.cos(x / 50) * 100 + 120, (x + y) / 8])
    jpeg = encoded(".jpg", image.astype(np.uint8))
    box = Box(50, 60, 480, 500)
    exact, fast = (
        crop_and_resize(jpeg, box, 112, "bilinear", exact=e).astype(int) for e in (True, False)
    )
    assert np.abs(exact - fast).mean() < 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit", "Unknown augmentation 'digit'; did you mean 'digits'"),
        ("flip | crop", "begins with 'flip'. Write 'crop | flip'"),
        ("crop | flop", "Unknown step of an augmentation 'flop'; did you mean 'flip'"),
        ("crop | randaugment(mtd=9)", "Unknown option of randaugment 'mtd'; did you mean 'mstd'"),
        ("crop(interpolation='cubic')", "Unknown interpolation 'cubic'; did you mean 'bicubic'"),
        (
            "crop | randaugment(interpolation='cubic')",
            "Unknown interpolation of randaugment 'cubic'; did you mean 'bicubic'",
        ),
        ("crop | autoaugment(interpolation=3)", "Unknown interpolation of autoaugment '3'"),
        ("centre(fraction=0)", "centre(fraction=0) must be a number above 0 and at most 1"),
        ("centre(fraction=1.15)", "centre(fraction=1.15) must be a number above 0"),
        ("centre(fraction='all')", "centre(fraction='all') must be a number above 0"),
        ("centre(fractio=1)", "Unknown option of centre 'fractio'; did you mean 'fraction'"),
        ("crop(fraction=1)", "Unknown option of crop 'fraction'"),
        ("crop | flip(", "does not parse at"),
        ("crop | flip(0.5)", "does not parse at"),
        ("crop(area=__import__('os'))", "does not parse at"),
    ],
)
def test_lines_that_are_wrong(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_augmentation(text)


def test_lines():
    assert parse_augmentation("crop | flip") == parse_augmentation("crop|flip()")
    assert parse_augmentation("deit").interpolation == "bicubic"
    assert len(parse_augmentation("deit3").ops) == 3
    image = noise(40, 60)
    for text in (*AUGMENTATIONS, "crop(area=(0.5, 1.0)) | autoaugment | jitter(hue=0.1)"):
        a, b = (augmented(text, image, rng(5), 16) for _ in range(2))
        assert a.shape == (16, 16, 3) and a.dtype == np.uint8
        np.testing.assert_array_equal(a, b)


# 3 · 127 and 2 · 64: the last image alone would be its own partner.
@pytest.mark.parametrize(
    ("size", "repeats"), [(1000, 3), (1001, 2), (10, 3), (3 * 127, 3), (2 * 64, 2)]
)
def test_repeated_augmentation(size, repeats):
    order = epoch_order(0, size, 4, repeats)
    assert len(order) == size
    values, counts = np.unique(order, return_counts=True)
    assert len(values) == -(-size // repeats)
    assert counts.max() == repeats and counts.sum() == size
    np.testing.assert_array_equal(values, np.unique(epoch_order(0, size, 4)[: len(values)]))
    pairs = order[: size // 2 * 2].reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()


@pytest.mark.parametrize(("repeats", "fewest"), [(2, 512), (3, 321)])
def test_repeated_images_meet_other_partners(repeats, fewest):
    """Samples 2i and 2i + 1 of a batch mix: of the 512 pairs of 1,024 many are to be different.

    DeiT's own sampler gives 321 with three visits of an image.
    """
    order = epoch_order(7, 20_011, 0, repeats)
    for start in range(0, 18 * 1024, 1024):
        pairs = order[start : start + 1024].reshape(-1, 2)
        assert len({frozenset(pair) for pair in pairs.tolist()}) >= fewest
        images, counts = np.unique(pairs, return_counts=True)  # most visits are in one batch
        assert np.mean(counts == repeats) > 0.6 and len(images) < 1024 / repeats + 2 * 63
