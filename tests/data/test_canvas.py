"""Whole images and maps in canvases, and degradations."""

import cv2
import numpy as np
import pytest

from tests.data.pictures import noise
from vitjax.data.canvas import WholeImage, WholeMap
from vitjax.data.crop_kinds import DegradedImage
from vitjax.data.kinds import Image, encode
from vitjax.data.transforms.augment import evaluation, parse_augmentation
from vitjax.data.transforms.degrade import DEGRADATIONS, degrade, parse_degradations


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((40, 60), 0, (40, 60)), ((40, 60), 20, (20, 30)), ((100, 50), 0, (64, 32)),
     ((10, 12), 40, (40, 48)), ((13, 200), 0, (6, 96)), ((1, 1), 0, (1, 1))],
)  # fmt: skip
def test_an_image_keeps_its_proportions(size, short_side, expected) -> None:
    kinds = {"image": WholeImage((64, 96), short_side), "map": WholeMap((200, 200), "x")}
    image, labels = noise(*size), np.ones(size, np.int32)
    fields = evaluation(1.0)({"image": image, "map": labels}, kinds, None)
    arrays = encode(fields, kinds)
    assert tuple(arrays["image_extent"]) == expected and tuple(arrays["map_extent"]) == size
    h, w = expected
    assert not arrays["image"][h:].any() and not arrays["image"][:, w:].any()
    assert (arrays["map"] == 255).sum() == 200 * 200 - size[0] * size[1]
    if expected == size:
        np.testing.assert_array_equal(arrays["image"][:h, :w], image)


@pytest.mark.parametrize(
    ("size", "expected"),
    # 512×683 and 512×341 at scale ¼, and 17·2048/683 = 51: each side up to a multiple of 32.
    [((512, 683), (128, 192)), ((683, 512), (192, 128)), ((683, 2048), (128, 384)),
     ((128, 128), (128, 128)), ((10, 4000), (32, 384))],
)  # fmt: skip
def test_sides_become_multiples_rounded_up(size, expected) -> None:
    kind = WholeImage((384, 384), 128, 32)
    assert kind.size(*size) == expected
    image = noise(*size)
    fields = evaluation(1.0, "bilinear")({"image": image}, {"image": kind}, None)
    assert fields["image"].shape[:2] == expected
    stretched = cv2.resize(image, expected[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(fields["image"], stretched)


def test_what_does_not_fit_names_its_field() -> None:
    kinds = {
        "image": WholeImage((64, 96)),
        "map": WholeMap((32, 32), "config.segmentation.label_size"),
    }
    fields = evaluation(1.0)(
        {"image": noise(40, 30), "map": np.ones((40, 30), np.int32)}, kinds, None
    )
    with pytest.raises(ValueError, match=r"40×30 pixels, and config.segmentation.label_size=\(32"):
        encode(fields, kinds)
    kind = WholeImage((32, 32), mirror=True, option="config.restoration.eval_size")
    with pytest.raises(ValueError, match=r"40×30 pixels, and config.restoration.eval_size=\(32"):
        evaluation(1.0)({"image": noise(40, 30)}, {"image": kind}, None)


def test_mirrored_canvas() -> None:
    kind = WholeImage((9, 7), mirror=True, option="x")
    image = noise(4, 3)
    canvas = kind.encode(image)[""]
    np.testing.assert_array_equal(canvas[:4, :3], image)
    np.testing.assert_array_equal(canvas[4:8, :3], image[::-1])
    np.testing.assert_array_equal(canvas[:4, 3:6], image[:, ::-1])


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradations_are_functions_of_the_image(name: str) -> None:
    image = cv2.GaussianBlur(noise(61, 83), (0, 0), 2)
    spoilt = degrade(name, image)
    assert spoilt.shape == image.shape and spoilt.dtype == np.uint8
    assert (spoilt != image).mean() > 0.05
    np.testing.assert_array_equal(spoilt, degrade(name, image))
    other = degrade(name, image[:, ::-1].copy())
    assert (other[:, ::-1] != spoilt).any() or name in ("down_up", "jpeg", "blur")


def test_noise_has_its_strength() -> None:
    image = np.full((211, 223, 3), 128, np.uint8)
    for sigma in (5, 25):
        error = degrade(f"noise(sigma={sigma})", image).astype(float) - 128
        assert abs(error.std() / sigma - 1) < 0.01 and abs(error.mean()) < 0.2
    strengths = {
        round(degrade("noise(sigma=(0, 50))", image + np.uint8(i)).astype(float).std())
        for i in range(8)
    }
    assert len(strengths) > 4


def test_a_pair_sees_one_view() -> None:
    kinds = {"image": DegradedImage(29, "noise(sigma=25)"), "target": Image(29)}
    image = noise(61, 83)
    augment = parse_augmentation("scaled_crop(scale=(1, 1)) | flip")
    for seed in range(6):
        fields = augment({"image": image, "target": image}, kinds, np.random.default_rng(seed))
        arrays = encode(fields, kinds)
        np.testing.assert_array_equal(arrays["image"], degrade("noise(sigma=25)", arrays["target"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nois", "Unknown degradation 'nois'; did you mean 'noise'"),
        ("noise(sigmo=2)", "Unknown option of noise 'sigmo'; did you mean 'sigma'"),
        ("noise(2)", "does not parse at 'noise"),
        ("noise(sigma=-1)", "must be 0 or more"),
        ("noise(sigma=(3, 1))", "the smaller number first"),
        ("noise(sigma='a')", "must be a number, or a pair"),
    ],
)
def test_wrong_lines_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_degradations(text)
