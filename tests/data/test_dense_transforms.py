"""Steps of dense tasks' recipes: changes of colour, symmetries of a square, padding after all."""

import colorsys
from typing import Any

import numpy as np
import pytest

from tests.data.pictures import noise
from tests.data.test_kinds import agreement, scene
from vitjax.data.crop_kinds import DegradedImage, PaddedImage
from vitjax.data.kinds import Image, SemanticMap, TokenScores, encode
from vitjax.data.transforms import pixels
from vitjax.data.transforms.augment import parse_augmentation, symmetry
from vitjax.data.transforms.moves import Turn
from vitjax.data.transforms.policies import photometric

STEPS = (pixels.shift, pixels.brightness, pixels.hsv_saturation, pixels.hue)


def rgb(*colour: int) -> np.ndarray:
    return np.array([[colour]], np.uint8)


def test_brightness_is_added_and_contrast_multiplied() -> None:
    image = rgb(0, 100, 250)
    np.testing.assert_array_equal(pixels.shift(image, 20.7)[0, 0], [20, 120, 255])
    np.testing.assert_array_equal(pixels.shift(image, -32.0)[0, 0], [0, 68, 218])
    np.testing.assert_array_equal(pixels.brightness(image, 1.25)[0, 0], [0, 125, 255])


@pytest.mark.parametrize(("factor", "turn"), [(0.5, 0.0), (1.4, 0.0), (1.0, 0.1), (1.0, -0.07)])
def test_saturation_and_hue_are_those_of_hsv(factor: float, turn: float) -> None:
    colours = np.random.default_rng(0).integers(30, 226, (61, 3))
    image = colours[None].astype(np.uint8)
    image = pixels.hsv_saturation(image, factor) if factor != 1 else pixels.hue(image, turn)
    hsv = [colorsys.rgb_to_hsv(*colour) for colour in colours / 255]
    expected = [colorsys.hsv_to_rgb((h + turn) % 1, min(s * factor, 1), v) for h, s, v in hsv]
    error = np.abs(image[0] - 255 * np.array(expected))
    assert error.max() < 7 and error.mean() < 1.5  # hue and saturation have 256 steps


def drawn(rng: np.random.Generator, **options) -> list[tuple[int, float]]:
    """Draw the changes that are applied: index in STEPS and strength, in order."""
    moves: Any = photometric(rng, (5, 5), **options)
    return [(STEPS.index(move.function.args[0]), move.function.args[1]) for move in moves]


def test_each_change_has_its_probability_range_and_place() -> None:
    rng = np.random.default_rng(0)
    every = [drawn(rng, p=(1.0, 0.75, 0.5, 0.0)) for _ in range(2000)]
    counts = np.bincount([step for steps in every for step, _ in steps], minlength=4)
    np.testing.assert_allclose(counts / 2000, (1.0, 0.75, 0.5, 0.0), atol=0.03)
    whole = [drawn(rng, p=(1.0, 1.0, 1.0, 1.0)) for _ in range(1000)]
    orders = [tuple(step for step, _ in steps) for steps in whole]
    assert set(orders) == {(0, 1, 2, 3), (0, 2, 3, 1)}
    assert abs(orders.count((0, 1, 2, 3)) / 1000 - 0.5) < 0.05
    amounts = np.array([[amount for _, amount in sorted(steps)] for steps in whole])
    low, high = np.array([(-32, 0.5, 0.5, -0.1), (32, 1.5, 1.5, 0.1)])
    assert (amounts >= low).all() and (amounts <= high).all()
    np.testing.assert_allclose(amounts.mean(0), (low + high) / 2, atol=0.05 * (high - low).max())
    np.testing.assert_allclose(amounts.std(0), (high - low) / 12**0.5, rtol=0.05)


def test_colours_leave_a_map_alone_and_draw_anew() -> None:
    image, classes = scene(31, 31)
    kinds = {"image": Image(31), "map": SemanticMap(31)}
    augment = parse_augmentation("centre | photometric")
    found = [
        augment({"image": image, "map": classes}, kinds, np.random.default_rng(i)) for i in range(9)
    ]
    assert all((x["map"] == classes).all() for x in found)
    assert len({x["image"].tobytes() for x in found}) > 5


def test_a_quarter_turn_is_counter_clockwise() -> None:
    classes = np.array([[1, 2], [3, 4]])
    turned = [[2, 4], [1, 3]]
    np.testing.assert_array_equal(SemanticMap(2).move(classes, Turn()), turned)
    image = np.repeat(classes[..., None], 3, -1).astype(np.uint8)
    np.testing.assert_array_equal(Image(2).move(image, Turn())[..., 1], turned)


def test_the_eight_symmetries_are_drawn_alike_and_for_all_fields() -> None:
    image, classes = scene(13, 13)
    image[0, 1] = 9  # no symmetry of its own
    kinds = {"image": Image(13), "target": Image(13), "map": SemanticMap(13)}
    sample = {"image": image, "target": image, "map": classes}
    augment, rng, counts = parse_augmentation("centre | symmetry"), np.random.default_rng(0), {}
    for _ in range(800):
        found = encode(augment(sample, kinds, rng), kinds)
        new = found["image"].tobytes() not in counts
        counts[found["image"].tobytes()] = counts.get(found["image"].tobytes(), 0) + 1
        if new:
            np.testing.assert_array_equal(found["image"], found["target"])
            assert agreement(found["image"], found["map"])[0] > 0.99
    turns = [np.rot90(image, k) for k in range(4)]
    assert set(counts) == {x.tobytes() for t in turns for x in (t, t[:, ::-1])}
    assert min(counts.values()) > 65 and max(counts.values()) < 135  # 100 expected


@pytest.mark.parametrize("steps", ["flip(p=1.0)", "symmetry", "photometric | flip", "affine"])
def test_padding_comes_after_all_steps(steps: str) -> None:
    """Of 40×60 at half the scale 20×30 are left, in a crop of 29×29: cut and padded."""
    kinds = {"image": PaddedImage(29), "map": SemanticMap(29)}
    line = f"scaled_crop(scale=(0.5, 0.5), pad_last=True) | {steps}"
    for seed in range(8):
        image, classes = scene(40, 60, seed)
        sample = {"image": image, "map": classes}
        found = encode(parse_augmentation(line)(sample, kinds, np.random.default_rng(seed)), kinds)
        height, width = found["image_extent"]
        assert sorted((height, width)) == [20, 29] and (steps == "symmetry" or height == 20)
        assert found["image"].shape == (29, 29, 3) and found["map"].shape == (29, 29)
        for array, fill in ((found["image"], 0), (found["map"], 255)):
            assert (array[height:] == fill).all() and (array[:, width:] == fill).all()
        if steps != "affine":
            assert (found["map"][:height, :width] < 4).all()
        if "photometric" not in steps:
            share = agreement(found["image"][:height, :width], found["map"][:height, :width])[0]
            assert share > 0.9


def test_a_crop_that_an_image_fills_is_not_padded() -> None:
    kinds = {"image": PaddedImage(17)}
    image = noise(40, 60)
    for seed in range(5):
        lines = (f"scaled_crop(scale=(0.5, 2.0){pad})" for pad in ("", ", pad_last=True"))
        plain, padded = (
            encode(
                parse_augmentation(x)({"image": image}, kinds, np.random.default_rng(seed)), kinds
            )
            for x in lines
        )
        np.testing.assert_array_equal(plain["image"], padded["image"])
        assert padded["image_extent"].tolist() == [17, 17]


def test_what_is_spoilt_is_the_image_and_not_its_padding() -> None:
    kinds = {"image": DegradedImage(29, "noise(sigma=25)"), "target": Image(29)}
    augment = parse_augmentation("scaled_crop(scale=(1, 1), pad_last=True)")
    sample = dict.fromkeys(kinds, np.full((13, 40, 3), 99, np.uint8))
    found = encode(augment(sample, kinds, np.random.default_rng(0)), kinds)
    assert not found["image"][13:].any() and found["image"][:13].std() > 20
    assert (found["target"][:13] == 99).all()


def test_fields_that_cannot_follow_say_so() -> None:
    tall = {"image": Image((19, 11))}
    message = r"has 11×19 pixels after a quarter turn .*image_size=\(19, 11\) is no square"
    turned = tall["image"].move(noise(19, 11), Turn())
    with pytest.raises(ValueError, match=message):
        encode({"image": turned}, tall)
    rng = np.random.default_rng(0)
    tokens = {"image": Image(29), "tokens": TokenScores((2, 3, 3))}
    scores = np.zeros((2, 3, 3), np.uint16), np.zeros((2, 3, 3), np.float16)
    sample = {"image": noise(20, 20), "tokens": scores}
    padded = parse_augmentation("scaled_crop(scale=(1, 1), pad_last=True)")
    with pytest.raises(ValueError, match="label maps do not follow padding; leave pad_last out"):
        padded(sample, tokens, rng)
    with pytest.raises(ValueError, match="label maps do not follow quarter turns"):
        tokens["tokens"].move(tokens["tokens"].open(scores), Turn())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("centre | photometric(p=0.5)", r"photometric\(p=0.5\) does not fit; write .*\(0.5, 0.5"),
        ("centre | photometric(p=(1, 0))", "does not fit"),
        ("centre | photometric(hue='a')", r"hue='a'\) does not fit; write a value such as 0.1"),
        ("scaled_crop(pad_last=1)", r"pad_last=1\) does not fit; write a value such as False"),
        ("centre | symmetrie", "did you mean 'symmetry'"),
    ],
)
def test_wrong_options_are_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_augmentation(line)


def test_no_symmetry_moves_nothing() -> None:
    rng = np.random.default_rng(0)
    assert sum(not list(symmetry(rng, (5, 5))) for _ in range(800)) in range(65, 136)
